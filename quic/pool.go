package quic

import (
	"context"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/poemq/poemq/quic/netns"
)

// A further connection to a peer is opened when even the one with the fewest
// streams carries manyStreams, or more than manyBytes a second: then one
// connection's goroutine, and not the path, holds the others up.
const (
	manyStreams = 32
	manyBytes   = 100 << 20 // octets a second, both directions
	// rateOver is the shortest time that a rate is taken over.
	rateOver = 50 * time.Millisecond
)

// link finds the pooled connection that has the fewest streams, or begins one,
// whose handshake then runs by itself. As long as a stream that was opened fast has
// no answer, those to the same port follow it on its connection, for the sake of
// their order (ListenOptions.Place). The caller gives back its place with dialed.
// fresh tells that the connection was made for this stream.
//
// When that connection is busy another one is begun beside it, for the streams
// to come: this one need not wait for a handshake.
func (h *Host) link(p Peer) (l *link, fresh bool, err error) {
	key := p.key()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, false, ErrHostClosed
	}
	pooled := h.pool[key]
	l = openingTo(pooled, p.ServerPort)
	if l == nil {
		l = leastLoaded(pooled)
	}
	if l == nil {
		if l, err = h.begin(key, p); err != nil {
			return nil, true, err
		}
		fresh = true
	} else if len(pooled) < h.cfg.MaxConnections && l.busy() {
		if _, err := h.begin(key, p); err != nil {
			h.log.Debug("no further connection", "peer", p.Remote, "err", err)
		}
	}
	l.dialing.Add(1)
	return l, fresh, nil
}

// Connected reports that there is an open connection for p's streams.
func (h *Host) Connected(p Peer) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.ContainsFunc(h.pool[p.unmapped().key()], func(l *link) bool { return l.c.Load() != nil })
}

// openingTo is the connection with a stream to the port that was opened fast and
// has no answer yet.
func openingTo(links []*link, port uint16) *link {
	for _, l := range links {
		if c := l.c.Load(); c != nil && c.opens(port) {
			return l
		}
	}
	return nil
}

func (c *conn) opens(port uint16) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.opening[port] > 0
}

// leastLoaded chooses among open connections, or those being opened if there
// is none.
func leastLoaded(links []*link) (best *link) {
	least, bestOpen := 0, false
	for _, l := range links {
		load, open := l.load(), l.c.Load() != nil
		if best == nil || open && !bestOpen || open == bestOpen && load < least {
			best, least, bestOpen = l, load, open
		}
	}
	return best
}

// load counts the streams that are there and under way.
func (l *link) load() int {
	n := int(l.dialing.Load())
	if c := l.c.Load(); c != nil {
		c.mu.Lock()
		n += c.live
		c.mu.Unlock()
	}
	return n
}

// busy reports that an open connection is what holds its streams up. The host's
// mu is held.
func (l *link) busy() bool {
	c := l.c.Load()
	if c == nil {
		return false
	}
	q := c.qc.ConnectionStats()
	bytes, now := q.BytesSent+q.BytesReceived, time.Now()
	if past := now.Sub(l.sampled); past >= rateOver {
		if !l.sampled.IsZero() {
			l.rate = float64(bytes-l.bytes) / past.Seconds()
		}
		l.bytes, l.sampled = bytes, now
	}
	return l.rate > manyBytes || l.load() >= manyStreams
}

// begin makes a socket and starts the handshake; mu is held. The socket is made
// under it, so that there is one; that takes microseconds.
func (h *Host) begin(key poolKey, p Peer) (*link, error) {
	ns, err := p.NS.Clone()
	if err != nil {
		return nil, err
	}
	sock, err := dialSocket(ns, p.Local, p.Remote)
	if err != nil {
		ns.Close()
		return nil, err
	}
	p.NS, p.nsName = nil, netns.Name(ns.ID()) // NS is the caller's
	l := &link{h: h, key: key, peer: p, ns: ns, sock: sock, ready: make(chan struct{}), gone: make(chan struct{})}
	if p.ZeroRTT {
		l.early = newEarly()
	}
	sock.onPacket = l.firstPacket
	ctx, abort := context.WithCancelCause(h.ctx)
	l.abort = abort
	sock.onError = func(e socketError) {
		if c := l.c.Load(); c != nil {
			c.networkError(e)
		} else if e.errno != unix.ENOBUFS && e.errno != unix.ENOMEM {
			abort(e.errno)
		}
	}
	if p.Raw {
		l.raw = newDelivery(h)
	} else {
		h.pool[key] = append(h.pool[key], l)
	}
	h.links[l] = struct{}{}
	h.wg.Go(func() { l.handshake(ctx) })
	return l, nil
}

// leavePool keeps new streams away.
func (l *link) leavePool() {
	l.h.mu.Lock()
	defer l.h.mu.Unlock()
	rest := slices.DeleteFunc(l.h.pool[l.key], func(o *link) bool { return o == l })
	if l.h.pool[l.key] = rest; len(rest) == 0 {
		delete(l.h.pool, l.key)
	}
}
