package quic

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	quicgo "github.com/quic-go/quic-go"

	"github.com/poemq/poemq/quic/netns"
)

// ListenOptions are the socket options that matter to bind(2).
type ListenOptions struct {
	V6Only    bool // IPV6_V6ONLY: a wildcard IPv6 address takes no IPv4
	ReusePort bool // SO_REUSEPORT: the kernel shares the port out among sockets of one user
	// ZeroRTT gives streams to the program that came in 0-RTT data at once: it
	// takes first bytes that may be a replay, from an address that may be
	// forged. Else they wait until the handshake proves that they are neither.
	ZeroRTT bool
	// Ask has clients wait for the answer to each stream, as long as it is not
	// known that the last was accepted: the server's program is elsewhere, and
	// that the port is open does not mean that it listens.
	Ask bool
	// Place, if not nil, is called before accept, for the streams of a
	// connection one after the other, in the order in which the peer opened
	// them: its program may have connected a second time without waiting for
	// an answer to the first. It must not wait. False: accept is to be called,
	// as if there were no Place.
	Place func(*Incoming) bool
}

// Endpoint is a listening socket: streams for one TCP port, of the connections
// to the UDP port of the same number or of the host's one port. Close it.
type Endpoint struct {
	p      *port
	local  netip.AddrPort // TCP
	o      ListenOptions
	accept func(*Incoming)
}

type portKey struct {
	ns     uint64
	local  netip.AddrPort
	v6only bool
}

// port is a bound UDP socket. It outlives its Endpoint until the last stream
// is over, and may get another Endpoint meanwhile.
type port struct {
	h    *Host
	key  portKey
	addr netip.AddrPort // with the port the kernel chose
	sock *socket
	tr   *quicgo.Transport
	ln   *quicgo.EarlyListener
	gone chan struct{} // closed when the UDP socket is closed

	mu    sync.Mutex  // guards what follows
	eps   []*Endpoint // none: refuse
	turn  int         // of endpoints that share a TCP port
	conns map[*conn]struct{}
	dying bool // the socket is being closed

	early earlyConns
}

const (
	headerTimeout = 10 * time.Second
	// headerWait is how long a stream's header may hold up the streams that were
	// opened after it: for packets that the network brings in another order.
	headerWait = 20 * time.Millisecond
	// headerPause is how long nothing is held up after one that came later: it
	// was lost, or is not going to come.
	headerPause = time.Second
)

// Listen serves the TCP port local in ns (nil: the process's own) and calls
// accept, on a goroutine of its own, for each stream that comes. It binds a UDP
// socket to the same address, where a zero port lets the kernel choose; or uses
// that of Config.UDPPort, which all share. Errors wrap the kernel's errno.
//
// When streams of a closed Endpoint of the same address keep the socket, it is
// taken over; their connections go on.
func (h *Host) Listen(ns *netns.NS, local netip.AddrPort, o ListenOptions, accept func(*Incoming)) (*Endpoint, error) {
	local = netip.AddrPortFrom(local.Addr().Unmap(), local.Port())
	if h.cfg.UDPPort != 0 {
		return h.listenShared(ns, local, o, accept)
	}
	key := portKey{ns.ID(), local, o.V6Only}
	for {
		e, wait, err := h.adopt(key, local, o, accept)
		if e != nil || err != nil {
			return e, err
		}
		if wait == nil {
			break
		}
		<-wait
	}
	sock, err := listenSocket(ns, local, o)
	if err != nil {
		return nil, fmt.Errorf("listen %v/udp: %w", local, err)
	}
	e, err := h.serve(ns, key, local, o, sock, accept)
	if err != nil {
		sock.Close()
		return nil, fmt.Errorf("listen %v/udp: %w", local, err)
	}
	return e, nil
}

// ListenOn is Listen on a UDP socket that is bound to local already, as another
// process left it. It takes fd over.
func (h *Host) ListenOn(fd int, ns *netns.NS, local netip.AddrPort, o ListenOptions, accept func(*Incoming)) (*Endpoint, error) {
	sock, err := socketOn(fd)
	if err != nil {
		return nil, fmt.Errorf("listen %v/udp: %w", local, err)
	}
	local = netip.AddrPortFrom(local.Addr().Unmap(), local.Port())
	e, err := h.serve(ns, portKey{ns.ID(), local, o.V6Only}, local, o, sock, accept)
	if err != nil {
		sock.Close()
		return nil, fmt.Errorf("listen %v/udp: %w", local, err)
	}
	return e, nil
}

// Socket is a copy of e's UDP socket, for ListenOn of another process; the
// caller closes it. EOPNOTSUPP: it is the one that all share (Config.UDPPort).
func (e *Endpoint) Socket() (fd int, err error) {
	if e.p.h.cfg.UDPPort != 0 {
		return -1, unix.EOPNOTSUPP
	}
	cerr := e.p.sock.cur.Load().control(func(s int) {
		fd, err = unix.FcntlInt(uintptr(s), unix.F_DUPFD_CLOEXEC, 0)
	})
	if err = errors.Join(cerr, err); err != nil {
		return -1, fmt.Errorf("copy of the socket of %v/udp: %w", e.p.addr, err)
	}
	return fd, nil
}

// listenShared adds to the socket of the host's one port in ns, which takes
// packets for every address.
func (h *Host) listenShared(ns *netns.NS, local netip.AddrPort, o ListenOptions, accept func(*Incoming)) (*Endpoint, error) {
	if local.Port() == 0 {
		return nil, fmt.Errorf("listen %v: the TCP port must be known: %w", local, unix.EINVAL)
	}
	h.sharing.Lock() // one at a time makes the socket
	defer h.sharing.Unlock()
	key := portKey{ns.ID(), netip.AddrPortFrom(netip.IPv6Unspecified(), h.cfg.UDPPort), false}
	for {
		e, wait, err := h.adopt(key, local, o, accept)
		if e != nil || err != nil {
			return e, err
		}
		if wait == nil {
			break
		}
		<-wait
	}
	sock, err := listenSocket(ns, key.local, ListenOptions{})
	if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EADDRNOTAVAIL) { // no IPv6 here
		sock, err = listenSocket(ns, netip.AddrPortFrom(netip.IPv4Unspecified(), h.cfg.UDPPort), ListenOptions{})
	}
	if err != nil {
		return nil, fmt.Errorf("listen %v on the host's port %d/udp: %w", local, h.cfg.UDPPort, err)
	}
	e, err := h.serve(ns, key, local, o, sock, accept)
	if err != nil {
		sock.Close()
		return nil, fmt.Errorf("listen %v on the host's port %d/udp: %w", local, h.cfg.UDPPort, err)
	}
	return e, nil
}

// adopt looks for a socket of ours on the address: the host's one port, or one
// that lingers. wait is closed when one that is being closed is gone.
func (h *Host) adopt(key portKey, local netip.AddrPort, o ListenOptions, accept func(*Incoming)) (e *Endpoint, wait <-chan struct{}, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, nil, ErrHostClosed
	}
	for _, p := range h.ports[key] {
		p.mu.Lock()
		switch {
		case p.dying:
			wait = p.gone
		case len(p.eps) == 0 || h.cfg.UDPPort != 0:
			if h.cfg.UDPPort == 0 {
				local = p.addr
			}
			e = &Endpoint{p: p, local: local, o: o, accept: accept}
			p.eps = append(p.eps, e)
		}
		p.mu.Unlock()
		if e != nil {
			return e, nil, nil
		}
	}
	return nil, wait, nil
}

// serve starts QUIC on a bound socket.
func (h *Host) serve(ns *netns.NS, key portKey, local netip.AddrPort, o ListenOptions, sock *socket, accept func(*Incoming)) (*Endpoint, error) {
	p := &port{
		h: h, sock: sock, addr: udpAddrPort(sock.LocalAddr()),
		gone: make(chan struct{}), conns: map[*conn]struct{}{}, early: earlyConns{end: make(chan struct{})},
	}
	if h.cfg.UDPPort == 0 {
		key.local, local = p.addr, p.addr
	}
	p.key = key
	where := p.addr.String()
	if !ns.IsSelf() {
		where = fmt.Sprintf("%v@%d", p.addr, key.ns)
	}
	reset, err := h.id.resetKey(where)
	if err != nil {
		return nil, err
	}
	token, err := h.id.tokenKey(where)
	if err != nil {
		return nil, err
	}
	var alpn []string
	if o.Ask {
		alpn = append(alpn, alpnAsk)
	}
	tlsConf := h.serverTLS(alpn...)
	if tlsConf.SessionTicketsDisabled = h.cfg.NoResumption; !h.cfg.NoResumption {
		(&tickets{id: h.id, where: where, now: time.Now}).issue(tlsConf)
	}
	sock.onError = p.networkError
	p.tr = &quicgo.Transport{
		Conn: sock, ConnectionIDLength: 8, StatelessResetKey: reset, TokenGeneratorKey: token,
		ConnContext:         p.admit,
		VerifySourceAddress: func(net.Addr) bool { return h.census.doubts(time.Now()) },
	}
	e := &Endpoint{p: p, local: local, o: o, accept: accept}
	p.eps = []*Endpoint{e}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, ErrHostClosed
	}
	p.ln, err = p.tr.ListenEarly(tlsConf, h.quicConfig(false))
	if err != nil {
		p.tr.Close()
		return nil, err
	}
	h.checkBuffers(sock)
	h.ports[key] = append(h.ports[key], p)
	h.wg.Go(p.acceptConns)
	return e, nil
}

// Addr is the TCP address served, with the port the kernel chose if none was
// asked for.
func (e *Endpoint) Addr() netip.AddrPort { return e.local }

// UDPAddr is the address of the UDP socket.
func (e *Endpoint) UDPAddr() netip.AddrPort { return e.p.addr }

// Close refuses new connections and streams from now on: a peer's Dial gets
// ECONNREFUSED. Established streams go on; the UDP socket is closed with the
// last of them, once the peers have read all. It does not wait for that.
func (e *Endpoint) Close() {
	p := e.p
	p.mu.Lock()
	rest := slices.DeleteFunc(slices.Clone(p.eps), func(o *Endpoint) bool { return o == e })
	last := len(rest) == 0 && len(p.eps) == 1
	p.eps = rest
	p.mu.Unlock()
	if last {
		p.closeListening()
	}
}

// Yield closes e at once, idle connections with it, so that the UDP port is free
// as soon as Released is closed. It does nothing and returns false while there
// are streams, or others on the port.
func (e *Endpoint) Yield() bool {
	p := e.p
	p.mu.Lock()
	ours := len(p.eps) == 1 && p.eps[0] == e
	for c := range p.conns {
		c.mu.Lock()
		ours = ours && c.live == 0
		c.mu.Unlock()
	}
	if ours {
		p.eps = nil
		for c := range p.conns {
			c.close(connRefused, "nobody listens")
		}
	}
	p.mu.Unlock()
	if ours {
		p.maybeEnd()
	}
	return ours
}

// Released is closed when the UDP socket is: the port is free again.
func (e *Endpoint) Released() <-chan struct{} { return e.p.gone }

func (p *port) listening() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.eps) > 0
}

// endpoint finds who serves the TCP port to, 0 being that of p itself, at our
// address local: rather one of that address than of all, and in turn where
// several share it. It is nil when nobody does.
func (p *port) endpoint(to uint16, local netip.Addr) *Endpoint {
	if to == 0 {
		to = p.addr.Port()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var exact, any []*Endpoint
	for _, e := range p.eps {
		switch a := e.local.Addr(); {
		case e.local.Port() != to:
		case a.WithZone("") == local.WithZone(""):
			exact = append(exact, e)
		case a.IsUnspecified() && (a.Is4() == local.Is4() || a.Is6() && !e.o.V6Only):
			any = append(any, e)
		}
	}
	if len(exact) == 0 {
		exact = any
	}
	if len(exact) == 0 {
		return nil
	}
	p.turn++
	return exact[p.turn%len(exact)]
}

func (p *port) closeListening() {
	p.mu.Lock()
	p.eps = nil
	p.mu.Unlock()
	for _, c := range p.connections() {
		c.goAway()
	}
	p.maybeEnd()
}

// kill is for Host.Close, after closeListening.
func (p *port) kill() {
	p.mu.Lock()
	for c := range p.conns {
		c.close(connClosing, "host closes")
	}
	p.mu.Unlock()
}

// maybeEnd closes the socket if nobody listens and no connection is left.
func (p *port) maybeEnd() {
	p.mu.Lock()
	end := len(p.eps) == 0 && len(p.conns) == 0 && !p.dying
	p.dying = p.dying || end
	p.mu.Unlock()
	if end {
		p.ln.Close() // ends acceptConns, which does the rest
	}
}

// acceptConns is the port's goroutine.
func (p *port) acceptConns() {
	for {
		qc, err := p.ln.Accept(context.Background())
		if err != nil {
			break
		}
		p.arrive(qc)
	}
	p.mu.Lock()
	p.dying = true
	p.mu.Unlock()
	p.refuseEarly()
	p.tr.Close()
	p.sock.Close()
	p.h.mu.Lock()
	ps := slices.DeleteFunc(p.h.ports[p.key], func(q *port) bool { return q == p })
	if p.h.ports[p.key] = ps; len(ps) == 0 {
		delete(p.h.ports, p.key)
	}
	p.h.mu.Unlock()
	close(p.gone)
}

func (p *port) admitConn(qc *quicgo.Conn) {
	c := newConn(p.h, qc)
	c.visit = visitOf(qc)
	p.mu.Lock()
	if len(p.eps) == 0 {
		p.mu.Unlock()
		qc.CloseWithError(connRefused, "nobody listens")
		return
	}
	p.conns[c] = struct{}{}
	p.mu.Unlock()
	c.run(func() {
		p.mu.Lock()
		delete(p.conns, c)
		p.mu.Unlock()
		p.maybeEnd()
	})
	p.h.verifyLate(c, nil)
	p.h.wg.Go(func() { p.acceptStreams(c) })
}

// networkError finds the connections an ICMP error is about.
func (p *port) networkError(e socketError) {
	if !e.icmp {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		if udpAddrPort(c.qc.RemoteAddr()) == e.dst { // where the client is now
			c.networkError(e)
		}
	}
}

// acceptStreams is a server connection's goroutine. Streams are accepted, to
// be refused by status, even when nobody listens.
func (p *port) acceptStreams(c *conn) {
	var inOrder time.Time // not before
	for {
		s, err := c.qc.AcceptStream(c.qc.Context())
		if err != nil {
			return
		}
		c.mu.Lock()
		c.count()
		c.mu.Unlock()
		c.unended.Add(1)
		s.SetReceiveFinalSizeCallback(func(int64) { c.unended.Add(-1) })
		in := &Incoming{st: newStream(c, s, netip.AddrPortFrom(c.local.Addr(), p.addr.Port()), c.remote)}
		if !c.visit.wait() {
			in.busy(s)
			continue
		}
		in.waits = c.visit
		if now := time.Now(); !now.Before(inOrder) {
			switch here, err := headerIsHere(s, now.Add(headerWait)); {
			case here:
				p.receiveNow(c, s, in)
				continue
			case isTimeout(err):
				inOrder = time.Now().Add(headerPause)
			}
		}
		p.h.wg.Go(func() {
			defer in.answeredLater()
			s.SetReadDeadline(time.Now().Add(headerTimeout))
			if e := p.receive(c, s, in); e != nil {
				e.accept(in)
			}
		})
	}
}

// receiveNow is for a stream whose header is here: it is placed before the next
// one is looked at.
func (p *port) receiveNow(c *conn, s *quicgo.Stream, in *Incoming) {
	e := p.receive(c, s, in)
	if e == nil || e.o.Place != nil && e.o.Place(in) {
		in.answeredLater()
		return
	}
	p.h.wg.Go(func() {
		defer in.answeredLater()
		e.accept(in)
	})
}
