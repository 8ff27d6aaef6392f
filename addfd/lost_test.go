package addfd

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A socket out of a listening one's queue has no name of its own to be watched
// by; Lost sees its closing all the same, and not before the last descriptor's.
func TestLostSeesTheLastClose(t *testing.T) {
	dir, err := OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	dock, err := NewDock(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer dock.Close()
	peer, _, err := New(false)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := dock.Attach(peer)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: dir.path + "/second"}); err != unix.EINVAL {
		t.Fatalf("bind of an accepted socket: %v, want EINVAL", err)
	}
	unix.Close(peer)

	l := NewLost()
	defer l.Close()
	copied, err := unix.Dup(fd)
	if err != nil {
		t.Fatal(err)
	}
	closed := make(chan struct{})
	if _, err := l.Watch(copied, func() { close(closed) }); err != nil {
		t.Fatal(err)
	}
	unix.Close(copied)
	if !l.look() {
		t.Fatal("it is open and nobody watches")
	}
	select {
	case <-closed:
		t.Fatal("told before it was closed")
	default:
	}
	unix.Close(fd)
	select {
	case <-closed:
	case <-time.After(10 * time.Second):
		t.Fatal("its closing was not seen")
	}
}
