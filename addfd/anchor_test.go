package addfd

import (
	"errors"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var quiet = slog.New(slog.DiscardHandler)

const soon = 20 * time.Second // for what is at once on a machine that is not busy

func newSpring(t *testing.T, inotify int) *Anchors {
	t.Helper()
	as := newAnchors(openDir(t), inotify)
	t.Cleanup(as.Close)
	return as
}

// bothWays runs f with inotify and with the probing that stands in for it.
func bothWays(t *testing.T, f func(t *testing.T, as *Anchors)) {
	t.Run("inotify", func(t *testing.T) {
		fd := openInotify(quiet)
		if fd < 0 {
			t.Skip("no inotify instance to be had (fs.inotify.max_user_instances)")
		}
		f(t, newSpring(t, fd))
	})
	t.Run("probing", func(t *testing.T) { f(t, newSpring(t, -1)) })
}

// listener is a program's listening socket.
func listener(t *testing.T, as *Anchors, backlog int) (*Anchor, int) {
	t.Helper()
	fd := newSocket(t, true)
	a, err := as.Hold(fd, func() {})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Release)
	if err := unix.Listen(fd, backlog); err != nil {
		t.Fatal(err)
	}
	return a, fd
}

// held is a socket whose closing is signalled by a channel.
func held(t *testing.T, as *Anchors) (a *Anchor, fd int, closed chan struct{}) {
	t.Helper()
	fd, _, err := New(false)
	if err != nil {
		t.Fatal(err)
	}
	closed = make(chan struct{})
	if a, err = as.Hold(fd, func() { close(closed) }); err != nil {
		t.Fatal(err)
	}
	return a, fd, closed
}

func wantOpen(t *testing.T, a *Anchor, closed chan struct{}, why string) {
	t.Helper()
	if !a.Alive() {
		t.Errorf("not alive, though %s", why)
	}
	select {
	case <-closed:
		t.Errorf("told as closed, though %s", why)
	default:
	}
}

func wantClosed(t *testing.T, a *Anchor, closed chan struct{}) {
	t.Helper()
	if a.Alive() {
		t.Error("alive after the last close")
	}
	select {
	case <-closed:
	case <-time.After(soon):
		t.Error("the last close was not told")
	}
}

// A port is given back when the last descriptor is closed, however many there
// are and wherever.
func TestClosedAtTheLastClose(t *testing.T) {
	bothWays(t, func(t *testing.T, as *Anchors) {
		t.Run("close", func(t *testing.T) {
			a, fd, closed := held(t, as)
			wantOpen(t, a, closed, "nothing was closed")
			unix.Close(fd)
			wantClosed(t, a, closed)
		})
		t.Run("dup", func(t *testing.T) {
			a, fd, closed := held(t, as)
			dup, err := unix.Dup(fd)
			if err != nil {
				t.Fatal(err)
			}
			unix.Close(fd)
			wantOpen(t, a, closed, "a duplicate is open")
			unix.Close(dup)
			wantClosed(t, a, closed)
		})
		t.Run("another process", func(t *testing.T) {
			a, fd, closed := held(t, as)
			p, q := startProcess(t, fd), startProcess(t, fd)
			unix.Close(fd)
			wantOpen(t, a, closed, "two processes have it")
			p.must("close")
			wantOpen(t, a, closed, "one process has it")
			q.kill()
			wantClosed(t, a, closed)
		})
		t.Run("on its way", func(t *testing.T) {
			a, fd, closed := held(t, as)
			pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			if err := unix.Sendmsg(pair[0], []byte("x"), unix.UnixRights(fd), nil, 0); err != nil {
				t.Fatal(err)
			}
			unix.Close(fd)
			wantOpen(t, a, closed, "it is in a message")
			oob := make([]byte, unix.CmsgSpace(4))
			if _, _, _, _, err := unix.Recvmsg(pair[1], make([]byte, 1), oob, unix.MSG_CMSG_CLOEXEC); err != nil {
				t.Fatal(err)
			}
			messages, err := unix.ParseSocketControlMessage(oob)
			if err != nil {
				t.Fatal(err)
			}
			fds, err := unix.ParseUnixRights(&messages[0])
			if err != nil {
				t.Fatal(err)
			}
			wantOpen(t, a, closed, "it has arrived")
			unix.Close(fds[0])
			wantClosed(t, a, closed)
			unix.Close(pair[0])
			unix.Close(pair[1])
		})
	})
}

func TestReleaseEndsTheWatch(t *testing.T) {
	bothWays(t, func(t *testing.T, as *Anchors) {
		released, fd, closed := held(t, as)
		released.Release()
		released.Release()
		unix.Close(fd)
		// Another's closing, later, is told: so would have been this one's.
		a, other, told := held(t, as)
		unix.Close(other)
		wantClosed(t, a, told)
		select {
		case <-closed:
			t.Error("told after Release")
		default:
		}
	})
}

func TestHoldTwice(t *testing.T) {
	bothWays(t, func(t *testing.T, as *Anchors) {
		a, fd, closed := held(t, as)
		if _, err := as.Hold(fd, func() {}); !errors.Is(err, unix.EINVAL) {
			t.Errorf("held twice: %v, want EINVAL", err)
		}
		unix.Close(fd)
		wantClosed(t, a, closed)
	})
}

// The queue of a listening socket is the kernel's: it is readable while a
// connection waits, and full when its backlog is.
func TestConnect(t *testing.T) {
	bothWays(t, func(t *testing.T, as *Anchors) {
		const backlog = 3
		a, fd := listener(t, as, backlog)
		var ends []int
		for {
			end, err := a.Connect()
			if err != nil {
				if !errors.Is(err, unix.EAGAIN) {
					t.Fatalf("the backlog is full: %v, want EAGAIN", err)
				}
				break
			}
			ends = append(ends, end)
		}
		if len(ends) != backlog+1 { // listen(2): one more than asked for
			t.Errorf("%d connections wait, with a backlog of %d", len(ends), backlog)
		}
		if got := pollBits(t, fd); got != unix.POLLIN {
			t.Errorf("poll: %#x, want POLLIN", got)
		}
		for i, end := range ends {
			c, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
			if err != nil {
				t.Fatal(err)
			}
			if err := Trip(c); err != nil {
				t.Fatal(err)
			}
			if got := recvAll(t, end); got != "[.]" {
				t.Errorf("connection %d reads %q: not in the order they came", i, got)
			}
			unix.Close(c)
			unix.Close(end)
		}
		if got := pollBits(t, fd); got != 0 {
			t.Errorf("poll of an empty queue: %#x, want 0", got)
		}
	})
}

func TestConnectIsRefused(t *testing.T) {
	bothWays(t, func(t *testing.T, as *Anchors) {
		refused := func(a *Anchor, why string) {
			t.Helper()
			if end, err := a.Connect(); !errors.Is(err, unix.ECONNREFUSED) {
				unix.Close(end)
				t.Errorf("connect to what %s: %v, want ECONNREFUSED", why, err)
			}
		}
		a, fd, closed := held(t, as)
		refused(a, "does not listen")
		if err := unix.Listen(fd, 1); err != nil {
			t.Fatal(err)
		}
		end, err := a.Connect()
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(end)
		if err := unix.Shutdown(fd, unix.SHUT_RD); err != nil {
			t.Fatal(err)
		}
		refused(a, "was shut down")
		wantOpen(t, a, closed, "it was only shut down")
		unix.Close(fd)
		refused(a, "is closed")
		wantClosed(t, a, closed)
		refused(a, "is closed and forgotten")
		if a.Alive() {
			t.Error("alive when forgotten")
		}
	})
}

// The descriptor number an anchor used belongs to another one afterwards. A
// late Connect must not reach that one's program.
func TestConnectAfterRelease(t *testing.T) {
	bothWays(t, func(t *testing.T, as *Anchors) {
		first, _ := listener(t, as, 8)
		first.Release()
		_, other := listener(t, as, 8)
		if end, err := first.Connect(); !errors.Is(err, unix.ECONNREFUSED) {
			unix.Close(end)
			t.Errorf("connect by a released anchor: %v, want ECONNREFUSED", err)
		}
		if pollBits(t, other) != 0 {
			t.Error("it reached another program's socket")
		}
	})
}

func TestReleaseWhileConnecting(t *testing.T) {
	bothWays(t, func(t *testing.T, as *Anchors) {
		for range 200 {
			a, fd := listener(t, as, 8)
			var wg sync.WaitGroup
			wg.Go(func() {
				for {
					end, err := a.Connect()
					if err != nil {
						return
					}
					unix.Close(end)
				}
			})
			wg.Go(a.Release)
			wg.Wait()
			_ = fd
		}
	})
}

func TestAnchorsLeakNothing(t *testing.T) {
	bothWays(t, func(t *testing.T, as *Anchors) {
		const rounds, atOnce = 2000, 250
		before := countFds(t)
		for range rounds / atOnce {
			var told sync.WaitGroup
			for i := range atOnce {
				fd, _, err := New(true)
				if err != nil {
					t.Fatal(err)
				}
				told.Add(1)
				a, err := as.Hold(fd, told.Done)
				if err != nil {
					t.Fatal(err)
				}
				if err := unix.Listen(fd, 1); err != nil {
					t.Fatal(err)
				}
				end, err := a.Connect()
				if err != nil {
					t.Fatal(err)
				}
				unix.Close(end)
				if i%2 == 0 {
					a.Release()
					told.Done()
				}
				unix.Close(fd)
			}
			told.Wait()
		}
		if after := countFds(t); after != before {
			t.Errorf("%d descriptors before, %d after", before, after)
		}
		names, err := os.ReadDir(as.dir.path)
		if err != nil {
			t.Fatal(err)
		}
		if len(names) != 0 {
			t.Errorf("%d names are left", len(names))
		}
		as.mu.Lock()
		defer as.mu.Unlock()
		if len(as.byWD)+len(as.probed) != 0 {
			t.Errorf("%d sockets are watched still", len(as.byWD)+len(as.probed))
		}
	})
}
