package notify

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Notification is one trapped system call that waits for its answer. Its
// methods are for a turn of the listener's (inside handle, or by Post) unless they
// say otherwise; after one of the answers it is spent.
type Notification struct {
	l  *Listener
	id uint64

	// TID is the calling thread in our pid namespace; 0 when it is not visible
	// there.
	TID int
	// Arch is the AUDIT_ARCH_* value the call was made under.
	Arch uint32
	// Nr is the call's number under Arch, Call what it means.
	Nr   int32
	Call Call
	// Args are the arguments as the call's own (socketcall(2) of i386 is
	// already unpacked; see Unpack).
	Args [6]uint64
}

func newNotification(l *Listener, raw *seccompNotif) *Notification {
	return &Notification{
		l: l, id: raw.id, TID: int(raw.pid), Arch: raw.data.arch, Nr: raw.data.nr,
		Call: callOf(raw.data.arch, raw.data.nr), Args: raw.data.args,
	}
}

// Valid reports whether the target still waits. A pid or memory read before
// a true answer belonged to the caller. Unlike the rest it may be called on any
// thread: an interrupted one is just asked again.
func (n *Notification) Valid() bool {
	n.l.mu.Lock()
	defer n.l.mu.Unlock()
	if n.l.ended {
		return false
	}
	for {
		_, e := ioctl(n.l.fd, ioctlIDValid, unsafe.Pointer(&n.id))
		if e != unix.EINTR {
			return e == 0
		}
	}
}

// Continue lets the kernel do the call. Only for calls that the answer has
// nothing to protect in: the target's memory may have changed since.
func (n *Notification) Continue() error {
	return n.send(&seccompNotifResp{id: n.id, flags: respFlagContinue})
}

// Return makes the call return val.
func (n *Notification) Return(val int64) error {
	return n.send(&seccompNotifResp{id: n.id, val: val})
}

// Fail makes the call fail with errno.
func (n *Notification) Fail(errno unix.Errno) error {
	return n.send(&seccompNotifResp{id: n.id, error: -int32(errno)})
}

func (n *Notification) send(r *seccompNotifResp) error {
	for {
		_, e := ioctl(n.l.fd, ioctlSend, unsafe.Pointer(r))
		switch e {
		case 0:
			return nil
		case unix.EINTR:
		case unix.ENOENT, unix.EINPROGRESS: // the latter: answered, and not awake yet
			return ErrGone
		default:
			return fmt.Errorf("answer notification %d: %w", n.id, e)
		}
	}
}

// Install puts a copy of the open file fd into the target as its lowest free
// descriptor and makes that the call's result, atomically: either the target
// has it, or an error is returned and it has not. The caller keeps fd.
// ErrGone: the target waits no longer. unix.EMFILE: its table is full; the
// notification then still waits for an answer.
func (n *Notification) Install(fd int, cloexec bool) (int, error) {
	a := seccompNotifAddfd{id: n.id, flags: addfdFlagSend, srcfd: uint32(fd)}
	if cloexec {
		a.newfdFlags = unix.O_CLOEXEC
	}
	return n.addfd(&a)
}

// Replace puts a copy of the open file fd in place of the target's descriptor
// at, without answering the call.
func (n *Notification) Replace(fd, at int, cloexec bool) error {
	a := seccompNotifAddfd{id: n.id, flags: addfdFlagSetfd, srcfd: uint32(fd), newfd: uint32(at)}
	if cloexec {
		a.newfdFlags = unix.O_CLOEXEC
	}
	_, err := n.addfd(&a)
	return err
}

// addfd must not be interrupted: the kernel would restart it after a signal, and
// find the notification gone that it has answered itself.
func (n *Notification) addfd(a *seccompNotifAddfd) (got int, err error) {
	var e unix.Errno
	if err := unsignalled(func() { got, e = ioctl(n.l.fd, ioctlAddfd, unsafe.Pointer(a)) }); err != nil {
		return -1, err
	}
	switch e {
	case 0:
		return got, nil
	case unix.ENOENT, unix.EINPROGRESS:
		return -1, ErrGone
	}
	return -1, e
}

// Anywhere runs f, which may Return or Fail and nothing else of n, on the
// calling thread: the kernel gives such an answer as a whole or not at all, a
// signal notwithstanding, so it need not wait for the listener's thread. False:
// the listener has ended, and f was not called.
func (n *Notification) Anywhere(f func()) bool {
	n.l.late.RLock()
	defer n.l.late.RUnlock()
	n.l.mu.Lock()
	ended := n.l.ended
	n.l.mu.Unlock()
	if !ended {
		f()
	}
	return !ended
}

// Post has f run in a turn of its own; see Listener.Post.
func (n *Notification) Post(f func()) bool { return n.l.Post(f) }

// Target is the task that made the call. It is owned by the listener and good
// until the handler returns; use it anew in a late answer.
func (n *Notification) Target() (*Target, error) {
	if t := n.l.targets.byTID[n.TID]; t != nil && n.l.sure == n.TID {
		return t, nil
	}
	t, err := n.l.targets.get(n.TID)
	if err == nil {
		n.l.sure = n.TID
	}
	return t, err
}

// File gives a copy of the caller's descriptor, see Target.Fd. It does not look
// first whether the pidfd it has is still that of the caller: if it is not, the
// kernel says ESRCH.
func (n *Notification) File(fd int) (int, error) {
	if t := n.l.targets.byTID[n.TID]; t != nil {
		got, err := t.Fd(fd)
		if err != unix.ESRCH {
			return got, err
		}
	}
	t, err := n.Target()
	if err != nil {
		return -1, err
	}
	return t.Fd(fd)
}

// Read copies from the caller's memory, see Target.Read. What was read is the
// caller's if the notification is Valid afterwards.
func (n *Notification) Read(addr uint64, b []byte) error {
	return (&Target{TID: n.TID}).Read(addr, b)
}

// Write copies to the caller's memory, see Target.Write.
func (n *Notification) Write(pieces ...Piece) error {
	return (&Target{TID: n.TID}).Write(pieces...)
}
