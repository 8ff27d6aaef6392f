package notify

import (
	"errors"
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// Caught is a call that was received, and whose answer the receiver may not
// live to give. The kernel does not deliver it again; who has the listener
// afterwards frees it with Release.
type Caught struct {
	ID  uint64 // of the notification
	TID int    // of the calling thread, in the receiver's pid namespace
}

// Caught is what another process needs to free n.
func (n *Notification) Caught() Caught { return Caught{n.id, n.TID} }

// Release frees calls that another process received from this listener and
// left unanswered. Their threads make them once more, unseen by the program
// (see reissue); where that is not permitted, the call fails with EINTR. Those
// that have been answered, or whose program does not wait any more, are left
// alone. It may be called before and beside Serve.
func (l *Listener) Release(calls []Caught) (again, interrupted int) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		// ptrace(2) is a thread's affair. The thread ends with the goroutine,
		// and with it what it may still trace.
		runtime.LockOSThread()
		if blockSignals() != nil {
			return
		}
		for _, c := range calls {
			n := Notification{l: l, id: c.ID, TID: c.TID}
			if !n.Valid() {
				continue
			}
			if reissue(c.TID, n.Valid) == nil {
				again++
				continue
			}
			if n.Fail(unix.EINTR) == nil {
				interrupted++
			}
		}
	}()
	<-done
	return again, interrupted
}

// reissuePatience is how long a thread may take to stop. One that waits for
// its answer does so at once.
const reissuePatience = 500 * time.Millisecond

var errNoStop = errors.New("the thread did not stop")

// reissue has a thread leave the call that it waits in and make it anew. A
// tracer's PTRACE_INTERRUPT ends an interruptible sleep as a signal does, and
// since no signal is there to be handled, the kernel restarts the call
// (ptrace(2), PTRACE_EVENT_STOP; arch_do_signal_or_restart in the kernel). The
// program sees nothing of it, where an answer of ours could only be an error:
// ERESTARTSYS as an answer would reach the program as it is. The caller is on a
// locked thread that ends soon. EPERM: the thread is traced by somebody else,
// or not ours to trace.
func reissue(tid int, still func() bool) error {
	if err := unix.PtraceSeize(tid); err != nil {
		return fmt.Errorf("trace thread %d: %w", tid, err)
	}
	if !still() {
		// It was answered meanwhile. The thread's end lets it go, and so it need
		// not be interrupted in what it does now.
		return nil
	}
	return detach(tid)
}

// detach stops a traced thread and lets it go on.
func detach(tid int) error {
	if err := unix.PtraceInterrupt(tid); err != nil {
		return fmt.Errorf("interrupt thread %d: %w", tid, err)
	}
	end := time.Now().Add(reissuePatience)
	for {
		var ws unix.WaitStatus
		got, err := unix.Wait4(tid, &ws, unix.WALL|unix.WNOHANG, nil)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return fmt.Errorf("wait for thread %d: %w", tid, err)
		case got == tid && ws.Stopped():
			sig := 0
			if uint32(ws)>>16 != unix.PTRACE_EVENT_STOP {
				sig = int(ws.StopSignal()) // the program's, on its way
			}
			return ptraceDetach(tid, sig)
		case got == tid: // it ended
			return nil
		case time.Now().After(end):
			return errNoStop
		default:
			time.Sleep(50 * time.Microsecond)
		}
	}
}

// ptraceDetach is PTRACE_DETACH with a signal to be delivered, which package
// unix has no function for.
func ptraceDetach(tid, sig int) error {
	if _, _, e := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_DETACH, uintptr(tid), 0, uintptr(sig), 0, 0); e != 0 {
		return fmt.Errorf("detach from thread %d: %w", tid, e)
	}
	return nil
}
