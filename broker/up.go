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
	// seenMost is how many octets that were carried may stay in the queue.
	// tidy leaves one.
	seenMost = 2 << 10
	// wideBuffer is a send buffer that is writable with an octet unread of
	// quickOctets that were written at once, many times over.
	wideBuffer = 128 << 10
)

// trier is a transport that can be written to without waiting, all or nothing.
type trier interface{ TryWrite(p []byte) bool }

// Look carries what the program wrote, if that is little (ends.Looker).
func (r *relay) Look(over bool) { r.look(over, true) }

// look is Look. unlocked: the socket's mu is not held, so that it may be told here
// that the program has closed it.
func (r *relay) look(over, unlocked bool) {
	buf := buffers.Get().(*[relayBuffer]byte)
	defer buffers.Put(buf)
	for !over && r.carryNow(buf[:]) {
		if r.end.Rest() {
			return
		}
		over = addfd.ReadsEOF(r.end.FD()) // may be what happened meanwhile; a closed end is found out aside
	}
	if over && unlocked && r.allWritten(buf[:]) && r.closeWrite() == nil {
		r.programGone()
		r.leave()
		return
	}
	go r.LookAside()
}

// allWritten gives the transport the last of what the program wrote. False: it
// has not simply closed its socket, or there is more to do.
func (r *relay) allWritten(buf []byte) bool {
	if !r.end.Hold() {
		return false
	}
	defer r.end.Release()
	if !addfd.HungUp(r.end.FD()) {
		return false
	}
	r.mu.Lock()
	sock := r.sock
	r.mu.Unlock()
	if sock == nil || sock.shutdown.Load() || sock.lingerZero() {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for !r.aborted && r.tries() {
		switch n, err := r.glance(buf); {
		case err == io.EOF:
			return true
		case err != nil || n > quickOctets || !r.give(buf[:n]):
			return false
		}
	}
	return false
}

// tries reports that the transport may be given something without waiting. r.mu
// is held.
func (r *relay) tries() bool {
	return r.try != nil && !r.stopped && len(r.early) == 0 && r.tried <= untilWait && !r.b.narrow && !r.sock.narrow.Load()
}

// give gives p to the transport, which glance has looked at, if it takes that
// without waiting. What it does not take, receive will find. r.mu is held.
func (r *relay) give(p []byte) bool {
	if !r.try.TryWrite(p) {
		return false
	}
	r.sent.Add(uint64(len(p)))
	r.tried += len(p)
	r.seen += len(p)
	return true
}

// carryNow carries all that the program wrote. False: there is something that
// takes more than that; nothing, or a part, was carried.
//
// It only looks at it (MSG_PEEK), past the tripwire and what it saw before. What
// was carried stays in the queue until tidy drops it, or more than seenMost comes:
// unread, it serves as the tripwire, and for a program that waits for the answer in
// read(2) taking anything out, be it the tripwire, would be a wake-up for nothing.
func (r *relay) carryNow(buf []byte) bool {
	if !r.end.Hold() {
		return false
	}
	defer r.end.Release()
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		n, err := addfd.Unread(r.end.FD())
		switch {
		case err != nil || r.aborted:
			return false
		case r.sock == nil || r.t == nil:
			return !addfd.HungUp(r.end.FD())
		case n <= r.armed+r.seen && len(r.early) == 0:
			return !addfd.ReadsEOF(r.end.FD())
		case !r.tries() || n-r.armed-r.seen > quickOctets:
			return false
		}
		m, err := r.glance(buf)
		if err != nil || !r.give(buf[:m]) {
			return false
		}
		all := n == r.armed+r.seen
		if r.seen > seenMost && r.dropSeen() != nil {
			return false
		}
		r.b.tripwires.add(r)
		if all {
			return true
		}
	}
}

// glance looks at what the program wrote and nobody has looked at: the kernel
// remembers how far that is, whatever is taken out meanwhile (SO_PEEK_OFF,
// socket(7)). r.mu is held.
func (r *relay) glance(buf []byte) (int, error) {
	if !r.glances {
		if err := addfd.PeekOn(r.end.FD()); err != nil {
			return 0, err
		}
		r.glances = true
	}
	for {
		switch n, ours, err := addfd.Peek(r.end.FD(), buf); {
		case errors.Is(err, unix.ECONNRESET):
			r.reset = true // it is told but once
			return 0, err
		case err != nil:
			return 0, err
		case n == 0:
			return 0, io.EOF
		case !ours:
			return n, nil
		}
	}
}

// dropSeen takes what was carried out of the queue, but for one octet, and the
// tripwire before it. r.mu is held.
func (r *relay) dropSeen() error {
	var buf [seenMost]byte
	for r.seen > 0 && r.armed+r.seen > 1 {
		// No more than seen: where the tripwire came late, what follows is not.
		n, ours, err := addfd.Recv(r.end.FD(), buf[:min(len(buf), r.seen, r.armed+r.seen-1)])
		switch {
		case err != nil:
			return err
		case n == 0:
			return io.EOF // the queue was emptied by another
		case ours:
			r.armed -= n
		default:
			r.seen -= n
		}
	}
	return nil
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
			r.layAfter()
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

// receive takes what is in the queue and is not the tripwire, nor carried. EAGAIN:
// nothing.
func (r *relay) receive(buf []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		switch {
		case r.aborted:
			return 0, errAborted
		case r.sock == nil || r.t == nil:
			if addfd.HungUp(r.end.FD()) {
				return 0, errHungUp
			}
			return 0, unix.EAGAIN
		case len(r.early) > 0:
			n := copy(buf, r.early)
			r.early = r.early[n:]
			return n, nil
		case r.onlyOurs():
			return 0, unix.EAGAIN
		}
		most := len(buf)
		if r.seen > 0 {
			most = min(most, r.seen)
		}
		n, ours, err := addfd.Recv(r.end.FD(), buf[:most])
		switch {
		case err != nil:
			return 0, err
		case n == 0 && r.reset:
			return 0, unix.ECONNRESET
		case n == 0:
			return 0, io.EOF
		case ours:
			r.armed -= n
		case r.seen > 0:
			r.seen -= n
		default:
			return n, nil
		}
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
	if closed, err := addfd.Closed(r.end.FD()); closed || err != nil {
		return errClosed
	}
	return unix.EAGAIN
}

// onlyOurs reports that nothing but the tripwire, or what serves as one, is in the
// queue, nor will anything follow it.
func (r *relay) onlyOurs() bool {
	if r.armed+r.seen == 0 {
		return false
	}
	n, err := addfd.Unread(r.end.FD())
	return err == nil && n <= r.armed+r.seen && !addfd.ReadsEOF(r.end.FD())
}
