package broker

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strconv"
	"time"

	"github.com/poemq/poemq/broker/policy"
	"github.com/poemq/poemq/quic"
	"golang.org/x/sys/unix"
)

// frontPatience is how long a front tries to reach the other side: about as
// long as the kernel's TCP does (tcp_syn_retries, tcp(7)).
const frontPatience = 127 * time.Second

// forward serves TCP.
func (f *front) forward() error {
	lc := net.ListenConfig{}
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(f.b.ctx, "tcp", f.Listen.String())
	if err != nil {
		return err
	}
	f.close = func() { l.Close() }
	f.b.wg.Go(func() { f.accept(l) })
	return nil
}

func (f *front) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		switch {
		case err == nil:
			t := newTCP(c.(*net.TCPConn))
			f.b.wg.Go(func() { f.accepted(t) })
		case errors.Is(err, net.ErrClosed):
			return
		default:
			f.b.log.Warn("a TCP connection cannot be accepted", "front", f.String(), "error", err)
			select {
			case <-time.After(100 * time.Millisecond): // no descriptors or memory left, which passes
			case <-f.b.ctx.Done():
				return
			}
		}
	}
}

// accepted leads a TCP connection to the peer. The kernel has told its program
// of success already, so a failure is a reset.
func (f *front) accepted(t *tcpTransport) {
	ctx, cancel := context.WithTimeoutCause(f.b.ctx, frontPatience, unix.ETIMEDOUT)
	peer, err := f.reachAny(ctx, t.RemoteAddr().Port())
	cancel()
	if err != nil {
		t.Reset()
		f.fails(t.RemoteAddr(), err)
		return
	}
	f.carry(t, peer)
}

// reachAny tries the addresses of the peer in turn. A peer of the wrong identity
// is not made up for by another.
func (f *front) reachAny(ctx context.Context, port uint16) (transport, error) {
	addrs, err := lookUp(ctx, f.To)
	if err != nil {
		return nil, err
	}
	var first error
	for _, addr := range addrs {
		t, err := f.b.reach(ctx, f.attempt(addr, port))
		if err == nil {
			return t, nil
		}
		if first == nil {
			first = err
		}
		if errors.Is(err, quic.ErrIdentity) || ctx.Err() != nil {
			return nil, err
		}
	}
	return nil, first
}

func (f *front) attempt(addr netip.AddrPort, port uint16) *attempt {
	uid := uint32(os.Geteuid())
	a := &attempt{
		place: place{uid: uid, remote: addr}, mode: f.Mode, port: port,
		dialTCP: func(ctx context.Context) (transport, error) { return dialPlain(ctx, addr.String()) },
	}
	if f.Mode != policy.Off {
		a.peer = f.b.onePort(quic.Peer{UID: uid, Remote: addr, Expect: f.Identity})
		a.place.ns = a.peer.NS.ID()
	}
	return a
}

// lookUp gives the addresses of host:port, of which the host may be an address
// already.
func lookUp(ctx context.Context, hostPort string) ([]netip.AddrPort, error) {
	host, service, err := net.SplitHostPort(hostPort)
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseUint(service, 10, 16)
	if err != nil {
		return nil, err
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	all := make([]netip.AddrPort, len(ips))
	for i, ip := range ips {
		all[i] = netip.AddrPortFrom(ip.Unmap(), uint16(port))
	}
	return all, nil
}

// dialPlain connects by TCP, from the broker's own network namespace.
func dialPlain(ctx context.Context, hostPort string) (transport, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", hostPort)
	if err != nil {
		return nil, err
	}
	return newTCP(c.(*net.TCPConn)), nil
}

// errnoOfDial is what the peer of a front is told of a dialPlain that failed.
func errnoOfDial(err error) unix.Errno {
	if _, ok := errors.AsType[*net.DNSError](err); ok {
		return unix.EHOSTUNREACH
	}
	return asErrno(err, unix.ETIMEDOUT)
}
