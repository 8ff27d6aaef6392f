package addfd

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestAttachTwice(t *testing.T) {
	d := openDock(t)
	program, end := attached(t, d)
	defer unix.Close(end)
	if _, err := d.Attach(program); !errors.Is(err, unix.EISCONN) {
		t.Errorf("attached twice: %v, want EISCONN", err)
	}
	_, listening := listener(t, newSpring(t, openInotify(quiet)), 1)
	if _, err := d.Attach(listening); !errors.Is(err, unix.EINVAL) {
		t.Errorf("attached although it listens: %v, want EINVAL", err)
	}
}

// Only a listening socket shows nothing at all; programs poll it for POLLIN.
func TestListeningPollsAsNothing(t *testing.T) {
	_, fd := listener(t, newSpring(t, openInotify(quiet)), 1)
	if got := pollBits(t, fd); got != 0 {
		t.Errorf("poll of a listening socket: %#x, want 0", got)
	}
}

// nginx and Netty register with epoll before they connect. The registration is
// with the open file, which must therefore stay the same; and edge-triggered
// ones need the edge, not only the level.
func TestEpollSurvivesAttach(t *testing.T) {
	d := openDock(t)
	program := newSocket(t, true)
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(ep)
	in := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET&0xffffffff, Fd: 7}
	if err := unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, program, &in); err != nil {
		t.Fatal(err)
	}
	next := func() uint32 {
		t.Helper()
		events := make([]unix.EpollEvent, 2)
		n, err := unix.EpollWait(ep, events, 0)
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			return 0
		}
		if events[0].Fd != 7 {
			t.Fatalf("event of %d", events[0].Fd)
		}
		return events[0].Events
	}
	if got := next(); got != unix.EPOLLOUT|unix.EPOLLHUP {
		t.Fatalf("epoll of a fresh socket: %#x", got)
	}
	end, err := d.Attach(program)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(end)
	fillers, sndbuf, err := Fill(program)
	if err != nil {
		t.Fatal(err)
	}
	// Attaching woke the watcher, but there is nothing for it to see.
	if got := next(); got != 0 {
		t.Fatalf("epoll while it connects: %#x, want none", got)
	}
	drain(t, end, fillers-1)
	if err := SetSendBuffer(program, sndbuf); err != nil {
		t.Fatal(err)
	}
	if got := next(); got != unix.EPOLLOUT {
		t.Errorf("epoll when connected: %#x, want EPOLLOUT", got)
	}
	if got := next(); got != 0 {
		t.Errorf("a second edge without reason: %#x", got)
	}
}

// Accept at the dock fails where the broker has no descriptor left, with the
// program's connection in the queue. The next program must not be given it.
func TestAttachWithoutDescriptors(t *testing.T) {
	d := openDock(t)
	first, second := newSocket(t, true), newSocket(t, true)
	restore := noMoreFds(t)
	_, err := d.Attach(first)
	restore()
	if !errors.Is(err, unix.EMFILE) {
		t.Fatalf("attach without a descriptor left: %v, want EMFILE", err)
	}
	end, err := d.Attach(second)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(end)
	if err := Trip(second); err != nil {
		t.Fatal(err)
	}
	if got := recvAll(t, end); got != "[.]" {
		t.Errorf("the end reads %q: it is not the second program's", got)
	}
}

// noMoreFds leaves this process no free descriptor until restore.
func noMoreFds(t *testing.T) (restore func()) {
	t.Helper()
	free, err := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(free)
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(free), Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAttachLeaksNothing(t *testing.T) {
	d := openDock(t)
	before := countFds(t)
	for range 2000 {
		fd, _, err := New(true)
		if err != nil {
			t.Fatal(err)
		}
		end, err := d.Attach(fd)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := Fill(fd); err != nil {
			t.Fatal(err)
		}
		unix.Close(fd)
		unix.Close(end)
	}
	if after := countFds(t); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

// A broker that is killed leaves its directory. What is somebody else's, in
// use, or not what we leave, is not ours to remove.
func TestSweep(t *testing.T) {
	parent := t.TempDir()
	make := func(name string, perm os.FileMode) string {
		path := filepath.Join(parent, name)
		if err := os.Mkdir(path, perm); err != nil {
			t.Fatal(err)
		}
		return path
	}
	left := make("poemq-1", 0o700)
	fd := newSocket(t, false)
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: filepath.Join(left, "a")}); err != nil {
		t.Fatal(err)
	}
	kept := map[string]string{
		"open to others":    make("poemq-2", 0o755),
		"holding a file":    make("poemq-3", 0o700),
		"of another name":   make("other-1", 0o700),
		"a directory below": filepath.Join(make("poemq-5", 0o700), "below"),
	}
	if err := os.WriteFile(filepath.Join(parent, "poemq-3", "precious"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	make("poemq-5/below", 0o700)
	if err := os.Symlink(kept["of another name"], filepath.Join(parent, "poemq-4")); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		kept["another user's"] = make("poemq-6", 0o700)
		if err := os.Chown(kept["another user's"], 12345, 12345); err != nil {
			t.Fatal(err)
		}
	}
	inUse, err := OpenDir(parent) // sweeps
	if err != nil {
		t.Fatal(err)
	}
	defer inUse.Close()
	kept["in use"] = inUse.path
	d, err := OpenDir(parent)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what a killed broker left is still there: %v", err)
	}
	for what, path := range kept {
		if _, err := os.Stat(path); err != nil {
			t.Errorf("swept away, though %s: %v", what, err)
		}
	}
	if _, err := os.Stat(filepath.Join(parent, "poemq-3", "precious")); err != nil {
		t.Error(err)
	}
}

// The names in it let anybody who may open it connect to programs' sockets.
func TestDirIsOurs(t *testing.T) {
	d := openDir(t)
	st, err := os.Stat(d.path)
	if err != nil {
		t.Fatal(err)
	}
	if st.Mode() != os.ModeDir|0o700 {
		t.Errorf("mode %v", st.Mode())
	}
	if _, err := OpenDir("", "/proc/none"); err == nil {
		t.Error("a directory where none can be")
	}
}
