package quic

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"sync"
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
	// ServerPort is the TCP port meant; 0 is that of Remote.
	ServerPort uint16
	// Expect says who the peer has to be, by its certificate: a DNS name, an
	// IP address or a SPIFFE ID ("spiffe://…"), which need Config.PKI; or by
	// its key alone: "sha256:BASE64", or "pin": the one first seen at Remote.
	// "" with a PKI: the certificate has to have Remote's IP address; without
	// one it is "pin".
	Expect string
	// Raw is that the peer speaks no poemq: one connection, dialed anew for each
	// Dial, carries one stream without our header and status (raw.go). ALPN is
	// the protocol it is known by; ServerPort is not used.
	Raw  bool
	ALPN string
	// ZeroRTT sends what the program writes first without waiting for the
	// peer (0-RTT data), when a session with it is kept. Whoever has seen the
	// packets can then *replay* them: it is for programs whose first bytes may
	// be replayed. A server gives them to a program before it is proved that
	// they are no replay only where ListenOptions.ZeroRTT says so. Dial then
	// returns before it is known whether the peer is there: a dead one is
	// ErrLost on reading.
	ZeroRTT bool

	nsName string // of NS; begin finds it
}

// poolKey is Peer in comparable form. What is added here belongs into
// sessions.sessionKey, too.
type poolKey struct {
	ns     uint64
	uid    uint32
	local  netip.Addr
	remote netip.AddrPort
	expect string
	raw    bool
	alpn   string
}

func (p Peer) key() poolKey {
	return poolKey{p.NS.ID(), p.UID, p.Local, p.Remote, p.Expect, p.Raw, p.ALPN}
}

// unmapped is p with IPv4 addresses in their own form.
func (p Peer) unmapped() Peer {
	p.Remote = netip.AddrPortFrom(p.Remote.Addr().Unmap(), p.Remote.Port())
	p.Local = p.Local.Unmap()
	return p
}

// place is what the peer's pin is for.
func (p Peer) place() Place { return Place{p.Remote, p.nsName} }

// tcp is the address that the program connects to.
func (p Peer) tcp() netip.AddrPort {
	if p.ServerPort == 0 {
		return p.Remote
	}
	return netip.AddrPortFrom(p.Remote.Addr(), p.ServerPort)
}

// Dial opens a stream to p.Remote on a pooled connection, making one if there
// is none, and tells the peer the program's port.
//
// It waits for the peer's answer, unless it is known that somebody listens there
// (see conn.opensFast): then what the program sends first travels with the
// stream's header, and a refusal shows as ErrReset on reading.
//
// onAnswer, if not nil, is called once, as soon as any packet from the peer
// has been seen, and at once when the connection is already open; not when
// none comes. It must not block.
//
// The end of ctx gives up this stream, not the handshake other dials wait for.
// Every error is a *DialError.
func (h *Host) Dial(ctx context.Context, p Peer, clientPort uint16, onAnswer func()) (*Stream, error) {
	p = p.unmapped()
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
	if p.Raw {
		return h.dialRaw(ctx, p, clientPort, onAnswer)
	}
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
	defer l.dialing.Add(-1)
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

// open opens a stream and waits for the peer's status, if need be.
func (l *link) open(ctx context.Context, p Peer, clientPort uint16) (*Stream, error) {
	c := l.c.Load()
	if c.handshaking() {
		if p.ZeroRTT {
			st, err := c.openEarly(p, clientPort)
			if err == nil {
				return st, nil
			} else if err != errNotEarly {
				return nil, dialError("open", p, err)
			}
		}
		if err := c.awaitHandshake(ctx); err != nil {
			return nil, dialError("handshake", p, err)
		}
	}
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
	st := newStream(c, s, netip.AddrPortFrom(c.local.Addr(), clientPort), p.tcp())
	st.awaits.port = p.ServerPort
	hdr := header{ClientPort: clientPort, ServerPort: p.ServerPort}
	if c.opensFast(p.ServerPort) {
		st.opensFast()
		if _, err := s.Write(hdr.append(nil)); err != nil {
			st.abort(streamGivenUp)
			return nil, dialError("open", p, answerError(err))
		}
		return st, nil
	}
	giveUp := context.AfterFunc(ctx, func() { st.abort(streamGivenUp) })
	if _, err = s.Write(hdr.append(nil)); err != nil {
		err = answerError(err)
	} else {
		err = st.readStatus()
	}
	if !giveUp() && ctx.Err() != nil {
		return nil, dialError("answer", p, context.Cause(ctx))
	}
	if err != nil {
		st.abort(streamGivenUp)
		return nil, dialError("answer", p, err)
	}
	return st, nil
}

// readStatus reads the peer's answer.
func (st *Stream) readStatus() error {
	var b [1]byte
	if _, err := io.ReadFull((*received)(st), b[:]); err != nil {
		return answerError(err)
	}
	s := status(b[0])
	st.c.answers(st.awaits.port, s == statusOK)
	if s != statusOK {
		return fmt.Errorf("peer answers status %#02x: %w", b[0], s.errno())
	}
	return nil
}

// fastFor is how long after the last packet from the peer a connection is taken
// for alive.
const fastFor = 30 * time.Second

// opensFast reports that a stream to port needs no answer before the program
// may send: somebody listened there when last heard of, and the peer is alive.
// On the same host an answer costs nothing, and tells the truth.
func (c *conn) opensFast(port uint16) bool {
	if c.h.cfg.NoFastOpen || c.sameHost() && !fastOnSameHost {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.listens[port] && time.Since(c.heard()) < fastFor
}

// fastOnSameHost is turned on by tests, which have one host only.
var fastOnSameHost = false

// sameHost reports that the packets do not leave the host.
func (c *conn) sameHost() bool {
	return c.remote.Addr().IsLoopback() || c.remote.Addr().WithZone("") == c.local.Addr().WithZone("")
}

// answers notes whether somebody listens on the peer's port.
func (c *conn) answers(port uint16, listens bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !listens {
		delete(c.listens, port)
		return
	}
	if c.listens == nil {
		c.listens = make(map[uint16]bool)
	}
	c.listens[port] = true
}

// answerError is what the end of a stream before its status means.
func answerError(err error) error {
	var ae *quicgo.ApplicationError
	if errors.As(err, &ae) && ae.Remote && (ae.ErrorCode == connRefused || ae.ErrorCode == connLimit) {
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
