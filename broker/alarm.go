package broker

import (
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// alarm calls f once, some time after it was set. It is for what is due within
// milliseconds while bytes flow: Go waits for its soonest timer by the timeout of
// epoll_wait(2), so that a timer which is due before the kernel's next tick has the
// processor's clock set and set back with every wait of the broker's. On a virtual
// machine that is several µs each. A timerfd(2) is set once.
//
// The zero alarm with an f has a timer of Go's, as one that could not be opened.
type alarm struct {
	f     func()          // with a timerfd one call at a time
	file  *os.File        // the timerfd, in Go's poller; nil: timer
	raw   syscall.RawConn // of file
	over  chan struct{}   // closed when f is called no more
	timer *time.Timer
}

// open makes a a timerfd, before it is set. Close it then.
func (a *alarm) open() {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return // a timer does as well, only slower
	}
	file := os.NewFile(uintptr(fd), "timer")
	raw, err := file.SyscallConn()
	if err != nil {
		file.Close()
		return
	}
	a.file, a.raw, a.over = file, raw, make(chan struct{})
	go a.run()
}

func (a *alarm) run() {
	defer close(a.over)
	var expired [8]byte
	for {
		if _, err := a.file.Read(expired[:]); err != nil {
			return
		}
		a.f()
	}
}

// set has f called after d, in place of what was set before. It must not be called
// beside itself, nor a timer's beside or after close; a timerfd that was closed rings
// no more.
func (a *alarm) set(d time.Duration) {
	switch {
	case a.file != nil:
		in := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(max(1, d)))} // 0 would disarm it
		_ = a.raw.Control(func(fd uintptr) {
			unix.RawSyscall6(unix.SYS_TIMERFD_SETTIME, fd, 0, uintptr(unsafe.Pointer(&in)), 0, 0, 0)
		})
	case a.timer != nil:
		a.timer.Reset(d)
	default:
		a.timer = time.AfterFunc(d, a.f)
	}
}

// close ends a and waits for an f that runs.
func (a *alarm) close() {
	if a.file != nil {
		a.file.Close()
		<-a.over
		return
	}
	if a.timer != nil {
		a.timer.Stop()
	}
}
