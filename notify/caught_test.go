package notify

import (
	"testing"

	"golang.org/x/sys/unix"
)

// TestListenerOutlivesReceiver: a listener that is also kept elsewhere goes on
// when its receiver ends with a call unanswered. Who takes it over gets that
// call once more, and all that come.
func TestListenerOutlivesReceiver(t *testing.T) {
	p, first := startTarget(t)
	kept, err := unix.FcntlInt(uintptr(first.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan Caught, 1)
	ended := make(chan error, 1)
	go func() { ended <- first.Serve(func(n *Notification) { got <- n.Caught() }) }()
	p.tell("socket 1")
	caught := <-got // and never answered
	first.Stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}

	second, err := NewListener(kept)
	if err != nil {
		t.Fatal(err)
	}
	protos := make(chan int, 2)
	go func() {
		ended <- second.Serve(func(n *Notification) {
			protos <- n.Int(2)
			_ = n.Return(int64(40 + n.Int(2)))
		})
	}()
	again, interrupted := second.Release([]Caught{caught, {ID: caught.ID + 1000, TID: caught.TID}})
	if again != 1 || interrupted != 0 {
		t.Errorf("%d calls were made again and %d interrupted, want 1 and 0", again, interrupted)
	}
	if r, errno := p.hear(); r != 41 || errno != 0 {
		t.Errorf("the caught call returned %d, %v; want 41", r, errno)
	}
	p.tell("socket 2")
	if r, errno := p.hear(); r != 42 || errno != 0 {
		t.Errorf("the next call returned %d, %v; want 42", r, errno)
	}
	if a, b := <-protos, <-protos; a != 1 || b != 2 {
		t.Errorf("received calls %d and %d, want 1 and 2", a, b)
	}
	second.Stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
}

// TestReleaseWithoutTrace: a thread that cannot be traced cannot be made to call
// again, and gets EINTR.
func TestReleaseWithoutTrace(t *testing.T) {
	p, l := startTarget(t)
	got := make(chan Caught, 1)
	ended := make(chan error, 1)
	go func() { ended <- l.Serve(func(n *Notification) { got <- n.Caught() }) }()
	p.tell("socket 1")
	caught := <-got
	caught.TID = 0 // as in a pid namespace that is not visible
	again, interrupted := l.Release([]Caught{caught})
	if again != 0 || interrupted != 1 {
		t.Errorf("%d calls were made again and %d interrupted, want 0 and 1", again, interrupted)
	}
	if _, errno := p.hear(); errno != unix.EINTR {
		t.Errorf("the caught call: %v, want EINTR", errno)
	}
	l.Stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
}
