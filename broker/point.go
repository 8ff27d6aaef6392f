package broker

import (
	"errors"
	"net/netip"
	"sync"
	"time"

	"github.com/poemq/poemq/broker/policy"
	"github.com/poemq/poemq/quic"
	"github.com/poemq/poemq/quic/netns"
	"golang.org/x/sys/unix"
)

// listenPoint is a UDP port that QUIC is served on, by one socket or several
// with SO_REUSEPORT.
type listenPoint struct {
	b       *Broker
	key     pointKey
	ep      *quic.Endpoint
	kept    *kept // by whom its socket is kept, under name; nil for nobody
	name    string
	members []*listenState // guarded by pointTable.mu
	next    int
}

type pointKey struct {
	ns     uint64
	local  netip.AddrPort
	v6only bool
}

type pointTable struct {
	mu sync.Mutex
	m  map[pointKey]*listenPoint
	// left are sockets of the broker before us, for as long as its listening
	// sockets are taken over.
	left map[pointKey]leftSocket
}

// A UDP port may be in use by another broker that is about to leave it: its
// program has ended, its last bytes are under way. For anybody else's it is not
// worth waiting: with TCP beside it, QUIC may come later.
const (
	portPatience = time.Second
	portGlance   = 50 * time.Millisecond
	portRetry    = 10 * time.Millisecond
	portRetryMax = 5 * time.Second
	portLater    = 15 * time.Minute // about as long as last bytes can take, see poemqd
)

// join has l served on the UDP port of local.
func (b *Broker) join(l *listenState, ns *netns.NS, local netip.AddrPort, mode policy.Mode) error {
	began := time.Now()
	patience := portPatience
	for looked := false; ; {
		err := b.joinOnce(l, ns, local)
		if !errors.Is(err, unix.EADDRINUSE) || time.Since(began) > patience {
			return err
		}
		if mode != policy.Require && !looked && time.Since(began) > portGlance {
			looked = true
			if !heldByBroker(ns, local.Port()) {
				return err
			}
		}
		b.reapClosed()
		select {
		case <-b.ctx.Done():
			return err
		case <-time.After(portRetry):
		}
	}
}

// joinLater has l served by QUIC when the port becomes free.
func (b *Broker) joinLater(l *listenState, ns *netns.NS, local netip.AddrPort) {
	end := time.Now().Add(portLater)
	for wait := portGlance; time.Now().Before(end); wait = min(2*wait, portRetryMax) {
		select {
		case <-b.ctx.Done():
			return
		case <-time.After(wait):
		}
		if l.isClosed() {
			return
		}
		switch err := b.joinOnce(l, ns, local); {
		case errors.Is(err, unix.EADDRINUSE):
			continue
		case err != nil:
			l.sock.sess.log.Warn("a listening port stays with TCP only", "port", local, "reason", err)
		case l.isClosed(): // meanwhile
			b.leavePoint(l)
		default:
			l.sock.sess.log.Info("a listening port is served by QUIC from now on", "port", local)
		}
		return
	}
}

func (b *Broker) joinOnce(l *listenState, ns *netns.NS, local netip.AddrPort) error {
	o := quic.ListenOptions{V6Only: l.sock.v6only(), ReusePort: l.sock.reusePort(), ZeroRTT: l.zeroRTT}
	key := pointKey{ns.ID(), local, o.V6Only}
	b.points.mu.Lock()
	defer b.points.mu.Unlock()
	p := b.points.m[key]
	switch {
	case p != nil && !o.ReusePort:
		return unix.EADDRINUSE
	case p == nil:
		p = &listenPoint{b: b, key: key}
		o.Place = p.place
		if err := p.listen(ns, o, l.sock.sess.kept); err != nil {
			return err
		}
		if b.points.m == nil {
			b.points.m = make(map[pointKey]*listenPoint)
		}
		b.points.m[key] = p
		// Whoever here came to this port by TCP may take QUIC from now on.
		b.memory.forgetIf(func(r *Remembered) bool { return r.NetNS == key.ns && r.Remote.Port() == key.local.Port() })
	}
	p.members = append(p.members, l)
	l.point = p
	return nil
}

// listen serves p's port, on the socket that another broker left if there is one.
// What it listens on is kept with k's session. pointTable.mu is held.
func (p *listenPoint) listen(ns *netns.NS, o quic.ListenOptions, k *kept) (err error) {
	b := p.b
	if left, ok := b.points.left[p.key]; ok {
		delete(b.points.left, p.key)
		p.kept, p.name = left.kept, left.name
		p.ep, err = b.host.ListenOn(left.fd, ns, p.key.local, o, p.arrive)
		return err
	}
	if p.ep, err = b.host.Listen(ns, p.key.local, o, p.arrive); err == nil {
		p.keptBy(k)
	}
	return err
}

// onPoint tells whether l is served by QUIC.
func (b *Broker) onPoint(l *listenState) bool {
	b.points.mu.Lock()
	defer b.points.mu.Unlock()
	return l.point != nil
}

// leavePoint takes l off its point, if it has one, and ends the point with its
// last member.
func (b *Broker) leavePoint(l *listenState) {
	b.points.mu.Lock()
	defer b.points.mu.Unlock()
	p := l.point
	if p == nil {
		return
	}
	l.point = nil
	for i, m := range p.members {
		if m == l {
			p.members = append(p.members[:i:i], p.members[i+1:]...)
			break
		}
	}
	if len(p.members) == 0 && b.points.m[p.key] == p {
		delete(b.points.m, p.key)
		p.kept.drop(p.name)
		p.ep.Close()
	}
}

// pick shares connections out in turn. Nil: there is no member, or, where the
// connection is to be taken atOnce, the one whose turn it is cannot.
func (p *listenPoint) pick(atOnce bool) *listenState {
	p.b.points.mu.Lock()
	defer p.b.points.mu.Unlock()
	if len(p.members) == 0 {
		return nil
	}
	l := p.members[(p.next+1)%len(p.members)]
	if atOnce && (!l.isReady() || l.sock.deferAccept() > 0) {
		return nil
	}
	p.next++
	return l
}

// place is arrive where nothing has to be waited for, which keeps the order of the
// peer's connects.
func (p *listenPoint) place(in *quic.Incoming) bool {
	l := p.pick(true)
	if l == nil {
		return false
	}
	a := &arrival{remote: in.RemoteAddr(), local: in.LocalAddr()}
	if l.tryEnqueue(a) != nil {
		return false
	}
	l.carry(a, in)
	return true
}

// carry begins to carry a, which is in the queue.
func (l *listenState) carry(a *arrival, in *quic.Incoming) {
	st, err := in.Accept()
	if err != nil {
		a.relay.abort()
		l.forget(a)
		return
	}
	a.relay.givenUp = func() { l.forget(a) }
	a.relay.start(st)
}

// arrive brings a stream to a listening socket's queue.
func (p *listenPoint) arrive(in *quic.Incoming) {
	for {
		l := p.pick(false)
		if l == nil {
			in.Refuse(unix.ECONNREFUSED)
			return
		}
		<-l.ready
		a := &arrival{remote: in.RemoteAddr(), local: in.LocalAddr()}
		if patience := l.sock.deferAccept(); patience > 0 {
			p.arriveLater(l, a, in, patience)
			return
		}
		switch err := l.enqueue(a, in.Done(), nil); err {
		case nil:
			l.carry(a, in)
			return
		case errGaveUp:
			return
		case unix.ECONNREFUSED:
			l.refuses() // and so is off the point
			p.b.leavePoint(l)
		default: // no descriptors or memory left, which passes
			l.sock.sess.log.Warn("a connection cannot be taken", "port", p.key.local, "error", err)
			in.Refuse(unix.ECONNREFUSED)
			return
		}
	}
}

// refuses is for an l that takes no connection any more: its program closed it,
// and we may be the first to hear. When it returns, the port is served no more,
// by TCP neither: who is refused here tries that next.
func (l *listenState) refuses() {
	l.sock.mu.Lock()
	closes := l.sock.listen == l || l.sock.state == closed
	l.sock.mu.Unlock()
	if closes {
		l.sock.closedByProgram()
	}
}

// reapListeners frees a port whose program has ended a moment ago: the kernel's
// TCP would go on to take connections there.
func (b *Broker) reapListeners(ns uint64, port uint16) {
	b.points.mu.Lock()
	var there []*listenState
	for key, p := range b.points.m {
		if key.ns == ns && key.local.Port() == port {
			there = append(there, p.members...)
		}
	}
	b.points.mu.Unlock()
	for _, l := range there {
		if l.sock.isClosed() {
			l.sock.closedByProgram()
		}
	}
}
