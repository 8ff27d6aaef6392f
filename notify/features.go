package notify

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Features is what user notification can do here, found out by doing it. Each
// error is nil where it works.
type Features struct {
	Listener error // installing a filter and getting its listener; EBUSY: there is one in this process tree
	Continue error // letting the kernel do the call (Linux 5.5)
	AddFD    error // installing a descriptor in the target (Linux 5.9)
	AddSend  error // and answering with it in one step (Linux 5.14)
	SyncWake error // a synchronous wake-up, which makes calls quicker (Linux 6.6); poemq goes on without
}

// ErrNotTried: what comes before it does not work.
var ErrNotTried = errors.New("not tried")

// probeLimit bounds each step of Probe.
const probeLimit = 5 * time.Second

// Probe puts a thread of this process under a filter that traps getppid(2), and
// answers its calls in each way. The thread ends with it; the rest of the process
// is not under the filter.
func Probe() Features {
	done := make(chan Features)
	go func() {
		runtime.LockOSThread()                 // never unlocked
		if err := blockSignals(); err != nil { // those of the runtime make ADDFD's result unknown
			done <- Features{err, ErrNotTried, ErrNotTried, ErrNotTried, ErrNotTried}
			return
		}
		done <- supervise()
	}()
	return <-done
}

func supervise() (f Features) {
	f = Features{ErrNotTried, ErrNotTried, ErrNotTried, ErrNotTried, ErrNotTried}
	if f.Listener = checkSizes(); f.Listener != nil {
		return f
	}
	p := probe{listener: make(chan probed, 1), calls: make(chan struct{}), results: make(chan probed, 1)}
	go p.target()
	got := <-p.listener
	if f.Listener = got.err; got.err != nil {
		return f
	}
	fd := int(got.value)
	// Closing it ends a call that nobody answered with ENOSYS.
	defer unix.Close(fd)
	defer close(p.calls)
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), ioctlSetFlags, fdSyncWakeUp); e != 0 {
		f.SyncWake = e
	} else {
		f.SyncWake = nil
	}
	f.Continue = p.answered(fd, int64(os.Getppid()), func(n *seccompNotif) error {
		r := seccompNotifResp{id: n.id, flags: respFlagContinue}
		return errnoOf(ioctl(fd, ioctlSend, unsafe.Pointer(&r)))
	})
	if f.Continue != nil {
		return f
	}
	null, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		f.AddFD, f.AddSend = err, err
		return f
	}
	defer unix.Close(null)
	f.AddFD = p.answered(fd, 77, func(n *seccompNotif) error {
		a := seccompNotifAddfd{id: n.id, srcfd: uint32(null), newfdFlags: unix.O_CLOEXEC}
		added, e := ioctl(fd, ioctlAddfd, unsafe.Pointer(&a))
		if e == 0 {
			unix.Close(added) // the target is this process
		}
		r := seccompNotifResp{id: n.id, val: 77}
		return errors.Join(errnoOf(added, e), errnoOf(ioctl(fd, ioctlSend, unsafe.Pointer(&r))))
	})
	f.AddSend = p.answered(fd, -1, func(n *seccompNotif) error {
		a := seccompNotifAddfd{id: n.id, srcfd: uint32(null), flags: addfdFlagSend, newfdFlags: unix.O_CLOEXEC}
		if _, e := ioctl(fd, ioctlAddfd, unsafe.Pointer(&a)); e != 0 {
			r := seccompNotifResp{id: n.id, error: -int32(e)}
			_, _ = ioctl(fd, ioctlSend, unsafe.Pointer(&r)) // so that the target goes on
			return e
		}
		return nil
	})
	return f
}

func errnoOf(_ int, e unix.Errno) error {
	if e != 0 {
		return e
	}
	return nil
}

// probe is the thread under the filter and its supervisor.
type probe struct {
	listener chan probed
	calls    chan struct{} // one for each call to make
	results  chan probed
}

type probed struct {
	value int64
	err   error
}

// target is the thread: it makes a call for each element of calls. It never goes
// back to the runtime.
func (p *probe) target() {
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
	fd, err := -1, blockSignals()
	if err == nil {
		fd, err = trapGetppid()
	}
	p.listener <- probed{int64(fd), err}
	if err != nil {
		return
	}
	for range p.calls {
		r, _, e := unix.Syscall(unix.SYS_GETPPID, 0, 0, 0)
		p.results <- probed{int64(r), errnoOf(0, e)}
	}
}

// answered has the target make a call, answer it, and checks its result; -1 is
// any descriptor, which is closed.
func (p *probe) answered(fd int, want int64, answer func(*seccompNotif) error) error {
	p.calls <- struct{}{}
	var n seccompNotif
	for deadline := time.Now().Add(probeLimit); ; {
		polled := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if k, err := unix.Poll(polled, int(time.Until(deadline).Milliseconds())); k == 0 && err == nil {
			return fmt.Errorf("no notification within %v", probeLimit)
		}
		n = seccompNotif{}
		if _, e := ioctl(fd, ioctlRecv, unsafe.Pointer(&n)); e == 0 {
			break
		} else if e != unix.ENOENT && e != unix.EINTR {
			return fmt.Errorf("receive: %w", e)
		}
	}
	if err := answer(&n); err != nil {
		select {
		case <-p.results:
		case <-time.After(probeLimit):
		}
		return err
	}
	select {
	case r := <-p.results:
		if want == -1 && r.err == nil {
			return unix.Close(int(r.value)) // EBADF: nothing was installed
		}
		if r.err != nil || r.value != want {
			return fmt.Errorf("the call gave %d, %w, and should give %d", r.value, r.err, want)
		}
		return nil
	case <-time.After(probeLimit):
		return fmt.Errorf("the call did not end within %v", probeLimit)
	}
}

// trapGetppid puts this thread under a filter, and gives its listener.
func trapGetppid() (int, error) {
	const (
		retUserNotif = 0x7fc00000
		retAllow     = 0x7fff0000
	)
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // seccomp_data.nr
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_GETPPID, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: retUserNotif},
		{Code: unix.BPF_RET | unix.BPF_K, K: retAllow},
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return -1, fmt.Errorf("no_new_privs: %w", err)
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	fd, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, uintptr(unsafe.Pointer(&program)))
	if e != 0 {
		return -1, e
	}
	return int(fd), nil
}
