package netns

import (
	"errors"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// One socket of each family is lent to one at a time, made anew when it was
// spoiled, and closed with the handle.
func TestUDP(t *testing.T) {
	n := &NS{self: true, fd: -1} // as Self, but ours
	family := func(fd int) int {
		f, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
		if err != nil {
			t.Error(err)
		}
		return f
	}
	var wg sync.WaitGroup
	cookies := map[uint64]bool{} // the lending guards it
	lend := func(asItWas bool) {
		if err := n.UDP(unix.AF_INET, func(fd int) bool {
			if f := family(fd); f != unix.AF_INET {
				t.Errorf("family %d", f)
			}
			c, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
			if err != nil {
				t.Error(err)
			}
			cookies[c] = true
			return asItWas
		}); err != nil {
			t.Error(err)
		}
	}
	for range 100 {
		wg.Go(func() { lend(true) })
	}
	wg.Wait()
	if len(cookies) != 1 {
		t.Errorf("%d sockets were made, want 1", len(cookies))
	}
	lend(false)
	lend(true)
	if len(cookies) != 2 {
		t.Errorf("%d sockets were made after one was spoiled, want 2", len(cookies))
	}
	var fd4, fd6 int
	n.UDP(unix.AF_INET, func(fd int) bool { fd4 = fd; return true })
	n.UDP(unix.AF_INET6, func(fd int) bool { fd6 = fd; return true })
	if fd4 == fd6 {
		t.Error("one socket for both families")
	}
	n.lent4.close()
	n.lent6.close()
	if n.lent4.made || n.lent6.made {
		t.Error("sockets stay open")
	}
	if err := n.UDP(unix.AF_INET, func(int) bool { t.Error("lent after Close"); return true }); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}
