package broker

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/poemq/poemq/addfd"
	"github.com/poemq/poemq/broker/policy"
	"golang.org/x/sys/unix"
)

// listenState is a listening socket: what has arrived for it and who waits.
type listenState struct {
	sock     *Socket
	anchor   *addfd.Anchor
	point    *listenPoint    // nil when only TCP is served; guarded by pointTable.mu
	tcp      net.Listener    // nil when only QUIC is served
	decision policy.Decision // it is served by
	// zeroRTT is that the program bears replay of what comes first.
	zeroRTT bool
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
	relay         *relay // nil for a stand-in, and where direct is set
	direct        string // the name of the program's socket at the other end
	first         []byte // what came before it was put there
}

// taken is a connection out of the kernel's queue: fd is to be the program's.
type taken struct {
	*arrival
	fd int
}

// listen answers listen(2).
func (s *Session) listen(r Request, sock *Socket, c *copyFd) {
	backlog := r.Int(1)
	sock.mu.Lock()
	state := sock.state
	sock.mu.Unlock()
	switch state {
	case listening: // a new backlog
		sock.mu.Lock()
		sock.backlog = backlog
		sock.jotLocked()
		sock.mu.Unlock()
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
	creds, err := r.Creds()
	if err != nil {
		s.fail(r, unix.ENOBUFS)
		return
	}
	sock.mu.Lock()
	local := sock.local
	sock.mu.Unlock()
	decision := s.decide(r, policy.Query{Addr: local, Listening: true, UID: creds.UID})
	if decision.Mode == policy.Prefer && s.b.guarded != nil && s.b.guarded(local.Port()) {
		decision.Mode = policy.Require
	}
	w := &waiter{req: r, checks: &s.b.checks}
	fd := c.keep()
	w.start(0, nil)
	s.park(w)
	s.b.wg.Go(func() {
		errno := s.b.serve(sock, fd, backlog, decision)
		unix.Close(fd)
		w.answerHere(func(r Request) { s.result(r, errno) })
	})
}

// serve makes sock, of which fd is a copy, listen.
func (b *Broker) serve(sock *Socket, fd, backlog int, decision policy.Decision) unix.Errno {
	sock.mu.Lock()
	hold, ns, anchor, state := sock.hold, sock.ns, sock.anchor, sock.state
	sock.mu.Unlock()
	if state == listening {
		return 0 // the call came again
	}
	if anchor == nil {
		return unix.ENOBUFS // said when it could not be held
	}
	l := &listenState{sock: sock, anchor: anchor, copy: -1, room: make(chan struct{}, maxRoom), ready: make(chan struct{}), zeroRTT: decision.ZeroRTT, decision: decision}
	defer close(l.ready)
	mode := decision.Mode
	// QUIC comes first: a client that finds TCP alone remembers that. But TCP
	// names a port that has no name any more.
	if mode != policy.Require && !hold.named() {
		if errno := b.serveTCP(l, hold, backlog); errno != 0 {
			return errno
		}
	}
	var unserved error
	if mode != policy.Off {
		unserved = b.join(l, ns, hold.local, mode)
	}
	if unserved != nil && mode == policy.Require {
		return asErrno(unserved, unix.EADDRINUSE)
	}
	if mode != policy.Require && l.tcp == nil {
		if errno := b.serveTCP(l, hold, backlog); errno != 0 {
			l.close()
			return errno
		}
	}
	later := errors.Is(unserved, unix.EADDRINUSE)
	if unserved != nil {
		sock.sess.log.Warn("a listening port is served by TCP only", "port", hold.local, "reason", unserved, "tried_again", later)
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
	sock.listen, sock.backlog, sock.mode = l, backlog, mode
	sock.jotLocked()
	sock.mu.Unlock()
	if sock.sess.kept != nil {
		sock.sess.kept.store.flush() // from now on it may be counted on
	}
	if l.tcp != nil {
		b.wg.Go(l.acceptTCP)
	}
	sock.sess.log.Info("listening", "socket", sock.cookie, "port", hold.local, "policy", mode, "rule", decision.By(), "quic", b.onPoint(l))
	if later {
		b.wg.Go(func() { b.joinLater(l, ns, hold.local) })
	}
	return 0
}

// serveTCP has plain TCP served beside QUIC.
func (b *Broker) serveTCP(l *listenState, hold *portHold, backlog int) unix.Errno {
	tcp, err := listenTCP(hold, backlog)
	if errors.Is(err, unix.EADDRINUSE) {
		b.reapClosed()
		tcp, err = listenTCP(hold, backlog)
	}
	if err != nil {
		return asErrno(err, unix.EADDRINUSE)
	}
	l.tcp = tcp
	l.sock.renamed(hold)
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
		t := newTCP(c.(*net.TCPConn))
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

func (l *listenState) isClosed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed
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
	l.sock.b.leavePoint(l)
}
