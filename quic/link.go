package quic

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	quicgo "github.com/quic-go/quic-go"

	"github.com/poemq/poemq/quic/netns"
)

// link is a client's connection with the socket under it, from before the
// handshake to the end.
type link struct {
	h    *Host
	key  poolKey
	peer Peer
	ns   *netns.NS // ours to close
	sock *socket
	c    atomic.Pointer[conn] // nil before the handshake is complete

	ready chan struct{} // closed when the handshake is over
	err   error         // of the handshake; after ready
	gone  chan struct{} // closed when the socket is closed
	kept  *resumption   // from connect on
	early *early        // nil unless the peer takes 0-RTT data
	abort context.CancelCauseFunc

	raw   *delivery // nil unless peer.Raw
	shown bool      // the peer asked for our certificate; set by the handshake

	dialing atomic.Int32 // streams under way that the connection does not count yet

	// The rate of busy; the host's mu guards it.
	rate    float64 // octets a second
	bytes   uint64  // carried up to sampled
	sampled time.Time

	watch *watch // the host's mu guards it

	side     atomic.Pointer[sidePath] // nil until it is validated
	tries    atomic.Int32             // how often a way was tried, moving or not
	unproven bool                     // the way was lost or left, and nothing acknowledged since; findWays' only

	mu       sync.Mutex // guards what follows
	roaming  bool       // the way is being looked for
	changed  bool       // it must be, since the network changed
	silent   bool       // it must be, since nothing comes
	ended    bool       // the connection is over
	begun    *sidePath  // side, or what will be
	answered bool
	waiting  []func() // to call when the peer's first packet comes
	idle     *time.Timer
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
	if c.early != nil {
		l.h.wg.Go(func() { l.settle(c) })
	} else {
		c.answers(0, l.vouched(c))
	}
	c.heard = l.sock.heard
	c.onDrain = l.leavePool
	c.onIdle = l.startIdle
	c.onSilent = l.fellSilent
	l.c.Store(c)
	l.h.checkBuffers(l.sock)
	l.h.watchNet(l)
	l.h.wg.Go(func() { l.addSide(c.qc.Context()) })
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
	tlsConf, conf := l.h.clientTLS(l.peer), l.h.quicConfig(true)
	show := tlsConf.GetClientCertificate
	tlsConf.GetClientCertificate = func(r *tls.CertificateRequestInfo) (*tls.Certificate, error) {
		l.shown = true
		if show == nil {
			return new(tls.Certificate), nil // none
		}
		return show(r)
	}
	if l.raw != nil {
		l.raw.configure(tlsConf, conf)
	} else {
		l.kept = l.h.resume(l, tlsConf, conf)
	}
	dial := tr.Dial
	if l.peer.ZeroRTT {
		dial = tr.DialEarly
	}
	qc, err := dial(withPeer(ctx, l.peer.Remote), net.UDPAddrFromAddrPort(l.peer.Remote), tlsConf, conf)
	if err != nil {
		return nil, err
	}
	c := newConn(l.h, qc)
	c.raw = l.raw
	if !handshakeOver(qc) {
		c.early = l.early // settle confirms the peer
		return c, nil
	}
	if err := l.confirm(qc); err != nil {
		return nil, err
	}
	if l.peer.ZeroRTT { // it may have been rejected meanwhile
		qc.NextConnection(ctx)
	}
	return c, nil
}

// vouched reports that the end of the handshake says that a program listens on
// the peer's port: QUIC on a port of its own stands for its listening socket,
// unless the peer says otherwise or has yet to look at our certificate.
func (l *link) vouched(c *conn) bool {
	return !l.judged(c) && c.qc.ConnectionState().TLS.NegotiatedProtocol != alpnAsk
}

// judged reports that the peer may still refuse our certificate, of which the
// client's handshake does not tell. One that resumes a session has seen it then.
func (l *link) judged(c *conn) bool {
	return l.shown || l.h.cfg.PKI != nil && c.qc.ConnectionState().TLS.DidResume
}

// confirm says who the peer is, once the handshake has proved it.
func (l *link) confirm(qc *quicgo.Conn) error {
	cs := qc.ConnectionState().TLS
	if err := l.h.confirmPin(l.peer, cs); err != nil {
		qc.CloseWithError(connProto, "identity")
		return err
	}
	l.kept.confirmed(cs.PeerCertificates)
	return nil
}

// end closes what is under the connection, which is dead by now.
func (l *link) end(tr *quicgo.Transport) {
	l.abort(nil)
	l.h.unwatch(l)
	l.mu.Lock()
	side := l.begun
	l.ended = true
	l.mu.Unlock()
	tr.Close()
	tr.Conn.Close()
	if side != nil {
		side.tr.Close()
		side.Close()
	}
	l.ns.Close()
	l.h.mu.Lock()
	delete(l.h.links, l)
	l.h.mu.Unlock()
	close(l.gone)
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
	if l.early != nil {
		l.early.close()
	}
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
