package quic

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	quicgo "github.com/quic-go/quic-go"
)

// Limits bound what peers may make this host hold. Zero values mean the
// defaults. What QUIC tells peers in its handshake (windows, numbers of streams)
// is the same for all of them: a server that varied it would have to reject
// 0-RTT data of clients that remember something else (RFC 9000 section 7.4.1).
type Limits struct {
	// StreamsPerConnection is how many streams a peer may have on a
	// connection; default 100,000. QUIC enforces it.
	StreamsPerConnection int
	// WaitingPerPeer is how many streams of one peer address may wait for
	// their header or for room in a program's backlog; default 4096. More are
	// answered "busy" (ECONNREFUSED).
	WaitingPerPeer int
	// ConnectionsPerPeer is how many connections one peer address may have;
	// default 1024. More are refused.
	ConnectionsPerPeer int
	// Connections is how many there may be together; default 65,536.
	Connections int
	// HandshakesPerSecond is how many handshakes peers may begin together
	// before each new one has to prove its address first, which costs it a
	// round trip; default 1000. A quarter of that may begin at one address;
	// more are refused.
	HandshakesPerSecond int
	// Memory is the most heap of the process, in octets: beyond it the peer
	// address that holds most loses its connections, the largest first. 0: a
	// quarter of what the process may use (see memoryOf). Negative: no limit.
	Memory int64
}

const (
	// maxUnproved is how many handshakes may be under way whose address is
	// the packet's word only. When there are more, the address has to be
	// proved first: so forged packets fill nothing else.
	maxUnproved = 512
	// peerShare is the part of HandshakesPerSecond that one address may take.
	peerShare = 4
)

func (l *Limits) fill() {
	def := func(n *int, v int) {
		if *n == 0 {
			*n = v
		}
	}
	def(&l.StreamsPerConnection, 100_000)
	def(&l.WaitingPerPeer, 4096)
	def(&l.ConnectionsPerPeer, 1024)
	def(&l.Connections, 65_536)
	def(&l.HandshakesPerSecond, 1000)
	if l.Memory == 0 {
		l.Memory = memoryOf() / 4
	}
}

// errLimit: a limit is reached.
var errLimit = errors.New("limit reached")

// guestKey is the address that limits count for: an IPv6 host mostly has a /64,
// but the hosts of a link share that of its link-local addresses.
func guestKey(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	bits := a.BitLen()
	if a.Is6() && !a.IsLinkLocalUnicast() && !a.IsLoopback() {
		bits = 64
	}
	p, _ := a.Prefix(bits)
	return p
}

// census counts what peers have here as clients of ours. Safe for concurrent use.
type census struct {
	limits Limits

	mu       sync.Mutex // guards what follows
	all      int        // connections, from their first packet on
	unproved int        // of these, by addresses that are not proved
	rate     bucket
	guests   map[netip.Prefix]*guest
	sweepAt  int // guests there may be before those that left are forgotten
	refused  uint64
	busy     uint64
}

// guest is an address that has proved that it is there.
type guest struct {
	conns, waiting int
	rate           bucket
}

// bucket holds what may still happen in this second.
type bucket struct {
	left float64
	at   time.Time
}

func (b *bucket) refill(now time.Time, perSecond int) {
	if b.at.IsZero() {
		b.left = float64(perSecond)
	} else if d := now.Sub(b.at); d > 0 {
		b.left = min(float64(perSecond), b.left+d.Seconds()*float64(perSecond))
	}
	b.at = now
}

// take counts one, and tells whether it was allowed.
func (b *bucket) take(now time.Time, perSecond int) bool {
	b.refill(now, perSecond)
	if b.left < 1 {
		return false
	}
	b.left--
	return true
}

// visit is one connection's part in the census.
type visit struct {
	c      *census
	key    netip.Prefix
	proved bool // census.mu guards it, and the next
	over   bool
}

type visitKey struct{}

// visitOf is the visit of a connection that admit let in.
func visitOf(qc *quicgo.Conn) *visit {
	v, _ := qc.Context().Value(visitKey{}).(*visit)
	return v
}

// doubts reports that a client that has not proved its address has to do so
// first. It counts nothing.
func (c *census) doubts(now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rate.refill(now, c.limits.HandshakesPerSecond)
	return c.unproved >= maxUnproved || c.rate.left < 1
}

// begin counts a new connection of addr. proved: the address is.
func (c *census) begin(now time.Time, addr netip.Addr, proved bool) (*visit, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rate.take(now, c.limits.HandshakesPerSecond)
	v := &visit{c: c, key: guestKey(addr), proved: proved}
	if c.all >= c.limits.Connections {
		c.refused++
		return nil, fmt.Errorf("%w: %d connections in all (limits.connections)", errLimit, c.all)
	}
	if proved {
		if err := c.enter(now, v.key); err != nil {
			return nil, err
		}
	} else {
		c.unproved++
	}
	c.all++
	return v, nil
}

// enter counts a connection for its address; mu is held.
func (c *census) enter(now time.Time, key netip.Prefix) error {
	g := c.guest(now, key)
	if g.conns >= c.limits.ConnectionsPerPeer {
		c.refused++
		return fmt.Errorf("%w: %d connections of %v (limits.connections_per_peer)", errLimit, g.conns, key)
	}
	if share := max(1, c.limits.HandshakesPerSecond/peerShare); !g.rate.take(now, share) {
		c.refused++
		return fmt.Errorf("%w: %d handshakes of %v in a second (limits.handshakes_per_second)", errLimit, share, key)
	}
	g.conns++
	return nil
}

// guest finds or makes the address's entry; mu is held. Those that have nothing
// here and did nothing for a second are forgotten when there are many.
func (c *census) guest(now time.Time, key netip.Prefix) *guest {
	if g := c.guests[key]; g != nil {
		return g
	}
	if len(c.guests) >= c.sweepAt {
		for key, g := range c.guests {
			if g.conns == 0 && g.waiting == 0 && now.Sub(g.rate.at) > time.Second {
				delete(c.guests, key)
			}
		}
		c.sweepAt = max(1024, 2*len(c.guests))
	}
	if c.guests == nil {
		c.guests = map[netip.Prefix]*guest{}
	}
	g := &guest{}
	c.guests[key] = g
	return g
}

// prove is for the end of a handshake, which proves the address. An error means
// that the address has too much here already.
func (v *visit) prove(now time.Time) error {
	if v == nil {
		return nil
	}
	v.c.mu.Lock()
	defer v.c.mu.Unlock()
	if v.proved || v.over {
		return nil
	}
	if err := v.c.enter(now, v.key); err != nil {
		return err
	}
	v.c.unproved--
	v.proved = true
	return nil
}

// end is for the end of the connection; calling it again does nothing.
func (v *visit) end() {
	v.c.mu.Lock()
	defer v.c.mu.Unlock()
	if v.over {
		return
	}
	v.over = true
	v.c.all--
	if v.proved {
		v.c.guests[v.key].conns--
	} else {
		v.c.unproved--
	}
}

// wait takes a place for a stream that waits; false: the address has too many.
// left gives it back.
func (v *visit) wait() bool {
	if v == nil {
		return true
	}
	v.c.mu.Lock()
	defer v.c.mu.Unlock()
	g := v.c.guest(time.Now(), v.key) // not proved yet with 0-RTT data
	if g.waiting >= v.c.limits.WaitingPerPeer {
		v.c.busy++
		return false
	}
	g.waiting++
	return true
}

func (v *visit) left() {
	if v == nil {
		return
	}
	v.c.mu.Lock()
	v.c.guests[v.key].waiting--
	v.c.mu.Unlock()
}

// admit is asked for each Initial packet of a new connection; an error makes
// quic-go answer CONNECTION_REFUSED.
func (p *port) admit(ctx context.Context, i *quicgo.ClientInfo) (context.Context, error) {
	if !p.listening() {
		return nil, unix.ECONNREFUSED
	}
	peer := udpAddrPort(i.RemoteAddr)
	v, err := p.h.census.begin(time.Now(), peer.Addr(), i.AddrVerified)
	if err != nil {
		p.h.limited.note(time.Now(), peer, "connection refused", err)
		return nil, err
	}
	context.AfterFunc(ctx, v.end)
	return context.WithValue(withPeer(ctx, peer), visitKey{}, v), nil
}

// prove ends the connection if its address, which the handshake has proved, has
// too much here already.
func (p *port) prove(qc *quicgo.Conn) bool {
	err := visitOf(qc).prove(time.Now())
	if err != nil {
		p.h.limited.note(time.Now(), udpAddrPort(qc.RemoteAddr()), "connection refused", err)
		qc.CloseWithError(connLimit, "too many connections")
	}
	return err == nil
}

// LimitCounts are how full a Host is, and what was turned away.
type LimitCounts struct {
	Connections int    // of peers that came to us
	Unproved    int    // of these, in a handshake
	Refused     uint64 // connections, for a limit
	Busy        uint64 // streams, for Limits.WaitingPerPeer
	Shed        uint64 // connections ended for Limits.Memory
}

// LimitCounts counts.
func (h *Host) LimitCounts() LimitCounts {
	c := &h.census
	c.mu.Lock()
	defer c.mu.Unlock()
	return LimitCounts{Connections: c.all, Unproved: c.unproved, Refused: c.refused, Busy: c.busy, Shed: h.shed.Load()}
}
