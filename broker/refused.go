package broker

import (
	"net/netip"

	"github.com/poemq/poemq/addfd"
	"github.com/poemq/poemq/quic/netns"
	"golang.org/x/sys/unix"
)

// showRefusal has the next read or write of the program's descriptor that r is
// about, a failed old, fail with ECONNREFUSED. An AF_UNIX socket can only be
// made to say ECONNRESET, so the program gets one of the kernel's TCP sockets
// that was refused. Programs that ask getpeername(2) whether a connect went
// well read to learn why not; where that cannot be, they read ECONNRESET.
func (s *Session) showRefusal(r Request, old *Socket) {
	old.mu.Lock()
	wanted := old.state == failed && old.soError == unix.ECONNREFUSED
	old.mu.Unlock()
	if !wanted {
		return
	}
	n := r.Int(0)
	was, err := r.File(n)
	if err != nil {
		return
	}
	defer unix.Close(was)
	ns, err := old.netNS(r)
	if err != nil {
		return
	}
	fd := s.b.refusedTCP(old, ns, addfd.Nonblocking(was))
	if fd < 0 {
		return
	}
	defer unix.Close(fd)
	cookie, err := addfd.Cookie(fd)
	if err != nil {
		return
	}
	sock := old.successor(fd, cookie)
	sock.state = failed
	if s.exchange(r, old, sock, was, fd) != nil {
		return
	}
	old.mu.Lock()
	sock.mu.Lock()
	sock.hold, sock.local = old.hold, old.local
	old.hold = nil
	sock.jotLocked()
	sock.mu.Unlock()
	old.mu.Unlock()
	old.closedByProgram()
	if _, err := s.b.lost.Watch(fd, sock.closedByProgram); err != nil {
		s.log.Warn("a socket's closing will not be seen", "error", opError("getpeername", sock, err))
	}
}

// refusedTCP is a TCP socket whose connect was refused, by a port of the
// loopback interface that nobody listens on; -1 when it cannot be made.
func (b *Broker) refusedTCP(s *Socket, ns *netns.NS, nonblock bool) int {
	port, errno := b.bareTCP(unix.AF_INET, ns)
	if errno != 0 {
		return -1
	}
	defer unix.Close(port)
	here := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 0)
	if rawBind(port, encodeSockaddr(here, unix.AF_INET)) != 0 {
		return -1
	}
	local, err := localAddr(port)
	if err != nil {
		return -1
	}
	fd, errno := b.bareTCP(s.domain, ns)
	if errno != 0 {
		return -1
	}
	s.setOnPair(fd)
	// Whatever the program sends on it with MSG_FASTOPEN stays here.
	err = unix.SetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, "lo")
	if err != nil || unix.SetNonblock(fd, true) != nil ||
		rawConnect(fd, encodeSockaddr(local, s.domain)) != unix.EINPROGRESS || !addfd.HungUp(fd) ||
		unix.SetNonblock(fd, nonblock) != nil {
		unix.Close(fd)
		return -1
	}
	return fd
}
