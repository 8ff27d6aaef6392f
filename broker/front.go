package broker

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/poemq/poemq/broker/api"
	"github.com/poemq/poemq/broker/policy"
	"github.com/poemq/poemq/quic"
	"golang.org/x/sys/unix"
)

// Front is a port that the broker itself serves, in its own network namespace,
// for a program that does not run under poemq. Fronts are the same when they
// are equal.
type Front struct {
	// Expose tells a QUIC port in front of a TCP server from a TCP port that
	// leads to a peer.
	Expose bool
	Listen netip.AddrPort
	To     string // host:port; a name is looked up for each connection
	// Mode is how a peer is reached; not for Expose.
	Mode policy.Mode
	// Identity is of the peer: for Expose a pattern of quic.Allow, else as in
	// quic.Peer. Empty demands nothing more than the host does.
	Identity string
}

func (f Front) String() string {
	if f.Expose {
		return fmt.Sprintf("expose udp/%v to %s", f.Listen, f.To)
	}
	return fmt.Sprintf("forward tcp/%v to %s", f.Listen, f.To)
}

// front is a Front that is served.
type front struct {
	Front
	b      *Broker
	err    error  // why it is not served
	close  func() // ends listening; connections go on
	living atomic.Int64
	total  atomic.Uint64
	failed atomic.Uint64
}

// fronts are what is served now. The zero fronts are none.
type fronts struct {
	mu  sync.Mutex // guards what follows
	all []*front
}

// SetFronts serves these and no others. One that was there already goes on
// untouched; connections of one that is taken away go on too. One that cannot
// be served is told in the log and by Status, and tried again at the next call.
func (b *Broker) SetFronts(list []Front) {
	b.fronts.mu.Lock()
	defer b.fronts.mu.Unlock()
	old := make(map[Front]*front)
	for _, f := range b.fronts.all {
		old[f.Front] = f
	}
	kept := make(map[Front]bool)
	for _, want := range list {
		kept[want] = true
	}
	for _, f := range b.fronts.all { // first, for the ports they hold
		if f.err == nil && !kept[f.Front] {
			f.close()
			b.log.Info("front ends", "front", f.String(), "connections", f.living.Load())
		}
	}
	b.fronts.all = nil
	for _, want := range list {
		f := old[want]
		if f == nil || f.err != nil {
			f = b.serveFront(want)
		}
		b.fronts.all = append(b.fronts.all, f)
	}
}

func (b *Broker) serveFront(want Front) *front {
	f := &front{Front: want, b: b, close: func() {}}
	if f.Expose {
		f.err = f.expose()
	} else {
		f.err = f.forward()
	}
	if f.err != nil {
		b.log.Error("a front is not served; it is tried again when the configuration is read again", "front", f.String(), "error", f.err)
	} else {
		b.log.Info("front serves", "front", f.String(), "mode", f.Mode, "identity", f.Identity)
	}
	return f
}

// closeFronts is for Close.
func (b *Broker) closeFronts() {
	b.fronts.mu.Lock()
	defer b.fronts.mu.Unlock()
	for _, f := range b.fronts.all {
		f.close()
	}
	b.fronts.all = nil
}

// expose serves QUIC.
func (f *front) expose() error {
	e, err := f.b.host.Listen(nil, f.Listen, quic.ListenOptions{Ask: true}, func(in *quic.Incoming) {
		f.arrived(in) // which counts as waiting
	})
	if err == nil {
		f.close = e.Close
	}
	return err
}

// arrived connects to the server before the peer is answered, which so gets
// the server's own refusal.
func (f *front) arrived(in *quic.Incoming) {
	if f.Identity != "" {
		allowed := quic.AllowList{{Peers: []string{f.Identity}}}
		if err := allowed.Authorize(in.PeerIdentity(), in.LocalAddr()); err != nil {
			f.fails(in.RemoteAddr(), err)
			in.Refuse(unix.ECONNREFUSED)
			return
		}
	}
	ctx, cancel := context.WithCancel(f.b.ctx)
	defer cancel()
	dialed := make(chan struct{})
	f.b.wg.Go(func() {
		select {
		case <-in.Done():
			cancel()
		case <-dialed:
		}
	})
	t, err := dialPlain(ctx, f.To)
	close(dialed)
	if err != nil {
		f.fails(in.RemoteAddr(), err)
		in.Refuse(errnoOfDial(err))
		return
	}
	st, err := in.Accept()
	if err != nil {
		t.Reset()
		f.fails(in.RemoteAddr(), err)
		return
	}
	f.b.wg.Go(func() { f.carry(st, t) })
}

func (f *front) carry(x, y transport) {
	f.total.Add(1)
	f.living.Add(1)
	defer f.living.Add(-1)
	begun := time.Now()
	toX, toY := carryBoth(f.b.ctx, x, y)
	f.b.log.Info("connection of a front ends", "front", f.String(), "from", x.RemoteAddr(), "from_via", via(x), "to", y.RemoteAddr(), "to_via", via(y),
		"sent", toY, "received", toX, "duration", time.Since(begun).Round(time.Microsecond))
}

// fails notes a connection that does not come about.
func (f *front) fails(from netip.AddrPort, err error) {
	f.failed.Add(1)
	if errors.Is(err, context.Canceled) {
		err = fmt.Errorf("given up: %w", err)
	}
	f.b.log.Info("connection of a front failed", "front", f.String(), "from", from, "error", err)
}

func (f *front) status() api.Front {
	s := api.Front{
		Kind: "forward", Listen: f.Listen.String(), To: f.To, Identity: f.Identity,
		Connections: f.living.Load(), Total: f.total.Load(), Failed: f.failed.Load(),
	}
	if f.Expose {
		s.Kind = "expose"
	} else {
		s.Mode = f.Mode.String()
	}
	if f.err != nil {
		s.Error = f.err.Error()
	}
	return s
}

// frontStatus looks at all of them.
func (b *Broker) frontStatus() []api.Front {
	b.fronts.mu.Lock()
	defer b.fronts.mu.Unlock()
	all := make([]api.Front, 0, len(b.fronts.all))
	for _, f := range b.fronts.all {
		all = append(all, f.status())
	}
	return all
}
