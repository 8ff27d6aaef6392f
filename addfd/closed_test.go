package addfd

import (
	"testing"

	"golang.org/x/sys/unix"
)

// TestClosed: a close is told from a shutdown of both directions.
func TestClosed(t *testing.T) {
	for _, c := range []struct {
		name        string
		end, theirs int // shutdowns; -1: none
	}{
		{"nothing", -1, -1},
		{"end of file from both", unix.SHUT_WR, unix.SHUT_WR},
		{"shutdown of both directions", -1, unix.SHUT_RDWR},
		{"everything", unix.SHUT_RDWR, unix.SHUT_RDWR},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(p[0])
			unix.Write(p[0], []byte("unread"))
			if c.end >= 0 {
				unix.Shutdown(p[0], c.end)
			}
			if c.theirs >= 0 {
				unix.Shutdown(p[1], c.theirs)
			}
			check := func(want bool, when string) {
				t.Helper()
				got, err := Closed(p[0])
				if err != nil {
					t.Fatal(err)
				}
				if got != want {
					t.Errorf("%s: closed = %v", when, got)
				}
			}
			check(false, "with data unread")
			var b [16]byte
			unix.Read(p[1], b[:])
			check(false, "with nothing unread")
			d, _ := unix.FcntlInt(uintptr(p[1]), unix.F_DUPFD_CLOEXEC, 0)
			unix.Close(p[1])
			check(false, "with a duplicate")
			unix.Close(d)
			check(true, "closed")
		})
	}
}

func BenchmarkClosed(b *testing.B) {
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer unix.Close(p[0])
	unix.Close(p[1])
	for b.Loop() {
		if gone, err := Closed(p[0]); !gone || err != nil {
			b.Fatal(gone, err)
		}
	}
}

// TestOpen: a socket is among the open ones until its last descriptor is closed,
// also while it waits in a queue.
func TestOpen(t *testing.T) {
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(p[1])
	cookie, err := Cookie(p[0])
	if err != nil {
		t.Fatal(err)
	}
	is := func() bool {
		open, err := Open()
		if err != nil {
			t.Fatal(err)
		}
		return open[cookie]
	}
	dup, err := unix.Dup(p[0])
	if err != nil {
		t.Fatal(err)
	}
	if !is() {
		t.Error("an open socket is not among them")
	}
	unix.Close(p[0])
	if !is() {
		t.Error("a socket with another descriptor is not among them")
	}
	unix.Close(dup)
	if is() {
		t.Error("a closed socket is among them")
	}
}
