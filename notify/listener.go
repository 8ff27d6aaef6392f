package notify

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/poemq/poemq/internal/busypoll"
	"golang.org/x/sys/unix"
)

// ErrGone says that the target no longer waits for this answer: it was
// interrupted by a signal, or died. Whatever was done for it must be undone or
// kept for the call that may be made again.
var ErrGone = errors.New("the target no longer waits for this call")

// Listener receives the notifications of one seccomp filter. It owns its fds.
//
// Handlers and what is posted have their turns one after the other, on whatever
// thread comes: a listener has none of its own, and the goroutines that a
// handler starts run on the thread that it leaves.
type Listener struct {
	fd int
	// calls is an epoll(7) instance that watches fd for EPOLLIN, for Go's poller:
	// that asks for EPOLLOUT, too, which comes with every notification that was
	// received and not answered yet (seccomp_unotify(2)), for nothing.
	calls *os.File

	mu      sync.Mutex // guards what follows
	posted  []func()
	running bool // a goroutine runs what is posted
	ended   bool

	stopped atomic.Bool
	late    sync.RWMutex // read-locked while an answer is given out of turn

	turn    sync.Mutex   // held by whoever has its turn; guards what follows
	targets Targets      // their own timer is not used
	sure    int          // one of them that was seen to run in this turn; 0: none
	raw     seccompNotif // the last notification
	idle    *time.Timer  // runs while there are targets
	busy    bool         // a call came since idle was set
}

// NewListener takes ownership of a seccomp listener fd. It fails when fd is
// not one, or when the kernel's structures are not the ones known here.
func NewListener(fd int) (*Listener, error) {
	unix.CloseOnExec(fd)
	fail := func(err error) (*Listener, error) {
		unix.Close(fd)
		return nil, err
	}
	if err := checkSizes(); err != nil {
		return fail(err)
	}
	var id uint64
	// An id that cannot exist: ENOENT from a listener, ENOTTY and others from
	// any other file.
	if _, e := ioctl(fd, ioctlIDValid, unsafe.Pointer(&id)); e != unix.ENOENT {
		return fail(fmt.Errorf("fd %d is not a seccomp listener: %w", fd, e))
	}
	if err := checkAddfd(fd); err != nil {
		return fail(err)
	}
	// Flags go by value. Older kernels refuse them; it is only about speed.
	unix.Syscall(unix.SYS_IOCTL, uintptr(fd), ioctlSetFlags, fdSyncWakeUp)
	calls, err := watch(fd)
	if err != nil {
		return fail(err)
	}
	return &Listener{fd: fd, calls: calls}, nil
}

// watch makes an epoll instance that is readable when fd is.
func watch(fd int) (*os.File, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create1 for the listener: %w", err)
	}
	if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET}); err != nil {
		unix.Close(epoll)
		return nil, fmt.Errorf("epoll_ctl of the listener: %w", err)
	}
	_ = unix.SetNonblock(epoll, true) // only so that os takes it for pollable
	return os.NewFile(uintptr(epoll), "seccomp listener"), nil
}

// FD is the listener's descriptor, for a copy that outlives us. It is the
// listener's.
func (l *Listener) FD() int { return l.fd }

// checkAddfd asks for an installation that cannot happen: ENOENT (there is no
// such notification) from a kernel that knows SECCOMP_ADDFD_FLAG_SEND, EINVAL
// from an older one.
func checkAddfd(fd int) error {
	a := seccompNotifAddfd{flags: addfdFlagSend, srcfd: uint32(fd)}
	if _, e := ioctl(fd, ioctlAddfd, unsafe.Pointer(&a)); e != unix.ENOENT {
		return fmt.Errorf("this kernel cannot install descriptors as a call's result (SECCOMP_ADDFD_FLAG_SEND): %w; Linux 5.14 or later is needed", e)
	}
	return nil
}

// Post has f run in a turn of its own, soon, in the order of the posts. That is
// where late answers are given. It reports false when the listener has ended: f
// will not run then.
func (l *Listener) Post(f func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return false
	}
	l.posted = append(l.posted, f)
	if !l.running {
		l.running = true
		go l.runPosted()
	}
	return true
}

func (l *Listener) runPosted() {
	l.turn.Lock()
	defer l.turn.Unlock()
	for {
		l.mu.Lock()
		posted := l.posted
		l.posted = nil
		if len(posted) == 0 || l.ended {
			l.running = false
			l.mu.Unlock()
			return
		}
		l.mu.Unlock()
		for _, f := range posted {
			l.sure = 0
			f()
		}
	}
}

// Serve receives notifications and calls handle for each, until the last task
// under the filter is gone or Stop is called; then it returns nil. handle must
// not block.
func (l *Listener) Serve(handle func(*Notification)) error {
	defer l.end()
	raw, err := l.calls.SyscallConn()
	if err != nil {
		return err
	}
	over := false
	var failed error
	err = raw.Read(func(uintptr) bool {
		if over, failed = l.receiveAll(handle); !over {
			busypoll.Before()
		}
		return over
	})
	if over || l.stopped.Load() {
		return failed
	}
	return err
}

// receiveAll takes what is there. over: the last task is gone, or there is an
// error.
func (l *Listener) receiveAll(handle func(*Notification)) (over bool, err error) {
	p := []unix.PollFd{{Fd: int32(l.fd), Events: unix.POLLIN}}
	for {
		p[0].Revents = 0
		if _, err := unix.Poll(p, 0); err != nil && err != unix.EINTR {
			return true, fmt.Errorf("poll listener: %w", err)
		}
		// HUP can come with IN when the last task died while its call waited;
		// RECV then has nothing and would block. ERR alone says that a signal
		// came while the kernel looked (seccomp_notify_poll): look again.
		switch {
		case p[0].Revents&(unix.POLLHUP|unix.POLLNVAL) != 0:
			return true, nil
		case p[0].Revents&unix.POLLERR != 0:
			continue
		case p[0].Revents&unix.POLLIN == 0:
			return false, nil
		}
		if err := l.receiveOne(handle); err != nil {
			return true, err
		}
		if l.stopped.Load() {
			return false, nil
		}
	}
}

func (l *Listener) receiveOne(handle func(*Notification)) error {
	l.turn.Lock()
	defer l.turn.Unlock()
	l.sure = 0
	call, err := l.receive()
	if call != nil {
		handle(call)
		l.forgetIdle()
	}
	return err
}

var allSignals = func() (all unix.Sigset_t) {
	for i := range all.Val {
		all.Val[i] = ^all.Val[i]
	}
	return all
}()

// blockSignals keeps them from the calling thread.
func blockSignals() error {
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &allSignals, nil); err != nil {
		return fmt.Errorf("block signals: %w", err)
	}
	return nil
}

// unsignalled runs f where no signal comes.
func unsignalled(f func()) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before unix.Sigset_t
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &allSignals, &before); err != nil {
		return fmt.Errorf("block signals: %w", err)
	}
	f()
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &before, nil); err != nil {
		return fmt.Errorf("unblock signals: %w", err)
	}
	return nil
}

// Stop ends Serve from any goroutine, with tasks still under the filter.
func (l *Listener) Stop() {
	l.stopped.Store(true)
	l.calls.SetReadDeadline(time.Unix(1, 0))
}

// receive takes one notification. ENOENT (the task was killed meanwhile) and
// EINTR mean: go on.
func (l *Listener) receive() (*Notification, error) {
	l.raw = seccompNotif{} // the kernel wants it zeroed
	_, e := ioctl(l.fd, ioctlRecv, unsafe.Pointer(&l.raw))
	switch e {
	case 0:
		return newNotification(l, &l.raw), nil
	case unix.ENOENT, unix.EINTR:
		return nil, nil
	}
	return nil, fmt.Errorf("receive notification: %w", e)
}

// forgetIdle has the targets dropped when no call comes for idleTargets: a timer
// is cheaper than a time limit for each poll.
func (l *Listener) forgetIdle() {
	l.busy = true
	if l.idle != nil || len(l.targets.order) == 0 {
		return
	}
	l.idle = time.AfterFunc(idleTargets, func() { l.Post(l.look) })
}

// look is the timer's post.
func (l *Listener) look() {
	if l.busy {
		l.busy = false
		l.idle.Reset(idleTargets)
		return
	}
	l.idle = nil
	l.targets.dropAll()
}

func (l *Listener) end() {
	l.turn.Lock()
	defer l.turn.Unlock()
	l.late.Lock()
	defer l.late.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	l.posted = nil
	if l.idle != nil {
		l.idle.Stop()
	}
	l.targets.Close()
	l.calls.Close()
	unix.Close(l.fd)
}
