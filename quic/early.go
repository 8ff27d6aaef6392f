package quic

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"time"

	quicgo "github.com/quic-go/quic-go"
)

// 0-RTT (RFC 9001 section 4.6): a client that resumes a session may send before
// the handshake is over. What it sends then
//
//   - may be replayed: whoever has the packets can send them again (RFC 8446
//     section 8), so a program must be known to bear that (Peer.ZeroRTT);
//   - may be rejected by the server as a whole, which then has given nothing of
//     it to a program. It is sent again on new streams of the same connection,
//     after the peer's identity is verified. Until then it is kept here, which
//     is what bounds it.
const (
	earlyPerStream = 64 << 10 // octets of a stream, header included
	earlyPerConn   = 1 << 20  // octets of all streams of a connection
)

// early is what a client's connection has before its handshake is over.
type early struct {
	// over is closed when the handshake is: the connection is then as any
	// other, or dead, of err then.
	over chan struct{}
	err  error

	mu      sync.Mutex // guards what follows
	closed  bool       // no more early streams
	streams []*Stream
	room    int // octets that may still be kept
}

func newEarly() *early { return &early{over: make(chan struct{}), room: earlyPerConn} }

// handshakeOver reports that qc has proved who both sides are.
func handshakeOver(qc *quicgo.Conn) bool { return closed(qc.HandshakeComplete()) }

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// handshaking reports that only early streams can be opened yet.
func (c *conn) handshaking() bool { return c.early != nil && !closed(c.early.over) }

// awaitHandshake returns when handshaking is over, with its error, or the cause
// of ctx if that ends first.
func (c *conn) awaitHandshake(ctx context.Context) error {
	if c.early == nil {
		return nil
	}
	select {
	case <-c.early.over:
		return c.early.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// errNotEarly: the stream has to wait for the handshake.
var errNotEarly = errors.New("no early stream")

// openEarly opens a stream whose first bytes are 0-RTT data.
func (c *conn) openEarly(p Peer, clientPort uint16) (*Stream, error) {
	if err := c.retain(); err != nil {
		return nil, err
	}
	st, err := c.early.open(c, netip.AddrPortFrom(c.local.Addr(), clientPort), p.tcp())
	if err != nil {
		c.unopen()
		return nil, err
	}
	st.awaits.port = p.ServerPort
	st.opensFast()
	hdr := header{ClientPort: clientPort, ServerPort: p.ServerPort}
	if _, err := st.send(hdr.append(nil)); err != nil {
		st.abort(streamGivenUp)
		return nil, answerError(err)
	}
	return st, nil
}

// close has new streams wait. It is called before quic-go sees the first packet
// of the peer, too: quic-go cannot open a stream while it reads the peer's
// transport parameters.
func (e *early) close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = true
}

func (e *early) open(c *conn, local, remote netip.AddrPort) (*Stream, error) {
	e.mu.Lock() // so that settle finds every stream
	defer e.mu.Unlock()
	if e.closed {
		return nil, errNotEarly
	}
	s, err := c.qc.OpenStream()
	if err != nil { // rejected, or the peer's limit of streams
		return nil, errNotEarly
	}
	st := newEarlyStream(c, s, local, remote)
	e.streams = append(e.streams, st)
	return st, nil
}

// take gives up to n octets of room.
func (e *early) take(n int) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	n = min(n, e.room)
	e.room -= n
	return n
}

// settle waits for the end of the handshake and makes the streams what they are
// on any other connection. It is a goroutine of the link.
func (l *link) settle(c *conn) {
	qc := c.qc
	select {
	case <-qc.HandshakeComplete():
	case <-qc.Context().Done():
	}
	rejected, err := l.decide(c)
	if err != nil {
		if errors.Is(err, ErrIdentity) {
			l.h.servers.note(time.Now(), l.peer.Remote, "peer refused", err)
		}
		l.leavePool()
	} else {
		c.answers(0, l.vouched(c))
	}
	c.early.mu.Lock()
	c.early.closed = true
	streams := c.early.streams
	c.early.streams, c.early.err = nil, err
	c.early.mu.Unlock()
	for _, st := range streams {
		switch {
		case err != nil:
			st.early.lose(st, err)
		case rejected:
			l.again(c, st)
		default:
			st.early.accepted(st)
		}
	}
	if rejected && err == nil {
		l.h.log.Debug("0-RTT rejected, sent again", "peer", c.remote, "streams", len(streams))
	}
	c.handshakeDone()
}

// decide tells how the handshake went. err ends the connection.
func (l *link) decide(c *conn) (rejected bool, err error) {
	if !handshakeOver(c.qc) {
		return false, context.Cause(c.qc.Context())
	}
	if err := l.confirm(c.qc); err != nil {
		return false, err
	}
	if c.qc.ConnectionState().Used0RTT {
		return false, nil
	}
	_, err = c.qc.NextConnection(l.h.ctx) // the same one, with streams anew
	return true, err
}

// again opens a stream in the place of a rejected one, in the order in which
// they were opened.
func (l *link) again(c *conn, st *Stream) {
	s, err := c.qc.OpenStreamSync(l.h.ctx)
	if err != nil {
		st.early.lose(st, err)
		return
	}
	st.early.mu.Lock()
	st.early.phase = resending
	st.early.mu.Unlock()
	l.h.wg.Go(func() { st.early.resend(st, s) })
}

// handshakeDone lets everybody in that waits for the handshake, and says what
// could not be said before.
func (c *conn) handshakeDone() {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.early.over)
	if c.qc.Context().Err() != nil {
		return
	}
	if c.ctl.goneAway {
		c.sendControl(msgGoAway, nil)
	}
	if c.draining && c.live == 0 {
		c.ctl.sentDone = false
		c.drained()
	}
}
