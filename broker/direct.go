package broker

import (
	"maps"
	"net/netip"
	"sync"
	"time"

	"github.com/poemq/poemq/addfd"
	"github.com/poemq/poemq/broker/policy"
	"github.com/poemq/poemq/quic/netns"
	"golang.org/x/sys/unix"
)

// With [wire] local = "direct", a program that connects to a port of one that
// this broker serves gets the other's own end: its socket is connected to the
// listening one itself, and the kernel carries the bytes as between any two
// AF_UNIX sockets. We take no further part; the names, the options and the
// closing are still ours to look after.
//
// It is done where nothing is lost by it: the listening socket is served by
// QUIC, no rule wants to see an identity, and there is room in its backlog. All
// else goes the usual way. What differs from that way, docs/sockets.md tells.

// dialDirect connects sock, of which c has a copy, to a listening socket of this
// broker, and answers r. False: d has to go the usual way; sock may have got an
// anchor, which a bound one has, too.
func (s *Session) dialDirect(r Request, sock *Socket, c *copyFd, d *dialState, blocking bool) bool {
	if !s.b.direct || d.decision.Mode == policy.Off || d.decision.Identity != "" || d.decision.Framing == policy.FramingRaw {
		return false
	}
	l := s.b.servedHere(d.ns, d.remote)
	if l == nil || s.b.guarded != nil && s.b.guarded(d.remote.Port()) || l.sock.deferAccept() > 0 {
		return false
	}
	s.b.watchClose(sock, c.fd)
	sock.mu.Lock()
	anchor, before := sock.anchor, sock.state
	sock.mu.Unlock()
	if anchor == nil || before != fresh && before != bound {
		return false // it has no name, which says there whose connection it is
	}
	a := &arrival{remote: d.local, local: d.remote, direct: anchor.Path()}
	if !l.enqueueDirect(a, c.fd) {
		return false
	}
	s.b.young.remove(s.b, sock)
	sock.mu.Lock()
	sock.become(connecting)
	sock.become(connected)
	sock.direct, sock.port, sock.soError = true, d.port, 0
	sock.local, sock.remote, sock.told = d.local, d.remote, blocking
	sock.jotLocked()
	sock.mu.Unlock()
	if blocking {
		s.done(r)
	} else {
		s.fail(r, unix.EINPROGRESS) // as the kernel's TCP on loopback
	}
	return true
}

// servedHere is a listening socket at to that this broker serves by QUIC, in
// turn where several share the port; nil for none.
func (b *Broker) servedHere(ns *netns.NS, to netip.AddrPort) *listenState {
	wild := netip.IPv4Unspecified()
	if to.Addr().Is6() {
		wild = netip.IPv6Unspecified()
	}
	at := []netip.AddrPort{to, netip.AddrPortFrom(wild, to.Port())}
	if to.Addr().Is4() { // by sockets of IPv6 without V6ONLY
		mapped := netip.AddrFrom16(to.Addr().As16())
		at = append(at, netip.AddrPortFrom(mapped, to.Port()), netip.AddrPortFrom(netip.IPv6Unspecified(), to.Port()))
	}
	for _, local := range at {
		for _, v6only := range []bool{false, true} {
			if v6only && to.Addr().Is4() {
				continue
			}
			b.points.mu.Lock()
			p := b.points.m[pointKey{ns.ID(), local, v6only}]
			b.points.mu.Unlock()
			if p == nil || local.Addr().IsUnspecified() && !isLocal(ns, to.Addr()) {
				continue
			}
			if l := p.pick(false); l != nil && l.isReady() {
				return l
			}
		}
	}
	return nil
}

// isReady reports that listen(2) is through.
func (l *listenState) isReady() bool {
	select {
	case <-l.ready:
		return true
	default:
		return false
	}
}

// isLocal reports that a is an address of the namespace itself: that can be
// bound.
func isLocal(ns *netns.NS, a netip.Addr) bool {
	if a.IsLoopback() {
		return true
	}
	domain := unix.AF_INET
	if a.Is6() {
		domain = unix.AF_INET6
	}
	return ns.Do(func() error {
		fd, err := unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if errno := rawBind(fd, encodeSockaddr(netip.AddrPortFrom(a, 0), domain)); errno != 0 {
			return errno
		}
		return nil
	}) == nil
}

// directRoom is how many may wait at the most: connect must not, and
// net.core.somaxconn is not known to allow more.
const directRoom = 64

// enqueueDirect connects fd, a program's socket, to l's. False: there is no room,
// where connect(2) would wait, or l is closed.
func (l *listenState) enqueueDirect(a *arrival, fd int) bool {
	l.dropStale()
	l.sock.mu.Lock()
	room := int(min(uint(l.sock.backlog), directRoom)) // negative is very many (listen(2))
	l.sock.mu.Unlock()
	l.mu.Lock()
	if l.closed || len(l.queue) >= room || l.anchor.ConnectFrom(fd) != nil {
		l.mu.Unlock()
		return false
	}
	l.queue = append(l.queue, a)
	w := l.nextWaiter()
	l.mu.Unlock()
	l.serveWaiter(w)
	return true
}

// directs looks after accepted sockets whose other end is a program's: neither
// an end of ours nor a name tells of their closing, so the kernel is asked what
// sockets there are.
type directs struct {
	mu      sync.Mutex // guards what follows
	held    map[uint64]*Socket
	running bool
}

const directsEvery = 500 * time.Millisecond

func (ds *directs) add(b *Broker, s *Socket) {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	if ds.held == nil {
		ds.held = make(map[uint64]*Socket)
	}
	ds.held[s.cookie] = s
	if !ds.running {
		ds.running = true
		b.wg.Go(func() { ds.run(b) })
	}
}

// run looks until there is nothing to look at.
func (ds *directs) run(b *Broker) {
	t := time.NewTicker(directsEvery)
	defer t.Stop()
	for {
		select {
		case <-b.ctx.Done():
			return
		case <-t.C:
		}
		gone, more := ds.look(b)
		for _, s := range gone {
			s.closedByProgram()
		}
		if !more {
			return
		}
	}
}

// look takes out those that are closed.
func (ds *directs) look(b *Broker) (gone []*Socket, more bool) {
	ds.mu.Lock()
	before := maps.Clone(ds.held) // those that come while the kernel is asked are not in its answer
	ds.mu.Unlock()
	open, err := addfd.Open()
	if err != nil {
		b.log.Debug("which sockets are open is not known", "error", err)
		return nil, true
	}
	ds.mu.Lock()
	defer ds.mu.Unlock()
	for cookie, s := range before {
		if !open[cookie] {
			delete(ds.held, cookie)
			gone = append(gone, s)
		}
	}
	ds.running = len(ds.held) > 0
	return gone, ds.running
}
