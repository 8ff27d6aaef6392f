package quic

import (
	"bufio"
	"errors"
	"io"
	"time"

	quicgo "github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/quicvarint"
)

// The control stream: at most one unidirectional stream each way, opened when
// first needed. It carries type, then messages of type, length, value.
//
// It exists because CONNECTION_CLOSE drops what is still under way (RFC 9000
// section 10.2), and QUIC tells an application nothing about what has arrived.
// So the side that wants to end a connection sends GOAWAY, each side sends
// DONE(n) when all n streams it knows of are over for it, and a side that is
// done and has heard DONE with the same n closes: then everything written has
// been read.
const (
	uniControl = 0x00 // stream type

	msgKeepAlive = 0x00 // value: padding
	msgGoAway    = 0x01 // value: none. Open no more streams.
	msgDone      = 0x02 // value: varint, number of streams ever opened by the client

	keepAliveSize  = 32   // octets
	maxControlBody = 4096 // octets
)

// control is the state of the control streams; conn.mu guards it.
type control struct {
	out      *quicgo.SendStream
	goneAway bool   // GOAWAY was sent or received
	sentDone bool   // DONE(done) was sent
	done     uint64 //
	peerDone uint64
	heard    bool // DONE(peerDone) was received
	closing  bool
	lost     bool // given up because of hints
}

// sendControl writes a message, and the stream's type before the first. It
// never blocks; a message that finds no room is dropped (a peer that gives no
// credit for some octets is lost anyway), and so is one that would be 0-RTT data
// (handshakeDone sends it then). mu is held.
func (c *conn) sendControl(kind uint64, value []byte) {
	if c.raw != nil {
		return // the peer has no control stream
	}
	if c.handshaking() {
		return
	}
	var b []byte
	if c.ctl.out == nil {
		s, err := c.qc.OpenUniStream()
		if err != nil {
			return
		}
		c.ctl.out = s
		b = quicvarint.Append(b, uniControl)
	}
	b = quicvarint.Append(b, kind)
	b = quicvarint.Append(b, uint64(len(value)))
	if err := c.ctl.out.TryWriteAll(append(b, value...)); err != nil {
		c.h.log.Debug("control message not sent", "peer", c.remote, "type", kind, "err", err)
	}
}

// goAway begins the end: no new streams, close when those alive are over.
func (c *conn) goAway() {
	c.mu.Lock()
	first := !c.ctl.goneAway
	if first {
		c.ctl.goneAway = true
		c.sendControl(msgGoAway, nil)
	}
	c.drain()
	c.mu.Unlock()
	if first {
		c.onDrain()
	}
}

// drain closes the door, and the connection if nobody is inside. mu is held.
func (c *conn) drain() {
	c.draining = true
	if c.live == 0 {
		c.drained()
	}
}

// drained is called when the connection drains and no stream is left: tell the
// peer, and close if it is through, too. mu is held.
func (c *conn) drained() {
	if c.raw != nil {
		c.rawOver()
		return
	}
	if !c.ctl.sentDone || c.ctl.done != c.total {
		c.ctl.sentDone, c.ctl.done = true, c.total
		c.sendControl(msgDone, quicvarint.Append(nil, c.total))
	}
	if c.ctl.closing {
		return
	}
	if c.ctl.heard && c.ctl.peerDone == c.total {
		c.ctl.closing = true
		stop(c.linger)
		c.close(connDone, "")
		return
	}
	if c.linger == nil {
		c.linger = time.AfterFunc(lingerTime, func() { c.close(connDone, "peer does not finish") })
	} else {
		c.linger.Reset(lingerTime)
	}
}

// readControl serves the peer's unidirectional streams, one after the other:
// there is only the control stream, others are refused.
func (c *conn) readControl() {
	ctx := c.qc.Context()
	if c.awaitHandshake(ctx) != nil {
		return
	}
	served := false
	for {
		s, err := c.qc.AcceptUniStream(ctx)
		if err != nil {
			return
		}
		r := bufio.NewReaderSize(s, 512)
		kind, err := quicvarint.Read(r)
		if err != nil || kind != uniControl || served {
			s.CancelRead(streamHeader)
			continue
		}
		served = true
		c.h.wg.Go(func() {
			if !c.readMessages(r) && ctx.Err() == nil {
				c.close(connProto, "control stream")
			}
		})
	}
}

// readMessages returns when the stream is over; false if it broke the rules.
// Unknown messages are skipped.
func (c *conn) readMessages(r *bufio.Reader) bool {
	for {
		m, err := readMessage(r)
		if err != nil {
			return false // the control stream must outlive the rest, too
		}
		switch m.kind {
		case msgGoAway:
			c.heardGoAway()
		case msgDone:
			c.heardDone(m.total)
		}
	}
}

// message is one of the control stream. The values of others than DONE mean
// nothing.
type message struct {
	kind  uint64
	total uint64 // of DONE
}

var errMessage = errors.New("malformed control message")

// readMessage reads the next one. It never keeps more than maxControlBody.
func readMessage(r *bufio.Reader) (message, error) {
	kind, err := quicvarint.Read(r)
	if err != nil {
		return message{}, err
	}
	n, err := quicvarint.Read(r)
	if err != nil {
		return message{}, err
	}
	if n > maxControlBody {
		return message{}, errMessage
	}
	if kind != msgDone {
		_, err := r.Discard(int(n))
		return message{kind: kind}, err
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return message{}, err
	}
	total, k, err := quicvarint.Parse(body)
	if err != nil || k != len(body) {
		return message{}, errMessage
	}
	return message{kind, total}, nil
}

func (c *conn) heardGoAway() {
	c.mu.Lock()
	first := !c.ctl.goneAway
	c.ctl.goneAway = true
	c.drain()
	c.mu.Unlock()
	if first {
		c.onDrain()
	}
}

func (c *conn) heardDone(total uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ctl.heard, c.ctl.peerDone = true, total
	if c.draining && c.live == 0 {
		c.drained()
	}
}
