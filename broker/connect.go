package broker

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/poemq/poemq/addfd"
	"github.com/poemq/poemq/broker/policy"
	"github.com/poemq/poemq/quic/netns"
	"golang.org/x/sys/unix"
)

// dialState is a connection attempt. Its fields up to patience do not change.
type dialState struct {
	sock     *Socket
	ns       *netns.NS
	uid      uint32
	local    netip.AddrPort // as told to the program
	bindTo   netip.Addr     // the address the program bound, if any
	remote   netip.AddrPort
	port     *ephemeral
	decision policy.Decision
	patience time.Duration
	why      string // it is carried as it is; connectTo's, before finish

	cancel context.CancelFunc

	// What follows is guarded by sock.mu.

	// copy of the program's descriptor, held while a blocking call waits, as
	// the kernel holds the file; -1 otherwise.
	copy    int
	waiters []*waiter
	// relay holds the broker's end once the program's socket is attached and
	// filled; nil before.
	relay   *relay
	fillers int
	sndbuf  int
}

func (d *dialState) docked() bool { return d.relay != nil }

// connect answers connect(2).
func (s *Session) connect(r Request, sock *Socket, c *copyFd) {
	sa, errno := readSockaddr(r, r.Ptr(1), r.Int(2))
	if errno != 0 {
		s.fail(r, errno)
		return
	}
	if !r.Valid() {
		return
	}
	remote, unspec, errno := decodeSockaddr(sa, sock.domain)
	// One that comes again was blocking, whatever the flag is by now: the kernel
	// has looked at it before we can.
	blocking := s.again || !addfd.Nonblocking(c.fd)

	sock.mu.Lock()
	state, told := sock.state, sock.told
	lost := state == failed && sock.remote.IsValid() // which was a connection
	if state == connected && !unspec {
		sock.told = true
	}
	sock.mu.Unlock()

	switch {
	case unspec && (state == fresh || state == bound):
		s.done(r)
	case unspec:
		s.disconnect(r, sock, state)
	case state == connected && !told:
		s.done(r)
	case state == connected || state == listening || lost:
		s.fail(r, unix.EISCONN)
	case state == connecting && blocking:
		s.join(r, sock, c, unix.EALREADY)
	case state == connecting:
		sock.dropStale()
		s.fail(r, unix.EALREADY)
	case state == failed:
		soErr := sock.takeError(c.fd)
		if soErr == 0 {
			soErr = unix.ECONNABORTED
		}
		s.failed(r, sock, soErr)
	case errno != 0:
		s.fail(r, errno)
	default:
		s.dial(r, sock, c, remote, blocking)
	}
}

// disconnect answers connect(2) with AF_UNSPEC where there is something to end.
func (s *Session) disconnect(r Request, sock *Socket, was state) {
	pending := unix.Errno(0)
	if was == connected || was == connecting {
		pending = unix.ECONNRESET
	}
	if !s.renew(r, sock, pending) {
		s.fail(r, unix.EISCONN)
		return
	}
	s.done(r)
}

// failed tells of an attempt that failed, after which the program may try again
// on the same socket.
func (s *Session) failed(r Request, sock *Socket, errno unix.Errno) {
	if !s.renew(r, sock, 0) {
		sock.mu.Lock()
		sock.soError = 0
		sock.mu.Unlock()
	}
	s.fail(r, errno)
}

// dial begins a connection attempt and answers, or leaves a waiter.
func (s *Session) dial(r Request, sock *Socket, c *copyFd, remote netip.AddrPort, blocking bool) {
	d, errno := s.newDial(r, sock, remote)
	if errno != 0 {
		s.fail(r, errno)
		return
	}
	if s.dialDirect(r, sock, c, d, blocking) {
		return
	}
	s.b.young.remove(s.b, sock)
	// A connection that the program has just closed ends before this one begins:
	// the two go in one packet.
	s.b.ends.Look()
	ctx, cancel := context.WithTimeoutCause(s.b.ctx, d.patience, unix.ETIMEDOUT)
	d.cancel = cancel

	sock.mu.Lock()
	before := sock.state
	if before != fresh && before != bound { // another thread was quicker
		sock.mu.Unlock()
		cancel()
		d.port.release()
		s.fail(r, unix.EALREADY)
		return
	}
	sock.become(connecting)
	sock.dial, sock.port, sock.soError = d, d.port, 0
	sock.local, sock.remote, sock.told = d.local, d.remote, false
	if !blocking {
		errno = d.dock(c.fd)
	}
	sock.jotLocked()
	sock.mu.Unlock()
	if errno != 0 {
		s.b.wg.Go(func() { d.finish(nil, errno) })
		s.fail(r, errno)
		return
	}
	if blocking {
		s.join(r, sock, c, unix.EINPROGRESS)
	} else {
		s.fail(r, unix.EINPROGRESS)
	}
	s.b.wg.Go(func() {
		t, err := s.b.connectTo(ctx, d)
		d.finish(t, err)
	})
}

// join has r wait for the attempt under way; late is its errno when SO_SNDTIMEO
// is over.
func (s *Session) join(r Request, sock *Socket, c *copyFd, late unix.Errno) {
	sock.mu.Lock()
	d := sock.dial
	if d == nil { // it has just ended
		sock.mu.Unlock()
		s.connect(r, sock, c)
		return
	}
	timeout := timeoutOf(c.fd, unix.SO_SNDTIMEO)
	if timeout > 0 && s.again {
		sock.mu.Unlock()
		s.fail(r, unix.EINTR) // SA_RESTART or not (signal(7))
		return
	}
	if d.copy < 0 && !d.docked() {
		d.copy = c.keep()
	}
	w := &waiter{req: r, checks: &s.b.checks, dropped: d.show}
	w.look = func(Request) bool {
		d.show()
		return false
	}
	w.start(timeout, func(r Request) {
		d.show()
		s.fail(r, late)
	})
	d.waiters = append(d.waiters, w)
	sock.mu.Unlock()
	s.park(w)
}

// show has the program's socket look as one that connects. That is so when
// the call takes longer, since other threads may look, and when nobody waits in
// a call any more. One that is refused at once is spared it.
func (d *dialState) show() {
	d.sock.mu.Lock()
	defer d.sock.mu.Unlock()
	if d.sock.dial != d || d.docked() || d.copy < 0 {
		return
	}
	if errno := d.dock(d.copy); errno != 0 {
		d.sock.b.log.Error("a socket cannot be attached", "error", opError("connect", d.sock, errno))
	}
	unix.Close(d.copy)
	d.copy = -1
}

// dropStale looks after calls that a signal ended.
func (s *Socket) dropStale() {
	s.mu.Lock()
	var waiters []*waiter
	if s.dial != nil {
		waiters = append(waiters, s.dial.waiters...)
	}
	s.mu.Unlock()
	for _, w := range waiters {
		if !w.req.Valid() {
			w.drop()
		}
	}
}

func timeoutOf(fd, opt int) time.Duration {
	tv, err := unix.GetsockoptTimeval(fd, unix.SOL_SOCKET, opt)
	if err != nil {
		return 0
	}
	return time.Duration(tv.Nano())
}

// dock attaches the program's socket, of which fd is a copy, and makes it look
// as one that connects. sock.mu is held.
func (d *dialState) dock(fd int) unix.Errno {
	end, err := d.sock.b.dock.Attach(fd)
	if err != nil {
		return asErrno(err, unix.ENOBUFS)
	}
	d.relay = newRelay(d.sock.b, end)
	d.relay.hungUpEarly = d.sock.closedByProgram
	d.fillers, d.sndbuf, err = addfd.Fill(fd)
	if err != nil {
		return asErrno(err, unix.ENOBUFS)
	}
	d.relay.watch()
	return 0
}

// finish ends the attempt with a connection or an error.
func (d *dialState) finish(t transport, err error) {
	d.cancel()
	sock := d.sock
	shown := copyFd{fd: -1}
	if err == nil {
		shown.fd = d.copyIfShown()
	}
	sock.mu.Lock()
	waiters := d.waiters
	if sock.dial != d { // closed meanwhile
		sock.mu.Unlock()
		if t != nil {
			t.Reset()
		}
		if err != nil { // it may have lost patience
			d.log(fmt.Errorf("given up by the program: %w", err))
		}
		shown.close()
		d.drop()
		d.answer(waiters, unix.ECONNABORTED, true)
		return
	}
	sock.dial = nil
	if err == nil {
		err = d.open(t, shown.fd)
		if err != nil {
			t.Reset()
		}
	}
	errno := asErrno(err, unix.ETIMEDOUT)
	if errors.Is(err, context.Canceled) {
		errno = unix.ECONNABORTED
	}
	again := errno == 0 || d.fail(errno)
	sock.jotLocked()
	sock.mu.Unlock()
	d.log(err)
	shown.close() // both before the program can close its own descriptor
	d.drop()
	d.answer(waiters, errno, again)
}

// answer tells those who wait in connect. Unless it may try again, the socket
// is made so that it can.
func (d *dialState) answer(waiters []*waiter, errno unix.Errno, again bool) {
	sock := d.sock
	for _, w := range waiters {
		switch {
		case errno == 0:
			w.answerHere(func(r Request) {
				err := sock.sess.done(r)
				sock.mu.Lock()
				sock.told = sock.told || err == nil
				sock.mu.Unlock()
			})
		case again:
			w.answerHere(func(r Request) { sock.sess.fail(r, errno) })
		default:
			w.answer(func(r Request) { sock.sess.failed(r, sock, errno) })
		}
	}
}

func (d *dialState) log(err error) {
	log := d.sock.sess.log
	if err != nil {
		d.sock.b.ledger.connectFails(unix.ErrnoName(asErrno(err, unix.ETIMEDOUT)))
	}
	if err == nil {
		log.Debug("connected", "socket", d.sock.cookie, "local", d.local, "remote", d.remote)
		return
	}
	log.Info("connect failed", "socket", d.sock.cookie, "remote", d.remote, "policy", d.decision.Mode, "rule", d.decision.By(), "error", err)
}

// copyIfShown is a copy of the program's descriptor if that looks as one that
// connects; else -1.
func (d *dialState) copyIfShown() int {
	d.sock.mu.Lock()
	shown := d.sock.dial == d && d.docked()
	d.sock.mu.Unlock()
	if !shown {
		return -1
	}
	fd, err := d.sock.copyOf()
	if err != nil {
		return -1
	}
	return fd
}

// roomyBuffer is an SO_SNDBUF that is writable with two fillers in it: twice
// that many bytes are four times what they cost (unix(7), SO_SNDBUF).
const roomyBuffer = 8 << 10

// open makes the connection the program's. fd is a copy of its descriptor, or
// -1. sock.mu is held.
func (d *dialState) open(t transport, fd int) error {
	sock := d.sock
	var begin func(transport)
	if d.docked() {
		// One step makes it writable, for epoll's one edge: the larger buffer
		// when two fillers are left, else the last filler but one.
		left := 1
		if fd >= 0 && d.sndbuf >= roomyBuffer {
			left = 2
		}
		begin = d.relay.start
		if err := d.relay.drain(d.fillers-left, left); err != nil {
			return err
		}
		d.relay.attach(sock)
		switch {
		case fd < 0:
			d.restoreSendBuffer()
		default:
			_ = addfd.SetSendBuffer(fd, d.sndbuf) // it cannot fail: it was so before
		}
	} else {
		end, err := sock.b.dock.Attach(d.copy)
		if err != nil {
			return err
		}
		d.relay = newRelay(sock.b, end)
		begin = d.relay.watchAndStart
		d.relay.trip(d.copy)
		d.relay.attach(sock)
	}
	sock.become(connected)
	sock.relay = d.relay
	if sock.hold == nil { // TCP may have had to take another port
		sock.local = netip.AddrPortFrom(keepScope(t.LocalAddr().Addr(), d.local.Addr()), t.LocalAddr().Port())
	}
	if sock.anchor != nil {
		sock.anchor.Release()
		sock.anchor = nil
		sock.dropAnchor()
	}
	d.relay.why = d.why
	begin(t)
	return nil
}

func (d *dialState) restoreSendBuffer() {
	sock, sndbuf, relay := d.sock, d.sndbuf, d.relay
	go func() {
		fd, err := sock.copyOf()
		if err != nil && relay.hungUp() {
			return // a short conversation, over by now
		}
		if err != nil {
			if !sock.isClosed() {
				sock.b.log.Warn("a socket's send buffer stays small", "error", opError("connect", sock, err))
			}
			return
		}
		defer unix.Close(fd)
		if err := addfd.SetSendBuffer(fd, sndbuf); err != nil {
			sock.b.log.Warn("a socket's send buffer stays small", "error", opError("SO_SNDBUF", sock, err))
		}
	}()
}

// fail shows errno to the program. It reports that the same socket may try
// again, which is so when nothing was shown on it yet. sock.mu is held.
func (d *dialState) fail(errno unix.Errno) (again bool) {
	sock := d.sock
	d.port.release()
	sock.port = nil
	sock.remote = netip.AddrPort{}
	if !d.docked() {
		d.unname()
		if sock.hold != nil {
			sock.become(bound)
		} else {
			sock.become(fresh)
		}
		if d.copy >= 0 {
			go sock.b.watchCopy(sock, d.copy)
			d.copy = -1
		}
		return true
	}
	sock.become(failed)
	sock.soError = errno
	// A filler is unread: the program sees POLLERR and POLLHUP.
	d.relay.discard(d.fillers)
	go sock.watchLost()
	return false
}

// unname is what the kernel's disconnecting leaves of the name. sock.mu is held.
func (d *dialState) unname() {
	if d.sock.hold != nil {
		d.sock.local = d.sock.hold.local
		return
	}
	// The port is free again, but still told (inet_reset_saddr in the kernel).
	d.sock.local = netip.AddrPortFrom(netip.IPv6Unspecified(), d.port.port)
}

// watchCopy looks after a socket whose attempt failed, and closes fd.
func (b *Broker) watchCopy(s *Socket, fd int) {
	b.watchClose(s, fd)
	unix.Close(fd)
}

// drop frees what the attempt still holds.
func (d *dialState) drop() {
	d.sock.mu.Lock()
	defer d.sock.mu.Unlock()
	if d.copy >= 0 {
		unix.Close(d.copy)
		d.copy = -1
	}
	if d.relay != nil && d.sock.relay != d.relay {
		d.relay.discard(d.fillers)
	}
}
