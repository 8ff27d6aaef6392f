package quic

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	quicgo "github.com/quic-go/quic-go"
)

// errDraining: the connection takes no new stream. The dialer makes another.
var errDraining = errors.New("connection is being closed")

// conn is a QUIC connection of either side: it counts streams, keeps the path
// alive while there are any, notices a dead peer, and ends without losing what
// was written (control.go).
type conn struct {
	h             *Host
	qc            *quicgo.Conn
	local, remote netip.AddrPort
	ident         connIdentity // of the peer
	// onIdle is called, with mu held, when the last stream is over or the
	// connection is new; onDrain once, without, when it takes no more streams.
	onIdle  func()
	onDrain func()
	// onSilent is called, on a goroutine of its own, at each tick without a
	// packet, but the first: the keepalive of that one should have been
	// answered. A client's only.
	onSilent func()
	// heard is when the last packet came; a client's only.
	heard func() time.Time
	// raw is of a connection without our protocol (raw.go); else nil.
	raw *delivery
	// early is there as long as the connection is, if it was used before its
	// handshake was over; a client's only.
	early *early
	since time.Time
	id    uint64     // of this host's connections, from 1
	trace *traceSlot // nil: there is no place for one
	// visit is what the limits count for the peer; nil of a client's.
	visit   *visit
	octets  atomic.Int64 // read by all streams there were
	unended atomic.Int64 // streams of the peer's whose end has not come yet

	mu       sync.Mutex // guards what follows
	live     int        // streams not over
	total    uint64     // streams ever opened (client) or accepted (server)
	draining bool
	ctl      control
	keep     *time.Timer     // runs while live > 0
	seen     uint64          // packets received at the last tick of keep
	sent     uint64          // packets sent by then
	silent   int             // ticks in a row without a packet
	asked    int             // that of them in which a keepalive was sent first
	opening  map[uint16]int  // streams to a port of the peer's that were opened fast and have no answer yet
	listens  map[uint16]bool // ports of the peer's that somebody listens on; 0: the one of its address
	linger   *time.Timer     // runs while draining with live == 0
	hint     hint
	settled  int64 // of what came, all is read; see holds
}

// hint collects ICMP errors since the last packet from the peer.
type hint struct {
	n       int
	first   time.Time
	packets uint64 // received at that time
}

// A peer is taken for dead after hintCount ICMP errors over hintSpan without a
// packet from it. One error alone proves nothing: anybody can send one (RFC
// 5927 section 4), and a host that is being configured sends them too.
const (
	hintCount = 3
	hintSpan  = time.Second
)

// lingerTime bounds how long a connection without streams waits for the peer's
// word that everything has arrived.
const lingerTime = 60 * time.Second

func newConn(h *Host, qc *quicgo.Conn) *conn {
	slot, _ := qc.Context().Value(qlogPeer{}).(*traceSlot)
	return &conn{
		h: h, qc: qc, local: udpAddrPort(qc.LocalAddr()), remote: udpAddrPort(qc.RemoteAddr()),
		onIdle: func() {}, onDrain: func() {}, since: time.Now(), id: h.nextConn.Add(1), trace: slot,
	}
}

func udpAddrPort(a net.Addr) netip.AddrPort {
	u, ok := a.(*net.UDPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := u.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// run starts the connection's goroutines; the host's WaitGroup counts them.
// ended is called when the connection is dead and its timers are stopped.
func (c *conn) run(ended func()) {
	c.h.past.begin(c)
	c.h.guardMemory()
	c.h.wg.Go(c.readControl)
	c.h.wg.Go(func() {
		<-c.qc.Context().Done()
		c.mu.Lock()
		c.draining = true
		stop(c.keep)
		stop(c.linger)
		c.mu.Unlock()
		c.h.past.end(c)
		c.h.log.Debug("connection ended", "peer", c.remote, "local", c.local, "cause", context.Cause(c.qc.Context()))
		ended()
	})
}

func stop(t *time.Timer) {
	if t != nil {
		t.Stop()
	}
}

// retain counts a new stream. It fails with errDraining, or, when the connection
// has ended, with what ended it: that may be the peer's refusal of us.
func (c *conn) retain() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if ctx := c.qc.Context(); ctx.Err() != nil {
		return streamError(context.Cause(ctx))
	}
	if c.draining {
		return errDraining
	}
	c.count()
	return nil
}

// count adds a stream; mu is held.
func (c *conn) count() {
	c.live++
	c.total++
	stop(c.linger)
	if c.live == 1 {
		q := c.qc.ConnectionStats()
		c.seen, c.sent, c.silent, c.asked = q.PacketsReceived, q.PacketsSent, 0, 0
		if c.keep == nil {
			c.keep = time.AfterFunc(c.tickEvery(), c.tick)
		} else {
			c.keep.Reset(c.tickEvery())
		}
	}
}

// unopen takes back a retain whose stream was never opened.
func (c *conn) unopen() {
	c.mu.Lock()
	c.total--
	c.mu.Unlock()
	c.release()
}

// release counts a stream as over.
func (c *conn) release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.live--
	if c.live > 0 || c.qc.Context().Err() != nil {
		return
	}
	stop(c.keep)
	if c.draining {
		c.drained()
	} else {
		c.onIdle()
	}
}

const (
	// ticksQuiet is how many ticks without a packet make a KeepAlive.
	ticksQuiet = 11
	// ticksDead is how many after an unanswered keepalive make a path that is
	// taken for dead.
	ticksDead = 12
)

// tickEvery lets the answer to a keepalive and ticksQuiet ticks after it take a
// KeepAlive.
func (c *conn) tickEvery() time.Duration { return c.h.cfg.KeepAlive / (ticksQuiet + 1) }

// tick sends a keepalive when nothing has come for a KeepAlive, or since the
// last tick though something was sent: the peer may have been restarted, and
// then only a packet that is long enough brings a stateless reset (quic-go
// sends none in answer to 42 octets or fewer, which is what a short write and
// its probes make). So it is a message on the control stream and no PING frame;
// and quic-go's own keepalives would run without streams, too.
func (c *conn) tick() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.live == 0 || c.qc.Context().Err() != nil {
		return
	}
	q := c.qc.ConnectionStats()
	if q.PacketsReceived != c.seen {
		c.silent, c.asked = 0, 0
	} else {
		c.silent++
		if q.PacketsSent != c.sent || c.silent%ticksQuiet == 0 {
			c.sendControl(msgKeepAlive, make([]byte, keepAliveSize))
			if c.asked == 0 {
				c.asked = c.silent
			}
		}
		if c.asked > 0 && c.silent-c.asked >= ticksDead && c.onSilent != nil {
			go c.onSilent()
		}
	}
	c.seen, c.sent = q.PacketsReceived, q.PacketsSent
	c.keep.Reset(c.tickEvery())
}

// networkError takes a hint that the peer is gone (see hintCount). Only a
// refusal counts: unreachable hosts and networks may come back, and then
// nothing is lost.
func (c *conn) networkError(e socketError) {
	if e.icmp && c.handshaking() { // no peer has been seen: as for any handshake
		c.close(connLost, "handshake: "+e.errno.Error())
		return
	}
	if !e.icmp || e.errno != unix.ECONNREFUSED {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now, n := time.Now(), c.qc.ConnectionStats().PacketsReceived
	if c.hint.n == 0 || c.hint.packets != n {
		c.hint = hint{n: 1, first: now, packets: n}
		return
	}
	c.hint.n++
	if c.hint.n < hintCount || now.Sub(c.hint.first) < hintSpan || c.ctl.lost {
		return
	}
	c.ctl.lost = true
	c.h.log.Info("peer is gone", "peer", c.remote, "local", c.local, "streams", c.live, "icmp_errors", c.hint.n)
	c.close(connLost, fmt.Sprintf("%d ICMP errors and no packet for %v", c.hint.n, now.Sub(c.hint.first).Round(time.Millisecond)))
}

// close ends the connection at once. It does not wait for it.
func (c *conn) close(code quicgo.ApplicationErrorCode, why string) {
	go c.qc.CloseWithError(code, why) // ends with the connection, which run watches
}

func (c *conn) stats() Stats {
	q := c.qc.ConnectionStats()
	c.mu.Lock()
	live := c.live
	c.mu.Unlock()
	return Stats{
		RTT: q.SmoothedRTT, MinRTT: q.MinRTT, RTTVar: q.MeanDeviation,
		CongestionWindow: q.CongestionWindow,
		BytesSent:        q.BytesSent, BytesReceived: q.BytesReceived,
		PacketsSent: q.PacketsSent, PacketsReceived: q.PacketsReceived,
		PacketsLost: q.PacketsLost,
		Streams:     live,
	}
}

func isTimeout(err error) bool {
	ne, ok := errors.AsType[net.Error](err)
	return ok && ne.Timeout() && !errors.Is(err, ErrLost)
}
