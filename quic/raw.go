package quic

import (
	"context"
	"crypto/tls"
	"net/netip"
	"slices"
	"sync"
	"time"

	quicgo "github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/qlog"
	"github.com/quic-go/quic-go/qlogwriter"
)

// Raw connections (Peer.Raw) are for QUIC tools without our protocol: the
// program's bytes are those of the one bidirectional stream, and connect(2)
// succeeds with the handshake. There is no control stream, and closing a
// connection drops what the peer's program has not read yet. So a peer is taken
// to be through when it ends its direction after it has acknowledged all of ours;
// delivery sees that in quic-go's trace, for quic-go tells it nowhere else. A
// peer that ended before may close the connection itself, within lingerTime.

// alpns are the protocols that p may speak.
func (p Peer) alpns() []string {
	if p.Raw {
		return []string{p.ALPN}
	}
	return []string{ALPN, alpnAsk}
}

// dialRaw makes a connection for one stream.
func (h *Host) dialRaw(ctx context.Context, p Peer, clientPort uint16, onAnswer func()) (*Stream, error) {
	p.ZeroRTT = false // nothing is kept that it could use
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return nil, dialError("socket", p, ErrHostClosed)
	}
	l, err := h.begin(p.key(), p)
	h.mu.Unlock()
	if err != nil {
		return nil, dialError("socket", p, err)
	}
	l.onAnswer(onAnswer)
	select {
	case <-l.ready:
	case <-ctx.Done():
		l.abort(context.Cause(ctx)) // nobody shares it
		h.wg.Go(func() {
			<-l.ready
			l.goAway()
		})
		return nil, dialError("handshake", p, context.Cause(ctx))
	}
	if l.err != nil {
		return nil, h.refusedByPeer(p, dialError("handshake", p, l.err))
	}
	return l.openRaw(ctx, p, clientPort)
}

// openRaw opens the one stream; with its end the connection ends.
func (l *link) openRaw(ctx context.Context, p Peer, clientPort uint16) (*Stream, error) {
	c := l.c.Load()
	defer c.goAway()
	if err := c.retain(); err != nil {
		return nil, dialError("open", p, err)
	}
	s, err := c.qc.OpenStreamSync(ctx)
	if err != nil {
		c.unopen()
		if ctx.Err() == nil {
			err = streamError(err)
		}
		return nil, l.h.refusedByPeer(p, dialError("open", p, err))
	}
	return newStream(c, s, netip.AddrPortFrom(c.local.Addr(), clientPort), p.Remote), nil
}

// rawOver closes the connection once its stream is over and the peer is through
// with it. mu is held.
func (c *conn) rawOver() {
	if c.ctl.closing {
		return
	}
	c.ctl.closing = true
	if c.total == 0 {
		c.close(connDone, "")
		return
	}
	c.h.wg.Go(func() {
		patience := time.NewTimer(lingerTime)
		defer patience.Stop()
		select {
		case <-c.raw.through:
		case <-patience.C:
		case <-c.qc.Context().Done():
		}
		c.close(connDone, "")
	})
}

// delivery is how much of the one stream the peer has acknowledged. Its
// memory is what is in flight.
type delivery struct {
	h       *Host
	through chan struct{} // closed when the peer ended after it had acknowledged all

	mu    sync.Mutex // guards what follows
	sent  map[qlog.PacketNumber]piece
	acked []span // in order, apart from each other
	size  int64  // what has to arrive; -1: not known yet
	ended bool   // through is closed
}

// span is octets from to before end.
type span struct{ from, end int64 }

// piece is what a packet carries of the stream.
type piece struct {
	spans []span
	size  int64 // of the stream, if the packet tells its end; else -1
}

func newDelivery(h *Host) *delivery {
	return &delivery{h: h, through: make(chan struct{}), sent: map[qlog.PacketNumber]piece{}, size: -1}
}

// configure has quic-go tell d, besides whoever else traces connections.
// Nothing is kept for the next connection.
func (d *delivery) configure(tc *tls.Config, qc *quicgo.Config) {
	tc.SessionTicketsDisabled = true
	qc.MaxIncomingUniStreams = -1
	qc.KeepAlivePeriod = d.h.cfg.KeepAlive // we have no message for it
	other := qc.Tracer
	qc.Tracer = func(ctx context.Context, client bool, id quicgo.ConnectionID) qlogwriter.Trace {
		t := rawTrace{d: d}
		if other != nil {
			t.Trace = other(ctx, client, id)
		}
		return t
	}
}

// rawTrace is a trace of which d has a copy.
type rawTrace struct {
	qlogwriter.Trace // nil: nobody else wants it
	d                *delivery
}

func (t rawTrace) AddProducer() qlogwriter.Recorder {
	r := rawRecorder{d: t.d}
	if t.Trace != nil {
		r.Recorder = t.Trace.AddProducer()
	}
	return r
}

type rawRecorder struct {
	qlogwriter.Recorder // may be nil
	d                   *delivery
}

func (r rawRecorder) RecordEvent(e qlogwriter.Event) {
	r.d.record(e)
	if r.Recorder != nil {
		r.Recorder.RecordEvent(e)
	}
}

func (r rawRecorder) Close() error {
	if r.Recorder == nil {
		return nil
	}
	return r.Recorder.Close()
}

// record takes what was sent, lost and acknowledged.
func (d *delivery) record(e qlogwriter.Event) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch e := e.(type) {
	case qlog.PacketSent:
		if p, ok := pieceOf(e.Frames); ok && e.Header.PacketType == qlog.PacketType1RTT {
			d.sent[e.Header.PacketNumber] = p
		}
	case qlog.PacketLost:
		if e.Header.PacketType == qlog.PacketType1RTT {
			delete(d.sent, e.Header.PacketNumber) // it is sent again
		}
	case qlog.PacketReceived:
		if e.Header.PacketType != qlog.PacketType1RTT {
			return
		}
		for _, f := range e.Frames {
			if ack, ok := f.Frame.(*qlog.AckFrame); ok {
				d.ack(ack)
			}
		}
		for _, f := range e.Frames { // a reset may only answer our StopRead
			if s, ok := f.Frame.(*qlog.StreamFrame); ok && s.Fin && d.all() && !d.ended {
				d.ended = true
				close(d.through)
			}
		}
	}
}

// pieceOf finds the stream's frames in a packet's.
func pieceOf(frames []qlog.Frame) (p piece, ok bool) {
	p.size = -1
	for _, f := range frames {
		switch f := f.Frame.(type) {
		case *qlog.StreamFrame:
			p.spans = append(p.spans, span{f.Offset, f.Offset + f.Length})
			if f.Fin {
				p.size = f.Offset + f.Length
			}
			ok = true
		case *qlog.ResetStreamFrame:
			p.size, ok = int64(f.ReliableSize), true
		}
	}
	return p, ok
}

// ack takes an acknowledgement; mu is held.
func (d *delivery) ack(f *qlog.AckFrame) {
	for pn, p := range d.sent {
		if !f.AcksPacket(pn) {
			continue
		}
		delete(d.sent, pn)
		for _, s := range p.spans {
			d.acked = merge(d.acked, s)
		}
		if p.size >= 0 {
			d.size = p.size
		}
	}
}

// all reports that everything was acknowledged; mu is held.
func (d *delivery) all() bool {
	if d.size <= 0 {
		return d.size == 0
	}
	return len(d.acked) > 0 && d.acked[0].from == 0 && d.acked[0].end >= d.size
}

// merge adds s to a list in order.
func merge(list []span, s span) []span {
	i := 0
	for i < len(list) && list[i].end < s.from {
		i++
	}
	j := i
	for ; j < len(list) && list[j].from <= s.end; j++ {
		s = span{min(s.from, list[j].from), max(s.end, list[j].end)}
	}
	return slices.Replace(list, i, j, s)
}
