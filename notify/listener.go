package notify

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrGone says that the target no longer waits for this answer: it was
// interrupted by a signal, or died. Whatever was done for it must be undone or
// kept for the call that may be made again.
var ErrGone = errors.New("the target no longer waits for this call")

// Listener receives the notifications of one seccomp filter. It owns its fds.
type Listener struct {
	fd   int
	wake int // eventfd: there is something in posted

	mu     sync.Mutex // guards posted and ended
	posted []func()
	ended  bool

	targets Targets      // of the serving thread
	raw     seccompNotif // the last notification, of the serving thread
	idle    *time.Timer  // runs while there are targets; of the serving thread
	busy    bool         // a call came since idle was set; of the serving thread
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
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return fail(fmt.Errorf("eventfd: %w", err))
	}
	return &Listener{fd: fd, wake: wake}, nil
}

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

// Post has f run on the listener's thread, soon, in the order of the posts.
// That is where late answers are given. It reports false when the listener has
// ended: f will not run then.
func (l *Listener) Post(f func()) bool {
	l.mu.Lock()
	if l.ended {
		l.mu.Unlock()
		return false
	}
	l.posted = append(l.posted, f)
	first := len(l.posted) == 1
	if first {
		one := [8]byte{1}
		unix.Write(l.wake, one[:]) // an eventfd takes 2^64-2 of these
	}
	l.mu.Unlock()
	return true
}

// Serve receives notifications and calls handle for each, on this goroutine's
// own thread, until the last task under the filter is gone (then it returns
// nil) or stop is posted by Stop. handle must not block.
func (l *Listener) Serve(handle func(*Notification)) error {
	// The thread is never unlocked: it ends with the goroutine, and its signal
	// mask with it.
	runtime.LockOSThread()
	if err := blockSignals(); err != nil {
		return err
	}
	promptly()
	defer l.end()

	fds := []unix.PollFd{{Fd: int32(l.fd), Events: unix.POLLIN}, {Fd: int32(l.wake), Events: unix.POLLIN}}
	for {
		fds[0].Revents, fds[1].Revents = 0, 0
		if _, err := unix.Poll(fds, -1); err != nil && err != unix.EINTR {
			return fmt.Errorf("poll listener: %w", err)
		}
		if fds[1].Revents != 0 {
			if !l.runPosted() {
				return nil
			}
		}
		// HUP can come with IN when the last task died while its call waited;
		// RECV then has nothing and would block.
		if fds[0].Revents&(unix.POLLHUP|unix.POLLERR|unix.POLLNVAL) != 0 {
			return nil
		}
		if fds[0].Revents&unix.POLLIN == 0 {
			continue
		}
		call, err := l.receive()
		if err != nil {
			return err
		}
		if call != nil {
			handle(call)
			l.forgetIdle()
		}
	}
}

// promptly has the calling thread scheduled as any other when its process is
// SCHED_BATCH: who waits for an answer shall have it at once. It is only about
// speed.
func promptly() {
	if a, err := unix.SchedGetAttr(0, 0); err == nil && a.Policy == unix.SCHED_BATCH {
		a.Policy = unix.SCHED_NORMAL
		_ = unix.SchedSetAttr(0, a, 0)
	}
}

// blockSignals keeps them from the calling thread.
func blockSignals() error {
	var all unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^all.Val[i]
	}
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &all, nil); err != nil {
		return fmt.Errorf("block signals: %w", err)
	}
	return nil
}

// Stop ends Serve from any goroutine, with tasks still under the filter.
func (l *Listener) Stop() { l.Post(nil) }

func (l *Listener) runPosted() bool {
	var b [8]byte
	unix.Read(l.wake, b[:])
	l.mu.Lock()
	posted := l.posted
	l.posted = nil
	l.mu.Unlock()
	goOn := true
	for _, f := range posted {
		if f == nil { // Stop
			goOn = false
			continue
		}
		f()
	}
	return goOn
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
	l.mu.Lock()
	l.ended = true
	l.posted = nil
	l.mu.Unlock()
	if l.idle != nil {
		l.idle.Stop()
	}
	l.targets.Close()
	unix.Close(l.wake)
	unix.Close(l.fd)
}
