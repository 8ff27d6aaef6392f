package link

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// direction carries packets from one TUN device to the other. Its loop is the
// only user of the shaper; others see its counts in shown.
type direction struct {
	dir     Direction
	in, out int // TUN devices, non-blocking; the Link's
	wake    int // eventfd that ends the loop; closed by the loop
	params  atomic.Pointer[Params]
	cut     atomic.Bool
	middle  *atomic.Pointer[Middlebox]
	shaper  *shaper
	ended   chan struct{}

	mu    sync.Mutex // guards shown
	shown Stats
}

const (
	// early is how much too soon a packet may leave, so that one wake-up
	// serves several.
	early = 100 * time.Microsecond
	// batch is how many packets are read before those that are due leave.
	batch = 64
)

func newDirection(dir Direction, in, out int, p Params, middle *atomic.Pointer[Middlebox]) (*direction, error) {
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	d := &direction{
		dir: dir, in: in, out: out, wake: wake, middle: middle,
		shaper: newShaper(p.Seed<<1 | uint64(dir)&1), ended: make(chan struct{}),
	}
	d.params.Store(&p)
	go d.run()
	return d, nil
}

// stop ends the loop and waits for it.
func (d *direction) stop() {
	one := [8]byte{1}
	_, _ = unix.Write(d.wake, one[:]) // cannot fail: the counter is 0
	<-d.ended
}

func (d *direction) stats() Stats {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.shown
}

// run has a thread of its own, on which timers are exact to a microsecond.
func (d *direction) run() {
	runtime.LockOSThread() // and never unlocked: the timer slack is this thread's
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
	defer close(d.ended)
	defer unix.Close(d.wake)
	buf := make([]byte, 1<<16)
	for {
		now := monotonic()
		d.release(now)
		d.mu.Lock()
		d.shown = d.shaper.stats
		d.mu.Unlock()
		poll := []unix.PollFd{{Fd: int32(d.in), Events: unix.POLLIN}, {Fd: int32(d.wake), Events: unix.POLLIN}}
		var timeout *unix.Timespec
		if wait, ok := d.shaper.next(now); ok {
			ts := unix.NsecToTimespec(int64(wait))
			timeout = &ts
		}
		if _, err := unix.Ppoll(poll, timeout, nil); err != nil && err != unix.EINTR {
			return // a Link whose devices are gone
		}
		if poll[1].Revents != 0 {
			return
		}
		if poll[0].Revents != 0 && !d.receive(buf) {
			return
		}
	}
}

// receive reads what has come, up to a batch. It returns false when the device
// is gone.
func (d *direction) receive(buf []byte) bool {
	for range batch {
		n, err := unix.Read(d.in, buf)
		switch err {
		case nil:
		case unix.EAGAIN, unix.EINTR:
			return true
		default:
			return false
		}
		stats := &d.shaper.stats
		stats.In++
		stats.InOctets += uint64(n)
		if m := d.middle.Load(); m != nil && !(*m)(d.dir, Packet(buf[:n])) {
			stats.Refused++
			continue
		}
		if d.cut.Load() {
			stats.Cut++
			continue
		}
		d.shaper.offer(*d.params.Load(), buf[:n], monotonic())
	}
	return true
}

// release lets those go whose time has come.
func (d *direction) release(now int64) {
	stats := &d.shaper.stats
	for {
		packet := d.shaper.due(now + int64(early))
		if packet == nil {
			return
		}
		switch {
		case d.cut.Load(): // it was on the wire
			stats.Cut++
		case write(d.out, packet) != nil: // the device is down
			stats.Refused++
		default:
			stats.Out++
			stats.OutOctets += uint64(len(packet))
		}
		d.shaper.done(packet)
	}
}

func write(fd int, packet []byte) error {
	for {
		_, err := unix.Write(fd, packet)
		if err != unix.EINTR {
			return err
		}
	}
}

// started is any moment.
var started = time.Now()

// monotonic is the time since then in nanoseconds.
func monotonic() int64 { return int64(time.Since(started)) }
