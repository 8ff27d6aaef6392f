package broker

import (
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// yieldPatience bounds how long a bind waits for a UDP port of ours to be free.
const yieldPatience = time.Second

// bindForeign answers bind(2) of a socket that is not ours. A UDP port is the
// program's before it is QUIC's: a DNS server wants both ports of one number.
func (s *Session) bindForeign(r Request) {
	points := s.inTheWay(r)
	if len(points) == 0 {
		s.carryOn(r)
		return
	}
	s.kept.late(r)
	s.b.wg.Go(func() {
		for _, p := range points {
			s.b.yield(p)
		}
		r.Post(func() { s.carryOn(r) })
	})
}

// inTheWay finds where QUIC is served on the UDP port that r binds.
func (s *Session) inTheWay(r Request) (points []*listenPoint) {
	b := s.b
	b.points.mu.Lock()
	none := len(b.points.m) == 0
	b.points.mu.Unlock()
	if none {
		return nil
	}
	fd, err := r.File(r.Int(0))
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	typ, err1 := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	domain, err2 := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err1 != nil || err2 != nil || typ != unix.SOCK_DGRAM || domain != unix.AF_INET && domain != unix.AF_INET6 {
		return nil
	}
	sa, errno := readSockaddr(r, r.Ptr(1), r.Int(2))
	if errno != 0 {
		return nil
	}
	local, _, errno := decodeSockaddr(sa, domain)
	if errno != 0 || local.Port() == 0 || !r.Valid() {
		return nil
	}
	ns, err := s.netNS(r)
	if err != nil {
		return nil
	}
	b.points.mu.Lock()
	defer b.points.mu.Unlock()
	for key, p := range b.points.m {
		if key.ns == ns.ID() && p.ep.UDPAddr().Port() == local.Port() && overlap(p.ep.UDPAddr().Addr(), local.Addr().Unmap()) {
			points = append(points, p)
		}
	}
	return points
}

// overlap reports that sockets of one port cannot be bound to both.
func overlap(a, b netip.Addr) bool {
	return a.WithZone("") == b.WithZone("") || a.IsUnspecified() && (a.Is6() || b.Is4()) || b.IsUnspecified() && (b.Is6() || a.Is4())
}

// yield leaves the UDP port of p, whose sockets are served by TCP from then on.
// It does not where there is no TCP, nor under living connections.
func (b *Broker) yield(p *listenPoint) {
	b.points.mu.Lock()
	quicOnly := false
	for _, l := range p.members {
		quicOnly = quicOnly || l.tcp == nil
	}
	if quicOnly || b.points.m[p.key] != p || !p.ep.Yield() {
		b.points.mu.Unlock()
		b.log.Warn("a program cannot have a UDP port that QUIC is served on: connections are alive there, or the policy is require",
			"port", p.key.local, "hint", "see udp_port in the configuration")
		return
	}
	members := p.members
	p.members = nil
	delete(b.points.m, p.key)
	p.kept.drop(p.name)
	for _, l := range members {
		l.point = nil
	}
	b.points.mu.Unlock()
	for _, l := range members {
		l.sock.sess.log.Warn("a listening port is served by TCP only", "port", p.key.local, "reason", "a program wants its UDP port")
	}
	b.settle()
	select {
	case <-p.ep.Released():
	case <-time.After(yieldPatience):
	}
}
