package quic

import (
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
}

// arrive admits a connection when its handshake is over, or at once when
// somebody on the port takes replays.
func (p *port) arrive(qc *quicgo.Conn) {
	if p.takesReplays() || handshakeOver(qc) {
		p.admitConn(qc)
		return
	}
	p.early.wg.Go(func() {
		select {
		case <-qc.HandshakeComplete():
			p.admitConn(qc)
		case <-qc.Context().Done():
		case <-p.early.end:
			qc.CloseWithError(connRefused, "nobody listens")
		}
	})
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
