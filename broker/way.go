package broker

import (
	"net/netip"

	"github.com/poemq/poemq/broker/policy"
	"github.com/poemq/poemq/quic"
	"github.com/poemq/poemq/quic/netns"
	"golang.org/x/sys/unix"
)

// newDial names both sides of the connection and checks the way there, with
// the errno that the kernel has for it.
func (s *Session) newDial(r Request, sock *Socket, remote netip.AddrPort) (*dialState, unix.Errno) {
	ns, err := sock.netNS(r)
	if err != nil {
		s.log.Error("connect", "error", err)
		return nil, unix.ENOBUFS
	}
	remote, errno := sock.destination(remote)
	if errno != 0 {
		return nil, errno
	}
	tgid, uid, err := r.Caller()
	if err != nil {
		return nil, unix.ENOBUFS
	}
	sock.seenAt(tgid, r.Int(0))
	d := &dialState{sock: sock, ns: ns, uid: uid, remote: remote, copy: -1}
	d.decision = s.decide(r, policy.Query{Addr: remote, UID: uid})
	sock.mu.Lock()
	bound, held := netip.AddrPort{}, false
	if sock.hold != nil {
		bound = sock.hold.local
		held = bound.Port() != 0
	}
	sock.mu.Unlock()
	if a := bound.Addr().Unmap(); a.IsValid() && !a.IsUnspecified() {
		d.bindTo = a
	}
	from, err := quic.Route(ns, d.bindTo, remote)
	if err != nil {
		return nil, s.b.routeErrno(ns, sock.domain, remote, asErrno(err, unix.ENETUNREACH))
	}
	if held {
		d.port, errno = s.b.ports.claim(ns.ID(), remote, bound.Port())
	} else {
		d.port, errno = s.b.ports.take(ns.ID(), from, remote, sock.reuseAddr(), s.b.sysctls.of(ns).ports)
	}
	if errno != 0 {
		return nil, errno
	}
	d.local = netip.AddrPortFrom(keepScope(from, remote.Addr()), d.port.port)
	d.patience = sock.patience(s.b.sysctls.of(ns))
	return d, 0
}

// routeErrno is what TCP says where UDP says errno: it has no broadcasts.
func (b *Broker) routeErrno(ns *netns.NS, domain int, remote netip.AddrPort, errno unix.Errno) unix.Errno {
	if errno != unix.EACCES {
		return errno
	}
	fd, e := b.bareTCP(domain, ns)
	if e != 0 {
		return errno
	}
	defer unix.Close(fd)
	unix.SetNonblock(fd, true)
	if e := rawConnect(fd, encodeSockaddr(remote, domain)); e != 0 && e != unix.EINPROGRESS {
		return e
	}
	return errno
}

// destination is where a connect to ap really goes.
func (s *Socket) destination(ap netip.AddrPort) (netip.AddrPort, unix.Errno) {
	a := ap.Addr()
	if a.Is4In6() {
		if s.v6only() {
			return ap, unix.ENETUNREACH
		}
		a = a.Unmap()
	}
	switch {
	case a.IsUnspecified() && a.Is4():
		a = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	case a.IsUnspecified():
		a = netip.IPv6Loopback()
	case a.IsMulticast(), a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return ap, unix.ENETUNREACH
	case a.IsLinkLocalUnicast() && a.Is6() && a.Zone() == "":
		return ap, unix.EINVAL
	}
	return netip.AddrPortFrom(a, ap.Port()), 0
}
