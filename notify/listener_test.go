package notify

import (
	"errors"
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// The three ways to answer without a descriptor.
func TestAnswers(t *testing.T) {
	p, l := startTarget(t)
	handle := make(chan func(*Notification) error, 1)
	failed := make(chan error, 8)
	serve(t, p, l, func(n *Notification) {
		if n.Call != Socket || n.Int(0) != unix.AF_INET || n.Int(1) != unix.SOCK_STREAM || n.TID != p.cmd.Process.Pid || !n.Valid() {
			t.Errorf("notification: %+v", n)
		}
		failed <- (<-handle)(n)
	})
	ask := func(h func(*Notification) error) (int, unix.Errno) {
		t.Helper()
		handle <- h
		r, e := p.do("socket")
		if err := wait(t, failed, "answer"); err != nil {
			t.Error(err)
		}
		return r, e
	}
	if r, e := ask(func(n *Notification) error { return n.Return(4242) }); r != 4242 || e != 0 {
		t.Errorf("Return(4242): %d, %v", r, e)
	}
	if r, e := ask(func(n *Notification) error { return n.Fail(unix.ENETDOWN) }); r != -1 || e != unix.ENETDOWN {
		t.Errorf("Fail(ENETDOWN): %d, %v", r, e)
	}
	want, _ := p.do("lowest")
	if r, e := ask((*Notification).Continue); r != want || e != 0 {
		t.Errorf("Continue: %d, %v, want a socket as descriptor %d", r, e, want)
	}
	// An answer is given once.
	twice := func(n *Notification) error {
		if err := n.Return(1); err != nil {
			return err
		}
		for what, err := range map[string]error{"Return": n.Return(2), "Fail": n.Fail(unix.EIO), "Continue": n.Continue()} {
			if !errors.Is(err, ErrGone) {
				t.Errorf("%s after an answer: %v, want ErrGone", what, err)
			}
		}
		if _, err := n.Install(0, false); !errors.Is(err, ErrGone) {
			t.Errorf("Install after an answer: %v, want ErrGone", err)
		}
		if n.Valid() {
			t.Error("valid after an answer")
		}
		return nil
	}
	if r, e := ask(twice); r != 1 || e != 0 {
		t.Errorf("answered twice: %d, %v", r, e)
	}
}

func TestInstall(t *testing.T) {
	p, l := startTarget(t)
	file, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	type installed struct {
		at  int
		err error
	}
	done := make(chan installed, 8)
	serve(t, p, l, func(n *Notification) {
		at, err := n.Install(int(file.Fd()), n.Int(2) == 1)
		if err != nil {
			if ferr := n.Fail(unix.ENFILE); ferr != nil {
				t.Errorf("it cannot be answered any more: %v", ferr)
			}
		}
		done <- installed{at, err}
	})

	for cloexec, command := range map[int]string{0: "socket 0", unix.FD_CLOEXEC: "socket 1"} {
		want, _ := p.do("lowest")
		r, e := p.do(command)
		if got := wait(t, done, "Install"); got.err != nil || got.at != want || r != want || e != 0 {
			t.Errorf("installed %+v, the call gave %d, %v; the lowest free one was %d", got, r, e, want)
		}
		if flags, _ := p.do("flags " + itoa(r)); flags != cloexec {
			t.Errorf("%s: flags %d, want %d", command, flags, cloexec)
		}
	}

	// A gap is filled, as by the kernel.
	first, _ := p.do("lowest")
	p.do("socket")
	p.do("socket")
	p.do("socket")
	for range 3 {
		wait(t, done, "Install")
	}
	if _, e := p.do("close " + itoa(first+1)); e != 0 {
		t.Fatal(e)
	}
	if r, _ := p.do("socket"); r != first+1 {
		t.Errorf("installed as %d, the lowest free one was %d", r, first+1)
	}
	wait(t, done, "Install")

	// The target's table is full: it hears so, by the answer that is still open.
	full, _ := p.do("lowest")
	if _, e := p.do("limit " + itoa(full)); e != 0 {
		t.Fatal(e)
	}
	r, e := p.do("socket")
	if got := wait(t, done, "Install"); !errors.Is(got.err, unix.EMFILE) {
		t.Errorf("Install into a full table: %v, want EMFILE", got.err)
	}
	if r != -1 || e != unix.ENFILE {
		t.Errorf("the call gave %d, %v, want the errno it was answered with", r, e)
	}
	if _, e := p.do("lowest"); e != unix.EMFILE {
		t.Errorf("something was installed, or the table is not full: %v", e)
	}
}

func TestReplace(t *testing.T) {
	p, l := startTarget(t)
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	done := make(chan error, 1)
	serve(t, p, l, func(n *Notification) {
		err := n.Replace(pair[1], n.Int(2), true)
		unix.Close(pair[1])
		done <- errors.Join(err, n.Return(0))
	})
	at, _ := p.do("lowest")
	if r, e := p.do("socket " + itoa(at)); r != 0 || e != 0 {
		t.Errorf("the call gave %d, %v", r, e)
	}
	if err := wait(t, done, "Replace"); err != nil {
		t.Fatal(err)
	}
	if flags, e := p.do("flags " + itoa(at)); flags != unix.FD_CLOEXEC || e != 0 {
		t.Errorf("flags %d, %v", flags, e)
	}
	if _, e := p.do("close " + itoa(at)); e != 0 {
		t.Error(e)
	}
	if n, err := unix.Read(pair[0], make([]byte, 1)); n != 0 || err != nil {
		t.Errorf("it was not the only copy: %d, %v", n, err)
	}
}

// The end of a listener is HUP, never an errno, with nothing under way or with
// a call that waits.
func TestServeEndsWithTheLastTask(t *testing.T) {
	p, l := startTarget(t)
	ended := serve(t, p, l, func(n *Notification) { _ = n.Return(0) })
	if _, e := p.do("socket"); e != 0 {
		t.Fatal(e)
	}
	p.end()
	if err := wait(t, ended, "Serve's end"); err != nil {
		t.Error(err)
	}
	if l.Post(func() { t.Error("run after the end") }) {
		t.Error("Post after the end is accepted")
	}
	l.Stop()
}

func TestErrGoneAfterKill(t *testing.T) {
	p, l := startTarget(t)
	held := make(chan *Notification, 1)
	ended := serve(t, p, l, func(n *Notification) { held <- n })
	p.tell("socket")
	n := wait(t, held, "the call")
	if !n.Valid() {
		t.Error("not valid while the target waits")
	}

	// Another task, to keep the listener alive, there is none: hold the
	// listener's thread while the target dies and answers are tried.
	var installed, returned, failed, continued error
	tried := make(chan struct{})
	l.Post(func() {
		p.kill()
		if n.Valid() {
			t.Error("valid after the target's death")
		}
		_, installed = n.Install(0, true)
		returned, failed, continued = n.Return(0), n.Fail(unix.EIO), n.Continue()
		close(tried)
	})
	wait(t, tried, "the answers")
	for what, err := range map[string]error{"Install": installed, "Return": returned, "Fail": failed, "Continue": continued} {
		if !errors.Is(err, ErrGone) {
			t.Errorf("%s: %v, want ErrGone", what, err)
		}
	}
	if err := wait(t, ended, "Serve's end"); err != nil {
		t.Error(err)
	}
	if n.Valid() {
		t.Error("valid after the listener's end")
	}
}

// Late answers have turns of their own, in order and one at a time.
func TestPost(t *testing.T) {
	p, l := startTarget(t)
	const many = 1000
	var order []int // touched in turns only
	sorted := make(chan bool, 1)
	early := false
	l.Post(func() { early = true }) // before Serve
	serve(t, p, l, func(n *Notification) {
		for i := range many {
			n.Post(func() { order = append(order, i) })
		}
		n.Post(func() {
			sorted <- early && len(order) == many && slices.IsSorted(order)
			if err := n.Return(7); err != nil {
				t.Error(err)
			}
		})
	})
	if r, e := p.do("socket"); r != 7 || e != 0 {
		t.Errorf("answered late: %d, %v", r, e)
	}
	if !wait(t, sorted, "what was posted") {
		t.Error("not all of it ran, or not in order")
	}
	// From any goroutine, without loss.
	var ran int
	done := make(chan struct{})
	for range 8 {
		go func() {
			for range many {
				l.Post(func() {
					if ran++; ran == 8*many {
						close(done)
					}
				})
			}
		}()
	}
	wait(t, done, "everything that was posted")
}

// Stop leaves tasks behind; the kernel answers them from then on.
func TestStop(t *testing.T) {
	p, l := startTarget(t)
	ended := serve(t, p, l, func(n *Notification) { l.Stop() })
	if r, e := p.do("socket"); r != -1 || e != unix.ENOSYS {
		t.Errorf("the call under way gave %d, %v, want ENOSYS", r, e)
	}
	if err := wait(t, ended, "Serve's end"); err != nil {
		t.Error(err)
	}
	if r, e := p.do("socket"); r != -1 || e != unix.ENOSYS {
		t.Errorf("a call afterwards gave %d, %v, want ENOSYS", r, e)
	}
}

func TestNothingLeaks(t *testing.T) {
	count := func() int {
		fds, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(fds)
	}
	before := count()
	for range 5 {
		p, l := startTarget(t)
		ended := serve(t, p, l, func(n *Notification) {
			if target, err := n.Target(); err != nil || target.TID != n.TID {
				t.Error(target, err)
			}
			_ = n.Return(0)
		})
		p.do("socket")
		p.end()
		if err := wait(t, ended, "Serve's end"); err != nil {
			t.Error(err)
		}
	}
	if after := count(); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}
