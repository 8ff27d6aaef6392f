package quic

import (
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	quicgo "github.com/quic-go/quic-go"
)

// rebind goes on through another UDP socket, fd, which it takes over. The peer
// sees what it sees when a NAT gives us another port. The one before stays open
// until forget or the next rebind: a closed port would answer what is under way
// to it with ICMP errors, which the peer may take for our death.
func (s *socket) rebind(fd int) error {
	u, err := newUDP(fd)
	if err != nil {
		closeFD(fd)
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		u.Close()
		return net.ErrClosed
	}
	u.inherit(s.cur.Load())
	s.forgetLocked()
	s.prev = s.cur.Swap(u)
	s.prev.SetReadDeadline(time.Unix(1, 0)) // ReadBatch looks again
	return nil
}

// forget closes the UDP socket before the current one.
func (s *socket) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forgetLocked()
}

func (s *socket) forgetLocked() {
	if s.prev != nil {
		s.prev.Close()
		s.prev = nil
	}
}

// SetReadDeadline is how quic-go ends reading.
func (s *socket) SetReadDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = s.ended || !t.IsZero()
	return s.cur.Load().SetReadDeadline(t)
}

// Close closes the UDP sockets. The transport was closed before.
func (s *socket) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	s.forgetLocked()
	return s.cur.Load().Close()
}

// inherit gives u the options that quic-go set on an older socket.
func (u *udp) inherit(old *udp) {
	opts := []struct{ level, get, set, force int }{
		{unix.SOL_SOCKET, unix.SO_RCVBUF, unix.SO_RCVBUF, unix.SO_RCVBUFFORCE},
		{unix.SOL_SOCKET, unix.SO_SNDBUF, unix.SO_SNDBUF, unix.SO_SNDBUFFORCE},
		{unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_MTU_DISCOVER, 0},
		{unix.IPPROTO_IP, unix.IP_RECVTOS, unix.IP_RECVTOS, 0},
		{unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_MTU_DISCOVER, 0},
		{unix.IPPROTO_IPV6, unix.IPV6_RECVTCLASS, unix.IPV6_RECVTCLASS, 0},
	}
	for _, o := range opts {
		var v int
		var err error
		if old.control(func(fd int) { v, err = unix.GetsockoptInt(fd, o.level, o.get) }) != nil || err != nil {
			continue // the other family's
		}
		u.control(func(fd int) {
			if o.force == 0 {
				unix.SetsockoptInt(fd, o.level, o.set, v)
				return
			}
			v /= 2 // the kernel gives twice what was asked for (socket(7))
			if unix.SetsockoptInt(fd, o.level, o.force, v) != nil {
				unix.SetsockoptInt(fd, o.level, o.set, v)
			}
		})
	}
}

// sidePath is a second path of a connection's as quic-go knows them: probed
// from a UDP socket of its own, for a server answers PATH_CHALLENGE only from a
// new address; and from then on sending through the socket of the first.
type sidePath struct {
	*socket // closed by retire
	main    *socket
	tr      *quicgo.Transport
	path    *quicgo.Path

	probed  atomic.Bool   // a probe was sent
	retired atomic.Bool   // the path was validated
	over    chan struct{} // closed when reading ends
	once    sync.Once
}

// retire closes the socket that the path was probed from. quic-go would end the
// connection if reading failed, or if the transport were closed: so it reads
// on, from nothing, until Close.
func (p *sidePath) retire() {
	p.retired.Store(true)
	p.socket.Close()
}

func (p *sidePath) ReadBatch(ms []ipv4.Message, flags int) (int, error) {
	n, err := p.socket.ReadBatch(ms, flags)
	if err != nil && p.retired.Load() {
		<-p.over
		err = os.ErrDeadlineExceeded
	}
	return n, err
}

func (p *sidePath) WriteMsgUDP(b, oob []byte, addr *net.UDPAddr) (n, oobn int, err error) {
	if p.retired.Load() {
		return p.main.WriteMsgUDP(b, oob, addr)
	}
	p.probed.Store(true)
	n, oobn, err = p.socket.WriteMsgUDP(b, oob, addr)
	if err != nil && p.retired.Load() {
		return len(b), len(oob), nil // a probe that nobody needs
	}
	return n, oobn, err
}

// SetReadDeadline is how quic-go ends reading.
func (p *sidePath) SetReadDeadline(t time.Time) error {
	if !t.IsZero() {
		p.once.Do(func() { close(p.over) })
	}
	if p.retired.Load() {
		return nil
	}
	return p.socket.SetReadDeadline(t)
}
