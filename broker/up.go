package broker

import (
	"errors"
	"io"
	"os"

	"github.com/poemq/poemq/addfd"
	"golang.org/x/sys/unix"
)

// What up finds at the end, besides io.EOF and an errno.
var (
	errClosed  = errors.New("the program closed its socket")
	errAborted = errors.New("the relay was aborted")
	errHungUp  = errors.New("the program closed its socket, or shut it down, before there was a connection")
)

const (
	// quickOctets is how much of what a program wrote is carried without a
	// goroutine of its own: enough for what comes and goes in packets. More is
	// worth one, and QUIC is then not given a copy.
	quickOctets = 4 << 10
	// untilWait is how much QUIC is given before up waits until it has sent
	// that: what it takes without our waiting is not held back by congestion.
	untilWait = 32 << 10
)

// Look carries what the program wrote, if that is little (ends.Looker).
func (r *relay) Look() {
	for {
		buf, n, err := r.read()
		switch {
		case n > 0 && r.sendNow(buf[:n]):
			buffers.Put(buf)
			r.b.tripwires.add(r)
		case n > 0 || !errors.Is(err, unix.EAGAIN):
			go r.up(buf, n, err)
			return
		case r.end.Rest():
			return
		}
	}
}

// LookAside is Look when there may be more to do than that.
func (r *relay) LookAside() { r.up(r.read()) }

// up carries what the program writes, beginning with what read gave, until there
// is nothing at the moment or it has ended.
func (r *relay) up(buf *[relayBuffer]byte, n int, err error) {
	for {
		if errors.Is(err, errHungUp) {
			err = r.whyHungUp() // which may take a while
		}
		if n > 0 {
			r.send(buf[:n])
			buffers.Put(buf)
			r.b.tripwires.add(r)
		} else if !errors.Is(err, unix.EAGAIN) {
			break
		} else if r.end.Rest() {
			return
		}
		buf, n, err = r.read()
	}
	switch {
	case errors.Is(err, io.EOF):
		r.endOfFile()
	case errors.Is(err, errClosed):
		if r.hungUpEarly != nil {
			r.hungUpEarly()
		}
		r.abandonQueued()
	case errors.Is(err, errAborted), errors.Is(err, os.ErrClosed):
	default: // ECONNRESET: closed with data unread
		r.closedHard()
	}
	r.carriedAll()
	r.leave()
}

// sendNow sends p if nothing has to be waited for.
func (r *relay) sendNow(p []byte) bool {
	r.tried += len(p)
	if len(p) > quickOctets || r.tried > untilWait || r.stoppedWriting() || !r.t.TryWrite(p) {
		r.tried = 0
		return false
	}
	r.sent.Add(uint64(len(p)))
	return true
}

// read takes what the program wrote. EAGAIN: nothing. There is a buffer only when
// there is something: the caller puts it back when n > 0.
func (r *relay) read() (buf *[relayBuffer]byte, n int, err error) {
	if !r.end.Hold() {
		return nil, 0, os.ErrClosed
	}
	defer r.end.Release()
	buf = buffers.Get().(*[relayBuffer]byte)
	if n, err = r.receive(buf[:]); n == 0 {
		buffers.Put(buf)
		buf = nil
	}
	return buf, n, err
}

// awaitGone waits until the program has closed its socket. False: the end was
// closed before.
func (r *relay) awaitGone() bool {
	for {
		if !r.end.Hold() {
			return false
		}
		gone := r.gone()
		r.end.Release()
		if gone {
			return true
		}
		r.end.Park()
	}
}

// receive takes what is in the queue and is not the tripwire. EAGAIN: nothing.
func (r *relay) receive(buf []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		switch {
		case r.aborted:
			return 0, errAborted
		case r.sock == nil || r.t == nil:
			if addfd.HungUp(r.fd) {
				return 0, errHungUp
			}
			return 0, unix.EAGAIN
		case len(r.early) > 0:
			n := copy(buf, r.early)
			r.early = r.early[n:]
			return n, nil
		case r.armed > 0 && r.onlyTripwire():
			return 0, unix.EAGAIN
		}
		n, ours, err := addfd.Recv(r.fd, buf)
		switch {
		case err != nil:
			return 0, err
		case n == 0:
			return 0, io.EOF
		case !ours:
			return n, nil
		}
		r.armed -= n
	}
}

// whyHungUp is errClosed, or EAGAIN when the program has its socket still.
func (r *relay) whyHungUp() error {
	if !r.end.Hold() {
		return os.ErrClosed
	}
	defer r.end.Release()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.aborted {
		return errAborted
	}
	if closed, err := addfd.Closed(r.fd); closed || err != nil {
		return errClosed
	}
	return unix.EAGAIN
}

// onlyTripwire reports that nothing but the tripwire is in the queue, nor will
// anything follow it.
func (r *relay) onlyTripwire() bool {
	n, err := unix.IoctlGetInt(r.fd, unix.SIOCINQ)
	return err == nil && n <= r.armed && !readsEOF(r.fd)
}

// readsEOF reports that the program's end writes no more.
func readsEOF(fd int) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
	n, err := unix.Poll(p, 0)
	return err == nil && n == 1 && p[0].Revents&(unix.POLLRDHUP|unix.POLLHUP) != 0
}
