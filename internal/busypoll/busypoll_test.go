package busypoll

import (
	"os"
	"runtime"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// stand has looks last for d at most, at an epoll instance of the test's in the place
// of the runtime's, and returns what makes that ready and what ends it.
func stand(t *testing.T, d time.Duration) (come, gone func()) {
	t.Helper()
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	event, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, event, &unix.EpollEvent{Events: unix.EPOLLIN}); err != nil {
		t.Fatal(err)
	}
	was := poller.Swap(int64(epoll))
	limit.Store(int64(d))
	vain, skip, much = 0, 0, false
	t.Cleanup(func() {
		limit.Store(0)
		poller.Store(was)
		unix.Close(epoll)
		unix.Close(event)
	})
	var b [8]byte
	return func() { unix.Write(event, []byte{1, 0, 0, 0, 0, 0, 0, 0}) }, func() { unix.Read(event, b[:]) }
}

func TestEndsWhenReady(t *testing.T) {
	come, _ := stand(t, time.Minute)
	came := make(chan struct{})
	go func() {
		time.Sleep(2 * time.Millisecond)
		come()
		close(came)
	}()
	defer func() { <-came }() // a busy machine has it go away before
	begin := time.Now()
	Before()
	if took := time.Since(begin); took > 30*time.Second {
		t.Errorf("it looked for %v", took)
	}
	if vain != 0 && skip == 0 {
		t.Errorf("the look counts as in vain: %d", vain)
	}
}

// What comes seldom is not looked for: that costs next to nothing.
func TestInVain(t *testing.T) {
	const d, calls = 100 * time.Microsecond, 5000
	come, gone := stand(t, d)
	looks := 0
	for range calls {
		if skip == 0 {
			looks++
		}
		Before()
		skip = min(skip, most) // a busy machine has it go away for longer
	}
	if most := patience + 10 + 2*calls/most; looks > most {
		t.Errorf("%d of %d times it looked, want %d at the most", looks, calls, most)
	}
	come()
	for range most + 1 {
		Before()
	}
	if vain != 0 || skip != 0 {
		t.Errorf("after something came %d looks were in vain, and %d are left out", vain, skip)
	}
	gone()
	Before()
	if vain != 1 && skip == 0 {
		t.Error("it does not look again")
	}
}

// Where much is carried nobody looks, until it is less.
func TestCarried(t *testing.T) {
	stand(t, time.Minute) // would take that long
	Carried(1 << 30)
	time.Sleep(2 * period) // a period is what is measured
	Before()
	if !much {
		t.Error("a GB in a moment is not much")
	}
	limit.Store(1)
	time.Sleep(2 * period)
	Before()
	if much {
		t.Error("nothing is much")
	}
}

// One goroutine looks at a time, and none where it is off.
func TestOneLooks(t *testing.T) {
	stand(t, time.Minute)
	looking.Store(true)
	Before()
	looking.Store(false)
	limit.Store(0)
	Before()
}

// The runtime's own epoll instance is found, and is ready while something is there
// that the runtime has not looked at.
func TestSet(t *testing.T) {
	t.Cleanup(func() { _ = Set(0) })
	if err := Set(time.Microsecond); err != nil {
		t.Fatal(err)
	}
	name := "/proc/self/fd/" + strconv.Itoa(int(poller.Load()))
	if link, err := os.Readlink(name); link != "anon_inode:[eventpoll]" {
		t.Errorf("%s is %q (%v)", name, link, err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	// A thread that has nothing to do would be quicker than we.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	for range 1000 {
		if _, err := w.Write([]byte{1}); err != nil {
			t.Fatal(err)
		}
		seen := ready()
		if _, err := r.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		if seen {
			return
		}
	}
	t.Error("it is never ready")
}
