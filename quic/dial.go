package quic

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	quicgo "github.com/quic-go/quic-go"

	"github.com/poemq/poemq/quic/netns"
)

// Peer names what a connection is shared by: only sockets with all of it equal
// ride on one connection.
type Peer struct {
	NS     *netns.NS      // where the UDP socket is made; nil is the process's own. The caller's, used only during Dial.
	UID    uint32         // of the program
	Local  netip.Addr     // bound address; zero: the kernel chooses
	Remote netip.AddrPort // UDP address of the peer
	// Expect says who the peer has to be, by its certificate: a DNS name, an
	// IP address or a SPIFFE ID ("spiffe://…"), which need Config.PKI; or by
	// its key alone: "sha256:BASE64", or "pin": the one first seen at Remote.
	// "" with a PKI: the certificate has to have Remote's IP address; without
	// one it is "pin".
	Expect string
}

// poolKey is Peer in comparable form.
type poolKey struct {
	ns     uint64
	uid    uint32
	local  netip.Addr
	remote netip.AddrPort
	expect string
}

// link is a client's connection with the socket under it, from before the
// handshake to the end.
type link struct {
	h    *Host
	key  poolKey
	peer Peer
	sock *socket
	c    atomic.Pointer[conn] // nil before the handshake is complete

	ready chan struct{} // closed when the handshake is over
	err   error         // of the handshake; after ready
	gone  chan struct{} // closed when the socket is closed
	abort context.CancelCauseFunc

	mu       sync.Mutex // guards what follows
	answered bool
	waiting  []func() // to call when the peer's first packet comes
	idle     *time.Timer
}

// Dial opens a stream to p.Remote on the pooled connection, making one if
// there is none, tells the peer the program's port and waits for its answer.
//
// onAnswer, if not nil, is called once, as soon as any packet from the peer
// has been seen, and at once when the connection is already open; not when
// none comes. It must not block.
//
// The end of ctx gives up this stream, not the handshake other dials wait for.
// Every error is a *DialError.
func (h *Host) Dial(ctx context.Context, p Peer, clientPort uint16, onAnswer func()) (*Stream, error) {
	p.Remote = netip.AddrPortFrom(p.Remote.Addr().Unmap(), p.Remote.Port())
	p.Local = p.Local.Unmap()
	if !p.Remote.IsValid() {
		return nil, dialError("socket", p, unix.EINVAL)
	} else if p.Remote.Port() == 0 { // UDP has no such port; TCP is refused
		return nil, dialError("socket", p, unix.ECONNREFUSED)
	}
	if _, err := h.expect(p); err != nil {
		return nil, dialError("handshake", p, err)
	}
	if onAnswer == nil {
		onAnswer = func() {}
	}
	onAnswer = sync.OnceFunc(onAnswer)
	for try := 0; ; try++ {
		st, fresh, err := h.dialOnce(ctx, p, clientPort, onAnswer)
		if err == nil {
			return st, nil
		}
		err = h.refusedByPeer(p, err)
		// The connection went away before the answer: nothing of the
		// program's was sent on it, so another one may try.
		if try == 0 && !fresh && ctx.Err() == nil && connGone(err) {
			h.log.Debug("dial again on a new connection", "peer", p.Remote, "err", err)
			continue
		}
		return nil, err
	}
}

// connGone tells whether err is the end of the connection and not an answer.
func connGone(err error) bool {
	return errors.Is(err, errDraining) || errors.Is(err, ErrLost)
}

func (h *Host) dialOnce(ctx context.Context, p Peer, clientPort uint16, onAnswer func()) (st *Stream, fresh bool, err error) {
	l, fresh, err := h.link(p)
	if err != nil {
		return nil, fresh, dialError("socket", p, err)
	}
	l.onAnswer(onAnswer)
	select {
	case <-l.ready:
	case <-ctx.Done():
		return nil, fresh, dialError("handshake", p, context.Cause(ctx))
	}
	if l.err != nil {
		return nil, true, dialError("handshake", p, l.err)
	}
	st, err = l.open(ctx, p, clientPort)
	if err != nil && connGone(err) {
		l.leavePool() // its own goroutine will, but the next try comes first
	}
	return st, fresh, err
}

// link finds the pooled connection or begins a new one, whose handshake then
// runs by itself.
func (h *Host) link(p Peer) (l *link, fresh bool, err error) {
	key := poolKey{p.NS.ID(), p.UID, p.Local, p.Remote, p.Expect}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, false, ErrHostClosed
	}
	if l := h.pool[key]; l != nil {
		return l, false, nil
	}
	// Made under the lock, so that there is one; it takes microseconds.
	sock, err := dialSocket(p.NS, p.Local, p.Remote)
	if err != nil {
		return nil, true, err
	}
	l = &link{h: h, key: key, peer: p, sock: sock, ready: make(chan struct{}), gone: make(chan struct{})}
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
	h.pool[key], h.links[l] = l, struct{}{}
	h.wg.Go(func() { l.handshake(ctx) })
	return l, true, nil
}

// handshake runs once for a link and closes ready.
func (l *link) handshake(ctx context.Context) {
	ctx, cancel := context.WithTimeoutCause(ctx, l.h.cfg.HandshakeTimeout, context.DeadlineExceeded)
	defer cancel()
	tr := &quicgo.Transport{Conn: l.sock, ConnectionIDLength: 8}
	c, err := l.connect(ctx, tr)
	if err != nil {
		if errors.Is(err, ErrIdentity) {
			l.h.servers.note(time.Now(), l.peer.Remote, "peer refused", err)
		}
		l.err = err
		l.leavePool()
		close(l.ready)
		l.end(tr)
		return
	}
	c.onDrain = l.leavePool
	c.onIdle = l.startIdle
	l.c.Store(c)
	l.h.checkBuffers(l.sock)
	c.run(func() {
		l.leavePool()
		l.mu.Lock()
		stop(l.idle)
		l.mu.Unlock()
		l.end(tr)
	})
	c.mu.Lock()
	if c.live == 0 {
		l.startIdle() // the one who dialed may have given up
	}
	c.mu.Unlock()
	l.h.verifyLate(c, l)
	close(l.ready)
}

func (l *link) connect(ctx context.Context, tr *quicgo.Transport) (*conn, error) {
	qc, err := tr.Dial(ctx, net.UDPAddrFromAddrPort(l.peer.Remote), l.h.clientTLS(l.peer), l.h.quicConfig(true))
	if err != nil {
		return nil, err
	}
	if err := l.h.confirmPin(l.peer, qc.ConnectionState().TLS); err != nil {
		qc.CloseWithError(connProto, "identity")
		return nil, err
	}
	return newConn(l.h, qc), nil
}

// end closes what is under the connection, which is dead by now.
func (l *link) end(tr *quicgo.Transport) {
	l.abort(nil)
	tr.Close()
	l.sock.Close()
	l.h.mu.Lock()
	delete(l.h.links, l)
	l.h.mu.Unlock()
	close(l.gone)
}

func (l *link) leavePool() {
	l.h.mu.Lock()
	defer l.h.mu.Unlock()
	if l.h.pool[l.key] == l {
		delete(l.h.pool, l.key)
	}
}

// startIdle begins the time a connection without streams is kept.
func (l *link) startIdle() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.idle == nil {
		l.idle = time.AfterFunc(l.h.cfg.PoolIdle, l.idleOver)
	} else {
		l.idle.Reset(l.h.cfg.PoolIdle)
	}
}

func (l *link) idleOver() {
	c := l.c.Load()
	c.mu.Lock()
	busy := c.live > 0
	c.mu.Unlock()
	if !busy {
		c.goAway()
	}
}

// goAway is for Drain.
func (l *link) goAway() {
	if c := l.c.Load(); c != nil {
		c.goAway()
	} else {
		l.abort(ErrHostClosed)
	}
}

// kill is for Close: the host's context has ended the handshake.
func (l *link) kill() {
	<-l.ready
	if c := l.c.Load(); c != nil {
		c.qc.CloseWithError(connClosing, "host closes")
	}
}

// firstPacket is called by the reading goroutine.
func (l *link) firstPacket() {
	l.mu.Lock()
	fs := l.waiting
	l.answered, l.waiting = true, nil
	l.mu.Unlock()
	for _, f := range fs {
		f()
	}
}

func (l *link) onAnswer(f func()) {
	l.mu.Lock()
	answered := l.answered
	if !answered {
		l.waiting = append(l.waiting, f)
	}
	l.mu.Unlock()
	if answered {
		f()
	}
}

// open opens a stream and waits for the peer's status.
func (l *link) open(ctx context.Context, p Peer, clientPort uint16) (*Stream, error) {
	c := l.c.Load()
	if err := c.retain(); err != nil {
		return nil, dialError("open", p, err)
	}
	s, err := c.qc.OpenStreamSync(ctx)
	if err != nil {
		c.unopen()
		if ctx.Err() == nil {
			err = answerError(err)
		}
		return nil, dialError("open", p, err)
	}
	st := newStream(c, s, netip.AddrPortFrom(c.local.Addr(), clientPort), p.Remote)
	giveUp := context.AfterFunc(ctx, func() { st.abort(streamGivenUp) })
	err = st.greet(clientPort)
	if !giveUp() && ctx.Err() != nil {
		return nil, dialError("answer", p, context.Cause(ctx))
	}
	if err != nil {
		st.abort(streamGivenUp)
		return nil, dialError("answer", p, err)
	}
	return st, nil
}

// greet sends the header and reads the status.
func (st *Stream) greet(clientPort uint16) error {
	hdr := header{ClientPort: clientPort}
	if _, err := st.s.Write(hdr.append(nil)); err != nil {
		return answerError(err)
	}
	var b [1]byte
	if _, err := io.ReadFull(st.s, b[:]); err != nil {
		return answerError(err)
	}
	if s := status(b[0]); s != statusOK {
		return fmt.Errorf("peer answers status %#02x: %w", b[0], s.errno())
	}
	return nil
}

// answerError is what the end of a stream before its status means.
func answerError(err error) error {
	var ae *quicgo.ApplicationError
	if errors.As(err, &ae) && ae.Remote && ae.ErrorCode == connRefused {
		return fmt.Errorf("%w: %w", unix.ECONNREFUSED, err)
	}
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return fmt.Errorf("%w: no status", unix.ECONNRESET)
	}
	if err = streamError(err); errors.Is(err, ErrReset) {
		return fmt.Errorf("%w: %w", unix.ECONNRESET, err)
	}
	return err
}
