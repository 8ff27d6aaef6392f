package broker

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/poemq/poemq/broker/policy"
	"github.com/poemq/poemq/quic"
	"golang.org/x/sys/unix"
)

// transport is one connection's bytes on their way to the other host: a QUIC
// stream, or a TCP connection of the kernel's where the policy allows it.
// Errors are those of quic.Stream: io.EOF, quic.ErrReset, quic.ErrStopped,
// quic.ErrLost.
type transport interface {
	io.Reader
	io.Writer
	// AwaitRead returns when Read would not wait, or sooner.
	AwaitRead()
	// CloseWrite is TCP's FIN.
	CloseWrite() error
	// Reset is TCP's RST.
	Reset()
	// WhenWriteEnds calls f, once and on another goroutine, when the peer takes
	// no more, or with net.ErrClosed when that is our own doing.
	WhenWriteEnds(f func(error))
	// StopRead has the peer's further writes fail.
	StopRead()
	// Lost is closed when nothing more will be read, whatever has come: who
	// reads is to let the transport go, which may hold much. It may be nil.
	Lost() <-chan struct{}
	// Close frees what is left when both directions have ended.
	Close() error
	LocalAddr() netip.AddrPort
	RemoteAddr() netip.AddrPort
}

// attempt is what it takes to reach a peer, by QUIC and by TCP.
type attempt struct {
	place   place // where what is learnt of the peer is kept
	mode    policy.Mode
	peer    quic.Peer // not for policy.Off
	port    uint16    // of our side, as the peer is told
	dialTCP func(context.Context) (transport, error)
	why     string // it is carried as it is, where that is not plain from mode
}

// connectTo reaches d's peer as the policy says.
func (b *Broker) connectTo(ctx context.Context, d *dialState) (transport, error) {
	if d.remote.Port() == 0 {
		return nil, unix.ECONNREFUSED
	}
	a := attempt{
		place: d.place(), mode: d.decision.Mode, port: d.port.port,
		dialTCP: func(ctx context.Context) (transport, error) { return b.dialTCP(ctx, d) },
	}
	if a.mode != policy.Off {
		a.peer = d.peer()
	}
	t, err := b.reach(ctx, &a)
	if err == nil {
		a.decides(d.decision, t)
		d.why = a.why
	}
	return t, err
}

// reach makes the connection that a describes.
func (b *Broker) reach(ctx context.Context, a *attempt) (transport, error) {
	switch a.mode {
	case policy.Off:
		return a.dialTCP(ctx)
	case policy.Require:
		st, err := b.host.Dial(ctx, a.peer, a.port, nil)
		if err != nil {
			return nil, err
		}
		b.memory.forget(a.place)
		return st, nil
	}
	if reason, ok := b.memory.reason(a.place); ok {
		t, err := a.dialTCP(ctx)
		if err == nil {
			b.fellBack(a, reason, "remembered: ")
		}
		if err == nil || errors.Is(context.Cause(ctx), context.Canceled) {
			return t, err
		}
		b.memory.forget(a.place)
		if ctx.Err() != nil {
			return nil, err
		}
	}
	if b.host.Connected(a.peer) {
		// Nothing to race for, unless it goes wrong.
		st, err := b.host.Dial(ctx, a.peer, a.port, nil)
		if err == nil {
			return st, nil
		}
		if errors.Is(err, quic.ErrIdentity) || ctx.Err() != nil {
			return nil, err
		}
	}
	return b.race(ctx, a)
}

// fellBack notes why a is carried by TCP.
func (b *Broker) fellBack(a *attempt, reason, known string) {
	a.why = "fallback, " + known + reason
	b.ledger.fallsBack(reason)
}

type raced struct {
	t    transport
	err  error
	quic bool
}

// handshakePatience is how long a peer that was heard may take for the rest of
// the handshake: UDP may get through half of the way, as where a middlebox or
// the path's MTU stops the larger packets.
const handshakePatience = time.Second

// race tries QUIC, and TCP too when the peer refuses QUIC, is silent for the
// head start, or falls silent in the handshake. When TCP is refused, QUIC gets
// little more time. A peer whose identity is wrong is not reached in any way. What
// is learnt of the peer is remembered.
func (b *Broker) race(ctx context.Context, a *attempt) (transport, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan raced, 2)
	answered := make(chan struct{}, 1)
	go func() {
		st, err := b.host.Dial(ctx, a.peer, a.port, func() { answered <- struct{}{} })
		if err != nil {
			results <- raced{err: err, quic: true}
			return
		}
		results <- raced{t: st, quic: true}
	}()
	tcpStarted, running := time.Time{}, 1
	startTCP := func() {
		if !tcpStarted.IsZero() {
			return
		}
		tcpStarted = time.Now()
		running++
		go func() {
			t, err := a.dialTCP(ctx)
			if err != nil {
				results <- raced{err: err}
				return
			}
			results <- raced{t: t}
		}()
	}
	fallback := *b.fallback.Load()
	patience := time.NewTimer(fallback.HeadStart) // with QUIC
	defer patience.Stop()
	heard := false // of QUIC
	var quicErr, tcpErr error
	for running > 0 {
		select {
		case <-answered:
			heard = true
			patience.Reset(handshakePatience)
		case <-patience.C:
			switch {
			case b.host.Connected(a.peer): // the peer's program is slow
			case tcpErr != nil:
				cancel()
				b.discardLoser(results, running)
				return nil, tcpErr
			default:
				startTCP()
			}
		case r := <-results:
			running--
			if r.err == nil {
				cancel()
				b.discardLoser(results, running)
				if r.quic {
					b.memory.forget(a.place)
				} else if reason, ok := notQUIC(quicErr, heard || len(answered) > 0); ok {
					b.memory.learn(a.place, reason, fallback)
					b.fellBack(a, reason, "")
				}
				return r.t, nil
			}
			if errors.Is(r.err, quic.ErrIdentity) || ctx.Err() != nil {
				cancel()
				b.discardLoser(results, running)
				return nil, r.err
			}
			if r.quic {
				quicErr = r.err
				startTCP()
				continue
			}
			tcpErr = r.err
			if heard {
				patience.Reset(handshakePatience)
			} else { // a round trip more, for an answer that was lost
				patience.Reset(time.Since(tcpStarted))
			}
		}
	}
	return nil, tcpErr // the kernel's TCP knows the errno best
}

// discardLoser closes what the slower of the two brings.
func (b *Broker) discardLoser(results <-chan raced, running int) {
	if running == 0 {
		return
	}
	go func() {
		for range running {
			if r := <-results; r.t != nil {
				r.t.Reset()
			}
		}
	}()
}

// dialTCP connects with the kernel's TCP, from the program's own port when it
// bound one.
func (b *Broker) dialTCP(ctx context.Context, d *dialState) (transport, error) {
	b.reapListeners(d.ns.ID(), d.remote.Port()) // when the peer is ours
	fd, err := b.tcpForDial(d)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "tcp")
	defer f.Close()
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, err
	}
	sa := encodeSockaddr(d.remote, d.sock.domain)
	if errno := rawConnect(fd, sa); errno != 0 && errno != unix.EINPROGRESS {
		return nil, errno
	}
	c, err := net.FileConn(f) // its own duplicate
	if err != nil {
		return nil, err
	}
	tcp := c.(*net.TCPConn)
	stop := context.AfterFunc(ctx, func() { tcp.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := awaitConnect(tcp); err != nil {
		newTCP(tcp).Reset()
		return nil, err
	}
	if !stop() {
		newTCP(tcp).Reset()
		return nil, ctx.Err()
	}
	t := newTCP(tcp)
	t.remote = d.remote // package net looked when it was not connected yet
	return t, nil
}

func (b *Broker) tcpForDial(d *dialState) (int, error) {
	d.sock.mu.Lock()
	hold := d.sock.hold
	d.sock.mu.Unlock()
	if hold != nil {
		hold.mu.Lock()
		hold.dialed = true
		hold.mu.Unlock()
		hold.kept.drop(hold.name) // a connection must not outlive us
		connectNow(hold.fd)
		return unix.FcntlInt(uintptr(hold.fd), unix.F_DUPFD_CLOEXEC, 0)
	}
	fd, errno := b.tcpSocket(d.sock, d.ns)
	if errno != 0 {
		return -1, errno
	}
	connectNow(fd)
	// The name that getsockname has told already; where another has the port,
	// the kernel chooses.
	rawBind(fd, encodeSockaddr(netip.AddrPortFrom(d.local.Addr(), d.port.port), d.sock.domain))
	return fd, nil
}

// connectNow undoes TCP_FASTOPEN_CONNECT (tcp(7)), with which connect waits for
// the first write: that would win any race. Without a cookie of the server's
// the kernel connects at once too.
func connectNow(fd int) { unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_FASTOPEN_CONNECT, 0) }
