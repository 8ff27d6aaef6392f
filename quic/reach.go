package quic

import (
	"context"
	"time"
)

// Reached is what Reach has found.
type Reached struct {
	Fresh    bool          // the connection was made for it
	Took     time.Duration // the handshake; 0 unless Fresh
	RTT      time.Duration
	Version  string // of QUIC
	Resumed  bool   // from a kept session
	Identity PeerIdentity
}

// Reach makes sure that there is a connection to p, without a stream: no
// program at the peer learns of it. One made for it is kept as any other, for
// PoolIdle. A raw peer is not reached. Errors are those of Dial.
func (h *Host) Reach(ctx context.Context, p Peer) (Reached, error) {
	p = p.unmapped()
	if _, err := h.expect(p); err != nil {
		return Reached{}, dialError("handshake", p, err)
	}
	begun := time.Now()
	l, fresh, err := h.link(p)
	if err != nil {
		return Reached{}, dialError("socket", p, err)
	}
	defer l.dialing.Add(-1)
	select {
	case <-l.ready:
	case <-ctx.Done():
		return Reached{}, dialError("handshake", p, context.Cause(ctx))
	}
	if l.err != nil {
		return Reached{}, h.refusedByPeer(p, dialError("handshake", p, l.err))
	}
	c := l.c.Load()
	if err := c.awaitHandshake(ctx); err != nil {
		return Reached{}, dialError("handshake", p, err)
	}
	i := c.info(time.Now())
	r := Reached{Fresh: fresh, RTT: i.Stats.RTT, Version: i.Version, Resumed: i.Resumed, Identity: i.Identity}
	if fresh {
		r.Took = time.Since(begun)
	}
	return r, nil
}

// Conn is the number of the connection under the stream, as in ConnInfo.ID.
func (st *Stream) Conn() uint64 { return st.c.id }
