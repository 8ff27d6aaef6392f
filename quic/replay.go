package quic

import (
	"maps"
	"slices"
	"sync"

	quicgo "github.com/quic-go/quic-go"
)

// A server takes 0-RTT data on every port, for a client cannot know who takes
// it. But it may be a replay until the handshake is over, which only a client
// that is there can bring to its end. Until then the data lies in QUIC's
// receive buffers, and goes with the connection when the handshake times out;
// unless the listening socket takes replays (ListenOptions.ZeroRTT).

// earlyConns are a port's connections whose handshake is not over.
type earlyConns struct {
	wg  sync.WaitGroup // goroutines that wait for one; added to by acceptConns
	end chan struct{}  // closed when they are refused

	mu    sync.Mutex // guards what follows
	conns map[*quicgo.Conn]struct{}
}

// arrive admits a connection when its handshake is over, or at once when
// somebody on the port takes replays.
func (p *port) arrive(qc *quicgo.Conn) {
	if handshakeOver(qc) {
		if p.prove(qc) {
			p.admitConn(qc)
		}
		return
	}
	atOnce := p.takesReplays()
	if atOnce {
		p.admitConn(qc)
	} else {
		p.early.put(qc)
	}
	p.early.wg.Go(func() {
		defer p.early.drop(qc)
		select {
		case <-qc.HandshakeComplete():
			if p.prove(qc) && !atOnce {
				p.admitConn(qc)
			}
		case <-qc.Context().Done():
		case <-p.early.end:
			qc.CloseWithError(connRefused, "nobody listens")
		}
	})
}

func (e *earlyConns) put(qc *quicgo.Conn) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.conns == nil {
		e.conns = map[*quicgo.Conn]struct{}{}
	}
	e.conns[qc] = struct{}{}
}

func (e *earlyConns) drop(qc *quicgo.Conn) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.conns, qc)
}

// waiting lists those that nobody serves yet.
func (e *earlyConns) waiting() []*quicgo.Conn {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Collect(maps.Keys(e.conns))
}

func (p *port) takesReplays() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.ContainsFunc(p.eps, func(e *Endpoint) bool { return e.o.ZeroRTT })
}

// refuseEarly is for the end of the port.
func (p *port) refuseEarly() {
	close(p.early.end)
	p.early.wg.Wait()
}

// proved waits for the end of the handshake. It returns false if the
// connection is lost before.
func (c *conn) proved() bool {
	select {
	case <-c.qc.HandshakeComplete():
		return true
	case <-c.qc.Context().Done():
		return false
	}
}
