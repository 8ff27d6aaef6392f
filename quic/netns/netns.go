// Package netns names network namespaces by their inode and runs code inside
// one.
//
// A socket belongs for its whole life to the namespace of the thread that
// created it (network_namespaces(7)), so only socket(2) itself has to run
// inside: see NS.Do. Go moves goroutines between threads, therefore a foreign
// namespace gets one worker thread of its own, started by the first Do and
// ended by Close. A thread that was once moved is never given back to the
// scheduler.
//
// Entering a foreign namespace needs CAP_SYS_ADMIN in the user namespace that
// owns it and in our own (setns(2)).
package netns

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// ErrClosed is returned by Do after Close.
var ErrClosed = errors.New("netns: handle closed")

// NS is a handle of one network namespace. It owns an open file of nsfs, which
// keeps the namespace alive, until Close. The nil *NS stands for Self.
type NS struct {
	id   uint64
	dev  uint64 // of nsfs; Self only
	self bool

	lent4, lent6 lent // for UDP

	mu     sync.Mutex // guards what follows
	fd     int        // owned; -1 for Self and after Close
	closed bool
	work   chan job // to the worker thread; nil before the first Do
	users  sync.WaitGroup
}

type job struct {
	f    func() error
	done chan error
}

var self = sync.OnceValues(func() (*NS, error) {
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/net", &st); err != nil {
		return nil, fmt.Errorf("stat /proc/self/ns/net: %w", err)
	}
	return &NS{id: st.Ino, dev: st.Dev, self: true, fd: -1}, nil
})

// Self returns the namespace of the process. It is one shared handle: Do runs
// inline, Close does nothing.
func Self() (*NS, error) { return self() }

// FromFd makes a handle of an open nsfs file (/proc/PID/ns/net) and takes the
// fd over: it is closed by Close, or at once on error and when it is the
// process's own namespace, for which Self is returned.
func FromFd(fd int) (*NS, error) {
	own, err := Self()
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("fstat namespace fd %d: %w", fd, err)
	}
	if st.Ino == own.id && st.Dev == own.dev {
		unix.Close(fd)
		return own, nil
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil || fs.Type != unix.NSFS_MAGIC {
		unix.Close(fd)
		return nil, fmt.Errorf("fd %d is no namespace: %w", fd, unix.EINVAL)
	}
	return &NS{id: st.Ino, fd: fd}, nil
}

// ID is the namespace's inode in nsfs. No two live namespaces share it.
func (n *NS) ID() uint64 {
	if n == nil {
		own, err := Self()
		if err != nil {
			return 0
		}
		return own.id
	}
	return n.id
}

// IsSelf tells whether n is the process's own namespace.
func (n *NS) IsSelf() bool { return n == nil || n.self }

// Do runs f inside the namespace and returns its error: inline in the
// process's own, else on a thread that has entered it. f must not keep the
// thread, and goroutines it starts run outside. Calls to one foreign handle
// run one after the other. Errors of entering wrap those of setns(2).
func (n *NS) Do(f func() error) error {
	if n.IsSelf() {
		return f()
	}
	work, err := n.worker()
	if err != nil {
		return err
	}
	defer n.users.Done()
	j := job{f: f, done: make(chan error, 1)}
	work <- j
	return <-j.done
}

// worker returns the channel to the thread, started if need be, and counts the
// caller as a user, so that Close waits for it.
func (n *NS) worker() (chan<- job, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil, ErrClosed
	}
	if n.work == nil {
		work, ready := make(chan job), make(chan error, 1)
		go serve(n.fd, work, ready)
		if err := <-ready; err != nil {
			return nil, fmt.Errorf("enter network namespace %d: %w", n.id, err)
		}
		n.work = work
	}
	n.users.Add(1)
	return n.work, nil
}

// serve is the worker thread. It never unlocks: the thread ends with it.
func serve(fd int, work <-chan job, ready chan<- error) {
	runtime.LockOSThread()
	if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
		ready <- os.NewSyscallError("setns", err)
		return
	}
	ready <- nil
	for j := range work {
		j.done <- j.f()
	}
}

// Clone makes another handle of the namespace, for the caller to close.
func (n *NS) Clone() (*NS, error) {
	if n.IsSelf() {
		return n, nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil, ErrClosed
	}
	fd, err := unix.FcntlInt(uintptr(n.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("duplicate namespace fd: %w", err)
	}
	return &NS{id: n.id, fd: fd}, nil
}

// Close ends the worker thread after running calls and closes the fd. Sockets
// made inside stay. A second Close does nothing.
func (n *NS) Close() error {
	if n.IsSelf() {
		return nil
	}
	n.lent4.close() // before mu is locked, which UDP locks meanwhile
	n.lent6.close()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil
	}
	n.closed = true
	n.users.Wait()
	if n.work != nil {
		close(n.work)
	}
	return os.NewSyscallError("close", unix.Close(n.fd))
}
