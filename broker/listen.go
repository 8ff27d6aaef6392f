package broker

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/poemq/poemq/addfd"
	"github.com/poemq/poemq/quic"
	"github.com/poemq/poemq/quic/netns"
	"golang.org/x/sys/unix"
)

// listenState is a listening socket: what has arrived for it and who waits.
type listenState struct {
	sock   *Socket
	anchor *addfd.Anchor
	point  *listenPoint // nil when only TCP is served
	tcp    net.Listener // nil when only QUIC is served
	// ready is closed when the program's socket listens, or will not: what
	// comes by QUIC before waits for it.
	ready chan struct{}

	mu sync.Mutex // guards what follows
	// queue is what stands in the kernel's queue of the program's socket, in
	// order.
	queue []*arrival
	// back are connections that were taken from it and could not be given to
	// the program. Each has a stand-in in queue, or is owed one.
	back []taken
	owed int

	waiters []*waiter
	copy    int           // of the program's descriptor while somebody waits; else -1
	room    chan struct{} // has an element for each that may be put into the backlog
	full    int           // how many wait for room
	closed  bool
}

// arrival is a connection in the kernel's queue.
type arrival struct {
	remote, local netip.AddrPort
	relay         *relay // nil for a stand-in
	first         []byte // what came before it was put there
}

// taken is a connection out of the kernel's queue: fd is to be the program's.
type taken struct {
	*arrival
	fd int
}

// listenPoint is a UDP port that QUIC is served on, by one socket or several
// with SO_REUSEPORT.
type listenPoint struct {
	b       *Broker
	key     pointKey
	ep      *quic.Endpoint
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
}

// listen answers listen(2).
func (s *Session) listen(r Request, sock *Socket, c *copyFd) {
	backlog := r.Int(1)
	sock.mu.Lock()
	state := sock.state
	sock.mu.Unlock()
	switch state {
	case listening: // a new backlog
		s.result(r, asErrno(unix.Listen(c.fd, backlog), unix.EINVAL))
		return
	case fresh:
		if errno := s.bindTo(r, sock, c, encodeSockaddr(netip.AddrPort{}, sock.domain)); errno != 0 {
			s.fail(r, errno)
			return
		}
	case bound:
	default:
		s.fail(r, unix.EINVAL)
		return
	}
	w := &waiter{req: r}
	fd := c.keep()
	w.start(0, nil)
	s.park(w)
	s.b.wg.Go(func() {
		errno := s.b.serve(sock, fd, backlog, s.quic)
		unix.Close(fd)
		w.answer(func(r Request) { s.result(r, errno) })
	})
}

// portPatience is how long a port is waited for that another broker may be
// about to leave: its program has ended, its last bytes are under way.
const (
	portPatience = time.Second
	portRetry    = 10 * time.Millisecond
)

// serve makes sock, of which fd is a copy, listen.
func (b *Broker) serve(sock *Socket, fd, backlog int, policy Policy) unix.Errno {
	sock.mu.Lock()
	hold, ns, anchor, state := sock.hold, sock.ns, sock.anchor, sock.state
	sock.mu.Unlock()
	if state == listening {
		return 0 // the call came again
	}
	if anchor == nil {
		return unix.ENOBUFS // said when it could not be held
	}
	l := &listenState{sock: sock, anchor: anchor, copy: -1, room: make(chan struct{}, maxRoom), ready: make(chan struct{})}
	defer close(l.ready)
	if policy == Prefer {
		tcp, err := listenTCP(hold, backlog)
		if errors.Is(err, unix.EADDRINUSE) {
			b.reapClosed()
			tcp, err = listenTCP(hold, backlog)
		}
		if err != nil {
			return asErrno(err, unix.EADDRINUSE)
		}
		l.tcp = tcp
		sock.renamed(hold)
	}
	if err := b.join(l, ns, hold.local); err != nil {
		if policy == Require {
			return asErrno(err, unix.EADDRINUSE)
		}
		sock.sess.log.Warn("a listening port is served by TCP only", "port", hold.local, "reason", err)
	}
	emptyQueue(fd) // of a socket that was shut down
	if err := unix.Listen(fd, backlog); err != nil {
		l.close()
		return asErrno(err, unix.EINVAL)
	}
	sock.mu.Lock()
	if sock.state != bound {
		sock.mu.Unlock()
		l.close()
		return unix.EINVAL
	}
	sock.become(listening)
	sock.listen = l
	sock.mu.Unlock()
	if l.tcp != nil {
		b.wg.Go(l.acceptTCP)
	}
	sock.sess.log.Info("listening", "socket", sock.cookie, "port", hold.local, "policy", policy, "quic", l.point != nil)
	return 0
}

func listenTCP(h *portHold, backlog int) (net.Listener, error) {
	if err := unix.Listen(h.fd, backlog); err != nil {
		return nil, err
	}
	fd, err := unix.FcntlInt(uintptr(h.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "tcp")
	defer f.Close()
	return net.FileListener(f)
}

// join has l served on the UDP port of local.
func (b *Broker) join(l *listenState, ns *netns.NS, local netip.AddrPort) error {
	v6only, reuse := l.sock.v6only(), l.sock.reusePort()
	key := pointKey{ns.ID(), local, v6only}
	deadline := time.Now().Add(portPatience)
	for {
		err := b.joinOnce(l, ns, key, quic.ListenOptions{V6Only: v6only, ReusePort: reuse})
		if !errors.Is(err, unix.EADDRINUSE) || time.Now().After(deadline) {
			return err
		}
		b.reapClosed()
		select {
		case <-b.ctx.Done():
			return err
		case <-time.After(portRetry):
		}
	}
}

func (b *Broker) joinOnce(l *listenState, ns *netns.NS, key pointKey, o quic.ListenOptions) error {
	b.points.mu.Lock()
	defer b.points.mu.Unlock()
	p := b.points.m[key]
	switch {
	case p != nil && !o.ReusePort:
		return unix.EADDRINUSE
	case p == nil:
		p = &listenPoint{b: b, key: key}
		ep, err := b.host.Listen(ns, key.local, o, p.arrive)
		if err != nil {
			return err
		}
		p.ep = ep
		if b.points.m == nil {
			b.points.m = make(map[pointKey]*listenPoint)
		}
		b.points.m[key] = p
	}
	p.members = append(p.members, l)
	l.point = p
	return nil
}

// leave takes l off its point, and ends the point with its last member.
func (p *listenPoint) leave(l *listenState) {
	p.b.points.mu.Lock()
	defer p.b.points.mu.Unlock()
	for i, m := range p.members {
		if m == l {
			p.members = append(p.members[:i:i], p.members[i+1:]...)
			break
		}
	}
	if len(p.members) == 0 && p.b.points.m[p.key] == p {
		delete(p.b.points.m, p.key)
		p.ep.Close()
	}
}

// pick shares connections out in turn.
func (p *listenPoint) pick() *listenState {
	p.b.points.mu.Lock()
	defer p.b.points.mu.Unlock()
	if len(p.members) == 0 {
		return nil
	}
	p.next++
	return p.members[p.next%len(p.members)]
}

// arrive brings a stream to a listening socket's queue.
func (p *listenPoint) arrive(in *quic.Incoming) {
	for {
		l := p.pick()
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
			st, err := in.Accept()
			if err != nil {
				a.relay.abort()
				l.forget(a)
				return
			}
			a.relay.givenUp = func() { l.forget(a) }
			a.relay.start(st)
			return
		case errGaveUp:
			return
		case unix.ECONNREFUSED:
			l.refuses() // and so is off the point
			p.leave(l)
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

// acceptTCP serves the port's plain TCP.
func (l *listenState) acceptTCP() {
	for {
		c, err := l.tcp.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) || errors.Is(err, unix.EINVAL) { // or it listens no more
				return
			}
			l.sock.sess.log.Warn("a TCP connection cannot be accepted", "error", err)
			time.Sleep(100 * time.Millisecond) // no descriptors or memory left, which passes
			continue
		}
		t := tcpTransport{c.(*net.TCPConn)}
		a := &arrival{remote: t.RemoteAddr(), local: t.LocalAddr()}
		if err := l.enqueue(a, nil, t.wasReset); err != nil {
			t.Reset()
			if err == unix.ECONNREFUSED {
				l.refuses()
			}
			continue
		}
		a.relay.start(t)
	}
}

// roomPause is how long a connection that found the backlog full waits with
// going on.
const roomPause = 100 * time.Millisecond

const maxRoom = 1024 // more are found by looking now and then

var errGaveUp = errors.New("the peer gave up, or the broker ends")

// enqueue puts a into the program's queue, waiting while the backlog is full.
// That the peer gave up is told by gone, or found out by lost; nil for never.
func (l *listenState) enqueue(a *arrival, gone <-chan struct{}, lost func() bool) error {
	err := l.tryEnqueue(a)
	if err != unix.EAGAIN {
		return err
	}
	l.wantRoom(1)
	defer l.wantRoom(-1)
	for {
		select {
		case <-l.room:
			// A peer that gave up meanwhile is heard of first. TCP has it wait
			// for its next SYN, a second away.
			time.Sleep(roomPause)
		case <-gone:
		case <-l.sock.b.ctx.Done():
			return errGaveUp
		case <-time.After(lastCheck): // it may have been closed
		}
		select {
		case <-gone:
			l.mu.Lock()
			l.hasRoom()
			l.mu.Unlock()
			return errGaveUp
		default:
		}
		if lost != nil && lost() {
			l.mu.Lock()
			l.hasRoom()
			l.mu.Unlock()
			return errGaveUp
		}
		if err := l.tryEnqueue(a); err != unix.EAGAIN {
			return err
		}
	}
}

func (l *listenState) wantRoom(n int) {
	l.mu.Lock()
	l.full += n
	l.mu.Unlock()
}

func (l *listenState) tryEnqueue(a *arrival) error {
	l.dropStale() // a program that was killed in accept listens no more
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return unix.ECONNREFUSED
	}
	end, err := l.anchor.Connect()
	if err != nil {
		l.mu.Unlock()
		return err
	}
	a.relay = newRelay(l.sock.b, end)
	if len(a.first) > 0 {
		_ = unix.Send(end, a.first, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL) // a new socket has room for more
	}
	a.relay.watch()
	l.queue = append(l.queue, a)
	w := l.nextWaiter()
	l.mu.Unlock()
	l.serveWaiter(w)
	return nil
}

// close ends listening; what waits in the queue is reset by the kernel's
// dropping it.
func (l *listenState) close() {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return
	}
	l.closed = true
	back := l.back
	l.back = nil
	if l.copy >= 0 {
		unix.Close(l.copy)
		l.copy = -1
	}
	l.mu.Unlock()
	for _, t := range back {
		unix.Close(t.fd)
	}
	if l.tcp != nil {
		l.tcp.Close()
	}
	if l.point != nil {
		l.point.leave(l)
	}
}
