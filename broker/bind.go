package broker

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"strconv"

	"github.com/poemq/poemq/quic/netns"
	"golang.org/x/sys/unix"
)

func unwrapErrno(err error) (unix.Errno, bool) {
	var e unix.Errno
	ok := errors.As(err, &e)
	return e, ok
}

// bind answers bind(2).
func (s *Session) bind(r Request, sock *Socket, c *copyFd) {
	sa, errno := readSockaddr(r, r.Ptr(1), r.Int(2))
	if errno != 0 {
		s.fail(r, errno)
		return
	}
	if !r.Valid() {
		return
	}
	sock.mu.Lock()
	state, before := sock.state, sock.undelivered
	sock.mu.Unlock()
	if state == bound && before != nil && bytes.Equal(before, sa) {
		s.answerBind(r, sock, sa) // it came again
		return
	}
	if state != fresh {
		s.fail(r, unix.EINVAL)
		return
	}
	if errno := s.bindTo(r, sock, c, sa); errno != 0 {
		s.fail(r, errno)
		return
	}
	s.answerBind(r, sock, sa)
}

func (s *Session) answerBind(r Request, sock *Socket, sa []byte) {
	err := s.done(r)
	sock.mu.Lock()
	defer sock.mu.Unlock()
	sock.undelivered = nil
	if err != nil {
		sock.undelivered = sa
	}
}

// bindTo takes the port for sock. c is a copy of the program's descriptor.
func (s *Session) bindTo(r Request, sock *Socket, c *copyFd, sa []byte) unix.Errno {
	ns, err := sock.netNS(r)
	if err != nil {
		s.log.Error("bind", "error", err)
		return unix.ENOBUFS
	}
	if errno := s.mayBind(r, ns, sa); errno != 0 {
		return errno
	}
	creds, err := r.Creds()
	if err != nil {
		return unix.ENOBUFS
	}
	hold, errno := s.b.holdPort(sock, ns, sa, creds.UID)
	if errno == unix.EADDRINUSE {
		s.b.reapClosed()
		hold, errno = s.b.holdPort(sock, ns, sa, creds.UID)
	}
	if errno != 0 {
		return errno
	}
	s.b.young.remove(s.b, sock)
	s.b.watchClose(sock, c.fd)
	sock.mu.Lock()
	defer sock.mu.Unlock()
	if sock.state != fresh { // another thread was quicker
		hold.release()
		return unix.EINVAL
	}
	sock.become(bound)
	sock.hold, sock.local = hold, hold.local
	hold.keptBy(s.kept)
	sock.jotLocked()
	return 0
}

// mayBind checks what the kernel would check of the program and cannot check
// of the broker: CAP_NET_BIND_SERVICE for low ports.
func (s *Session) mayBind(r Request, ns *netns.NS, sa []byte) unix.Errno {
	if len(sa) < 4 {
		return 0
	}
	port := binary.BigEndian.Uint16(sa[2:])
	if port == 0 || port >= s.b.sysctls.of(ns).unprivileged {
		return 0
	}
	creds, err := r.Creds()
	if err != nil || !creds.CapNetBind {
		return unix.EACCES
	}
	return 0
}

// tcpSocket makes a kernel TCP socket of sock's domain in ns, with the options
// that the program set.
func (b *Broker) tcpSocket(sock *Socket, ns *netns.NS) (fd int, errno unix.Errno) {
	if fd, errno = b.bareTCP(sock.domain, ns); errno != 0 {
		return -1, errno
	}
	sock.mu.Lock()
	opts := sock.opts
	sock.mu.Unlock()
	for _, o := range opts {
		rawSetsockopt(fd, o.level, o.name, o.value)
	}
	return fd, 0
}

func (b *Broker) bareTCP(domain int, ns *netns.NS) (fd int, errno unix.Errno) {
	err := ns.Do(func() (err error) {
		fd, err = unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
		return err
	})
	return fd, asErrno(err, unix.ENOBUFS)
}

func localAddr(fd int) (netip.AddrPort, error) {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return netip.AddrPort{}, err
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port)), nil
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(zoned(netip.AddrFrom16(sa.Addr), int(sa.ZoneId)), uint16(sa.Port)), nil
	}
	return netip.AddrPort{}, unix.EAFNOSUPPORT
}

func zoned(a netip.Addr, scope int) netip.Addr {
	if scope == 0 || !a.IsLinkLocalUnicast() {
		return a
	}
	return a.WithZone(strconv.Itoa(scope))
}

// reapClosed looks at every socket that holds a port, since a program may
// bind what it closed a moment ago.
func (b *Broker) reapClosed() {
	b.mu.Lock()
	var held []*Socket
	for _, s := range b.sockets {
		held = append(held, s)
	}
	b.mu.Unlock()
	for _, s := range held {
		if s.holdsPort() && s.isClosed() {
			s.closedByProgram()
		}
	}
	b.settle()
}

// holdsPort is also true of one whose port is being freed.
func (s *Socket) holdsPort() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.hold != nil || s.shared != nil || s.port != nil || s.state == closed
}

// isClosed asks the kernel whether the program has closed s.
func (s *Socket) isClosed() bool {
	s.mu.Lock()
	anchor, relay := s.anchor, s.relay
	listen, state := s.listen, s.state
	if relay == nil && s.dial != nil {
		relay = s.dial.relay
	}
	s.mu.Unlock()
	if listen != nil {
		listen.dropStale()
	}
	switch {
	case state == closed:
		return true
	case relay != nil:
		return relay.hungUp()
	case anchor == nil || anchor.Alive():
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	// It was not released while it was asked, unless for just that.
	return s.anchor == anchor || s.state == closed
}

// getsockname answers getsockname(2).
func (s *Session) getsockname(r Request, sock *Socket, _ *copyFd) {
	sock.mu.Lock()
	local := sock.local
	sock.mu.Unlock()
	s.result(r, writeSockaddr(r, r.Ptr(1), r.Ptr(2), local, sock.domain))
}

// getpeername answers getpeername(2).
func (s *Session) getpeername(r Request, sock *Socket, _ *copyFd) {
	sock.mu.Lock()
	remote, state, relay := sock.remote, sock.state, sock.relay
	sock.mu.Unlock()
	if state != connected || relay != nil && relay.over() {
		s.showRefusal(r, sock)
		s.fail(r, unix.ENOTCONN)
		return
	}
	s.result(r, writeSockaddr(r, r.Ptr(1), r.Ptr(2), remote, sock.domain))
}
