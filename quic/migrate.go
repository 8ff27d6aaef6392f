package quic

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	quicgo "github.com/quic-go/quic-go"

	"github.com/poemq/poemq/quic/netns"
)

const (
	// settle is how long the network must be quiet before connections move: a
	// new address comes with several messages, and IPv6's is not usable at once.
	settle = 100 * time.Millisecond
	// A new path is probed again every probeFor, in which quic-go sends four
	// packets; and with a pause of probeGap once it has lasted for probeFast.
	probeFor  = 2 * time.Second
	probeFast = 2 * time.Minute
	probeGap  = 3 * time.Second
)

// watch tells of changes of addresses, routes and interfaces in one network
// namespace (rtnetlink(7)).
type watch struct {
	f     *os.File
	links int // that use it; Host.mu guards it
}

// watchNet has l told of changes in its namespace until unwatch.
func (h *Host) watchNet(l *link) {
	h.mu.Lock()
	defer h.mu.Unlock()
	w := h.watches[l.key.ns]
	if w == nil {
		f, err := openRoutes(l.ns)
		if err != nil {
			h.log.Warn("changes of the network will not be seen, connections stay on their path", "err", err)
			return
		}
		w = &watch{f: f}
		if h.watches == nil {
			h.watches = make(map[uint64]*watch)
		}
		h.watches[l.key.ns] = w
		h.wg.Go(func() { h.follow(w, l.key.ns) })
	}
	w.links++
	l.watch = w
}

func (h *Host) unwatch(l *link) {
	h.mu.Lock()
	defer h.mu.Unlock()
	w := l.watch
	if w == nil {
		return
	}
	l.watch = nil
	if w.links--; w.links == 0 {
		delete(h.watches, l.key.ns)
		w.f.Close()
	}
}

func openRoutes(ns *netns.NS) (*os.File, error) {
	var fd int
	err := ns.Do(func() (err error) {
		fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("netlink socket: %w", err)
	}
	groups := uint32(unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV4_ROUTE | unix.RTMGRP_IPV6_IFADDR | unix.RTMGRP_IPV6_ROUTE)
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("netlink bind: %w", err)
	}
	return os.NewFile(uintptr(fd), "netlink"), nil
}

// follow moves the links of a namespace each time the network has changed and
// is quiet again. What the messages say is not looked at: the kernel is asked
// for the way.
func (h *Host) follow(w *watch, ns uint64) {
	buf := make([]byte, 8<<10)
	for {
		w.f.SetReadDeadline(time.Time{})
		for quiet := false; !quiet; {
			_, err := w.f.Read(buf)
			switch {
			case errors.Is(err, os.ErrDeadlineExceeded):
				quiet = true
			case err == nil, errors.Is(err, unix.ENOBUFS): // some were lost: there were some
				w.f.SetReadDeadline(time.Now().Add(settle))
			default: // closed
				return
			}
		}
		h.mu.Lock()
		for l := range h.links {
			if l.key.ns == ns && !h.closed {
				l.roam(false)
			}
		}
		h.mu.Unlock()
	}
}

// roam has the link look for its way anew, on a goroutine of its own; one that
// is looking looks once more. silent is that nothing comes on the path it has.
// The host's mu is held.
func (l *link) roam(silent bool) {
	if l.c.Load() == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if silent {
		l.silent = true
	} else {
		l.changed = true
	}
	if !l.roaming && !l.ended {
		l.roaming = true
		l.h.wg.Go(l.findWays)
	}
}

// fellSilent is called when nothing comes from a peer with living streams.
func (l *link) fellSilent() {
	l.h.mu.Lock()
	defer l.h.mu.Unlock()
	if !l.h.closed {
		l.roam(true)
	}
}

func (l *link) findWays() {
	ctx := l.c.Load().qc.Context()
	for {
		l.mu.Lock()
		silent := l.silent
		if !l.changed && !silent || l.ended {
			l.roaming = false
			l.mu.Unlock()
			return
		}
		l.changed, l.silent = false, false
		l.mu.Unlock()
		if err := l.findWay(ctx, silent); err != nil && ctx.Err() == nil {
			l.h.log.Warn("a connection could not move", "peer", l.peer.Remote, "from", l.sock.Load().LocalAddr(), "err", err)
		}
	}
}

// findWay moves the connection when the kernel's way to the peer leads from
// another address than now, or when the path is silent: QUIC's own probes come
// at doubling distances, up to a minute, and its new start on another path
// comes at once.
func (l *link) findWay(ctx context.Context, silent bool) error {
	now := udpAddrPort(l.sock.Load().LocalAddr())
	local, err := Route(l.ns, l.key.local, l.peer.Remote)
	if err != nil {
		return nil // there is none; one that comes is told of
	}
	if l.h.cfg.NoMigration || !silent && local.WithZone("") == now.Addr().WithZone("") {
		return nil
	}
	return l.move(ctx, now)
}

// move takes the connection to a new socket as soon as the peer can be reached
// from it (RFC 9000 section 9). It gives up when the network changes again, or
// when the path that it has works again.
func (l *link) move(ctx context.Context, from netip.AddrPort) error {
	old := l.sock.Load()
	heard := old.heard()
	sock, err := dialSocket(l.ns, l.key.local, l.peer.Remote)
	if err != nil {
		return err
	}
	sock.onError = old.onError
	tr := &quicgo.Transport{Conn: sock, ConnectionIDLength: 8}
	l.mu.Lock()
	if l.ended {
		l.mu.Unlock()
		return sock.Close()
	}
	l.paths = append(l.paths, path{tr, sock}) // the connection's end closes them
	l.mu.Unlock()
	p, err := l.c.Load().qc.AddPath(tr)
	if err != nil {
		sock.retire()
		return err
	}
	if !l.probe(ctx, p, func() bool { return old.heard().After(heard) }) {
		p.Close()
		sock.retire()
		return nil
	}
	if err := p.Switch(); err != nil {
		sock.retire()
		return err
	}
	sock.lastRead.CompareAndSwap(0, time.Now().UnixNano())
	l.sock.Store(sock)
	old.retire()
	l.h.log.Info("connection moved", "peer", l.peer.Remote, "from", from, "to", sock.LocalAddr())
	return nil
}

// probe tries the path until the peer answers on it, which is true; or until
// works, the network changes or the connection is over.
func (l *link) probe(ctx context.Context, p *quicgo.Path, works func() bool) bool {
	for begun := time.Now(); ; {
		probing, cancel := context.WithTimeout(ctx, probeFor)
		err := p.Probe(probing)
		cancel()
		if err == nil {
			return true
		}
		l.mu.Lock()
		changed := l.changed
		l.mu.Unlock()
		if changed || works() || ctx.Err() != nil {
			return false
		}
		if time.Since(begun) > probeFast {
			select {
			case <-ctx.Done():
			case <-time.After(probeGap):
			}
		}
	}
}

// path is what a migrated connection stands on beside its first socket. Closing
// any of its transports would end the connection.
type path struct {
	tr   *quicgo.Transport
	sock *socket
}
