package hook

import (
	"maps"
	"slices"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Receiving. A program makes its socket calls in a row, a few microseconds apart,
// and the kernel would have each side sleep in between: to wake it on a processor
// that went idle meanwhile takes several times as long as the call does, and more
// of the processors' time. So both sides look for the other's next message for a
// moment before they sleep, letting others run (sched_yield(2)). The library does
// its part in hook_ask.c.

const (
	// soonAfter is how long the next call of a program is looked for after an
	// answer: about what it takes to wake up once.
	soonAfter = 20 * time.Microsecond
	// A connection on which nothing came so often is looked at again only once in
	// so many answers.
	missesBear  = 2
	missesEvery = 16
)

// packet is one message as it comes.
type packet struct {
	hdr  unix.Msghdr
	iov  unix.Iovec
	n    int // bytes of buf; minus an errno
	buf  [maxMessage + 1]byte
	oob  [oobSize]byte
	room [maxFds]int // of the descriptors
}

// oobSize is room for the descriptors and the sender (cmsg(3)).
const oobSize = (unix.SizeofCmsghdr+4*maxFds+7)&^7 + (unix.SizeofCmsghdr+unix.SizeofUcred+7)&^7

var packets = sync.Pool{New: func() any { return new(packet) }}

// receive takes a message from fd, which does not block. False: there is none.
func (p *packet) receive(fd int) bool {
	p.iov.Base = &p.buf[0]
	p.iov.SetLen(len(p.buf))
	p.hdr = unix.Msghdr{Iov: &p.iov, Control: &p.oob[0]}
	p.hdr.SetIovlen(1)
	p.hdr.SetControllen(len(p.oob))
	// It is over at once, so the scheduler need not be told.
	n, _, errno := unix.RawSyscall(unix.SYS_RECVMSG, uintptr(fd), uintptr(unsafe.Pointer(&p.hdr)), unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
	p.n = int(n)
	if errno != 0 {
		p.n, p.hdr.Controllen = -int(errno), 0
	}
	return errno != unix.EAGAIN // nor EINTR, for it does not wait
}

// over: the other side has closed, or worse.
func (p *packet) over() bool { return p.n <= 0 }

// cut: it was longer than any message is.
func (p *packet) cut() bool { return p.hdr.Flags&unix.MSG_TRUNC != 0 }

func (p *packet) data() []byte { return p.buf[:p.n] }

// control reads the control message: descriptors, close-on-exec, and the process
// that sent it, 0 when the kernel does not say.
func (p *packet) control() (fds files, sender int, err error) {
	return control(p.oob[:p.hdr.Controllen], p.room[:0])
}

// reader takes the messages of one connection.
type reader struct {
	s    *Server
	c    *conn
	in   *packet // nil while nothing comes
	held bool    // in is a message, and c.receiving held

	soon   bool // the next message is expected
	misses int  // times in a row that it did not come
}

// read takes the messages of c until it is closed.
func (s *Server) read(c *conn) {
	r := &reader{s: s, c: c}
	if raw, err := c.f.SyscallConn(); err == nil {
		receive := r.receive
		for raw.Read(receive) == nil && r.one() {
		}
	}
	if r.in != nil {
		packets.Put(r.in)
	}
	s.turn.Lock()
	defer s.turn.Unlock()
	s.drop(c)
}

// receive is for the poller: true when there is something to do. It does not
// block, or nobody could close the connection.
func (r *reader) receive(fd uintptr) bool {
	r.held = r.c.receiving.TryLock()
	if !r.held {
		return true
	}
	if r.in == nil {
		r.in = packets.Get().(*packet)
	}
	if r.in.receive(int(fd)) || r.soon && r.receiveSoon(int(fd)) {
		r.misses = 0
		return true
	}
	r.c.receiving.Unlock()
	r.held = false
	packets.Put(r.in)
	r.in = nil
	return false
}

// one handles what receive had; false: the connection is over.
func (r *reader) one() bool {
	if !r.held { // somebody else receives
		r.s.drain(r.c)
		return true
	}
	defer r.c.receiving.Unlock()
	if r.in.over() {
		return false
	}
	r.soon = r.s.message(r.c, r.in)
	return true
}

// receiveSoon is receive for a message that is expected any moment.
func (r *reader) receiveSoon(fd int) bool {
	r.soon = false
	if r.misses++; r.misses > missesBear && r.misses%missesEvery != 0 {
		return false
	}
	return r.in.receiveSoon(fd)
}

func (p *packet) receiveSoon(fd int) bool {
	for began := time.Now(); time.Since(began) < soonAfter; {
		unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
		if p.receive(fd) {
			return true
		}
	}
	return false
}

// awaitExit waits for the end of p.
func (s *Server) awaitExit(p *process) {
	raw, err := p.f.SyscallConn()
	if err == nil {
		err = raw.Read(func(fd uintptr) bool { return ready(int(fd), unix.POLLIN)&unix.POLLIN != 0 })
	}
	s.turn.Lock()
	conns := slices.Collect(maps.Keys(p.conns))
	s.turn.Unlock()
	for _, c := range conns {
		s.drain(c)
	}
	s.turn.Lock()
	defer s.turn.Unlock()
	if err == nil && p.pidfd >= 0 {
		s.exited(p)
	}
}

// drain handles what is there: of a process that has exited, all that it said.
func (s *Server) drain(c *conn) {
	c.receiving.Lock()
	defer c.receiving.Unlock()
	in := packets.Get().(*packet)
	defer packets.Put(in)
	for {
		s.fds.RLock()
		got := !c.closed && in.receive(c.fd)
		s.fds.RUnlock()
		if !got || in.over() {
			return
		}
		s.message(c, in)
	}
}
