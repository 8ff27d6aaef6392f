package quic

import (
	"context"
	"time"

	quicgo "github.com/quic-go/quic-go"
)

// A client's connection lives through changes of the network and outages.
//
// quic-go's own way to another path is AddPath, Probe, Switch. It does not get
// there when the old path is dead and data is under way: a probe is sent only
// while the congestion window has room, acknowledgements that would make room
// do not come, and QUIC's timer (PTO) is up to a minute away. When the path is
// whole again that timer is what both sides wait for.
//
// So the UDP socket is replaced under quic-go (socket.rebind): the server sees
// a client whose NAT has another port, validates the address (RFC 9000 section
// 9), and begins anew there: what was under way counts as lost and is sent
// again, and the congestion window is fresh. The client's own sender is begun
// anew by Switch to a path that was validated long before, while all was well,
// and that leads through the same socket (sidePath). That may be done any
// number of times, and is done until the server acknowledges something.
const (
	// sideAfter is how old a connection is when its side path is validated.
	sideAfter = time.Second
	// sideProbe is how long quic-go probes that by itself, at doubling
	// distances, before it is begun again.
	sideProbe = 5 * time.Second
	// A dead path is tried every tryEvery, or two round trips where that is
	// more; after tryFast and tryLong with pauses between. A try sends at most
	// a new connection's congestion window, 40 kB.
	tryEvery  = time.Second
	tryFast   = 30 * time.Second
	tryPause  = time.Second
	tryLong   = 2 * time.Minute
	longPause = 4 * time.Second
	// confirmedBy is how old a connection is when its handshake is confirmed.
	confirmedBy = 5 * time.Second
	// againAfter is how long after a packet from the server its
	// acknowledgement is waited for: its PATH_CHALLENGE comes first, and the
	// answer to that waits for room in the congestion window, too. It doubles
	// within a try.
	againAfter = 20 * time.Millisecond
)

// roam has the link look for its way anew, on a goroutine of its own; one that
// is looking looks once more. silent is that nothing comes on the path it has.
// The host's mu is held.
func (l *link) roam(silent bool) {
	if l.c.Load() == nil || l.h.cfg.NoMigration {
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
			l.h.log.Warn("a connection could not move", "peer", l.peer.Remote, "from", l.sock.LocalAddr(), "err", err)
		}
	}
}

// findWay moves the connection when the kernel's way to the peer leads from
// another address than now; and when the path is silent, as soon as the peer
// is heard on it: the server's sender begins anew only for a client that moved.
//
// A path that is as it was is not left before the handshake is confirmed (RFC
// 9000 section 9). Until then the client's only timer is that of its Handshake
// packets, which the server ignores by then: with a full congestion window the
// server would hear nothing from the new port and go on answering to the old
// one. Staying, the client gets what the server sends again.
func (l *link) findWay(ctx context.Context, silent bool) error {
	local, err := Route(l.ns, l.key.local, l.peer.Remote)
	if err != nil {
		l.unproven = true
		return nil // there is none; one that comes is told of
	}
	now := udpAddrPort(l.sock.LocalAddr())
	if local.WithZone("") == now.Addr().WithZone("") {
		if !silent && !l.unproven && time.Since(l.sock.heard()) < l.h.cfg.KeepAlive {
			return nil
		}
		if !l.confirmed() {
			l.giveUpUnconfirmed()
			return nil // asked again at each tick of silence
		}
		l.h.log.Debug("path is silent", "peer", l.peer.Remote, "from", now)
		if !l.try(ctx, false) {
			return nil
		}
	}
	fd, err := dialUDP(l.ns, l.key.local, l.peer.Remote)
	if err != nil {
		return err
	}
	if err := l.sock.rebind(fd); err != nil {
		return err
	}
	l.unproven = true
	defer l.sock.forget()
	if l.try(ctx, true) {
		l.unproven = false
		l.mu.Lock()
		l.silent = false // said of the time before
		l.mu.Unlock()
		l.h.log.Info("connection moved", "peer", l.peer.Remote, "from", now, "to", l.sock.LocalAddr())
	}
	return nil
}

// try sends until the peer is heard, or until it acknowledges something. It
// gives up, which is false, when the network changes, to be called again then,
// and when the connection is over.
func (l *link) try(ctx context.Context, acknowledged bool) bool {
	select {
	case <-l.sock.news: // of before
	default:
	}
	every := max(tryEvery, 2*l.rtt().smoothed)
	for begun := time.Now(); ; {
		over := time.NewTimer(every)
		heard, acked := l.tryOnce(ctx, over.C)
		over.Stop()
		if acked || heard && !acknowledged {
			return true
		}
		if l.rest(ctx, time.Since(begun)) && !acknowledged {
			return true
		}
		l.mu.Lock()
		giveUp := l.changed || l.ended
		l.mu.Unlock()
		if !l.confirmed() {
			l.giveUpUnconfirmed()
		}
		if giveUp || ctx.Err() != nil {
			return false
		}
	}
}

// rest is the pause after a try, when there were tries for so long. It ends,
// true, when the peer is heard.
func (l *link) rest(ctx context.Context, tried time.Duration) bool {
	d := tryPause
	if tried < tryFast {
		return false
	} else if tried > tryLong {
		d = longPause
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	case <-l.sock.news:
		return true
	}
	return false
}

// tryOnce sends, and again after each packet that comes, until something is
// acknowledged or over.
func (l *link) tryOnce(ctx context.Context, over <-chan time.Time) (heard, acked bool) {
	l.tries.Add(1)
	before := l.rtt()
	l.sendAnew()
	for wait := againAfter; ; wait *= 2 {
		select {
		case <-over:
			return heard, false
		case <-ctx.Done():
			return heard, false
		case <-l.sock.news:
			heard = true
		}
		select {
		case <-over:
			return true, l.measured(before)
		case <-ctx.Done():
			return true, false
		case <-time.After(wait):
		}
		if l.measured(before) {
			return true, true
		}
		l.sendAnew()
	}
}

// sendAnew has quic-go's sender forget what it knows of the path and send all
// that is not acknowledged, and a keepalive, for there may be nothing.
func (l *link) sendAnew() {
	c := l.c.Load()
	if side := l.side.Load(); side != nil {
		if err := side.path.Switch(); err != nil {
			l.h.log.Debug("sending anew", "peer", l.peer.Remote, "err", err)
		}
	}
	c.mu.Lock()
	c.sendControl(msgKeepAlive, make([]byte, keepAliveSize))
	c.mu.Unlock()
	// Switch is carried out when quic-go next has something to do. Closing a
	// path, be it one that never was used, is.
	if side := l.side.Load(); side != nil {
		if p, err := c.qc.AddPath(side.tr); err == nil {
			p.Close()
		}
	}
}

// rtt is all that quic-go tells of the round trip.
type rtt struct{ min, latest, smoothed, deviation time.Duration }

func (l *link) rtt() rtt {
	s := l.c.Load().qc.ConnectionStats()
	return rtt{s.MinRTT, s.LatestRTT, s.SmoothedRTT, s.MeanDeviation}
}

// measured tells whether an acknowledgement came since before: sending anew
// forgets the round trip, with a deviation of 0, and the first acknowledgement
// measures it.
func (l *link) measured(before rtt) bool {
	now := l.rtt()
	return now.deviation != 0 && now != before
}

// confirmed tells that the handshake is, which quic-go says only by what it
// does: it probes no other path before. It may be true unnoticed as long as the
// congestion window is full; moving would not help then.
func (l *link) confirmed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.begun != nil && l.begun.probed.Load()
}

// giveUpUnconfirmed ends a connection that fell silent in its first round trips
// and stayed so for four handshake timeouts, 2 min. It may be that a NAT took
// another port: what the client may still send does not tell the server, so both
// would wait for MaxIdle. Silence that began later than confirmedBy is another
// matter: HANDSHAKE_DONE is repeated until it has arrived.
func (l *link) giveUpUnconfirmed() {
	c, heard := l.c.Load(), l.sock.heard()
	if limit := 4 * l.h.cfg.HandshakeTimeout; heard.Sub(c.since) > confirmedBy || time.Since(heard) < limit {
		return
	}
	c.mu.Lock()
	again := c.ctl.lost
	c.ctl.lost = true
	c.mu.Unlock()
	if again {
		return
	}
	l.h.log.Info("peer is gone: the handshake was not confirmed in time", "peer", c.remote, "local", l.sock.LocalAddr(), "silent", time.Since(heard).Round(time.Second))
	c.close(connLost, "the handshake was not confirmed in time")
}

// addSide validates the connection's side path, for when it will be needed.
func (l *link) addSide(ctx context.Context) {
	if l.h.cfg.NoMigration || !pause(ctx, sideAfter) {
		return
	}
	side := &sidePath{main: l.sock, over: make(chan struct{})}
	for ; ctx.Err() == nil; pause(ctx, sideProbe) {
		fd, err := dialUDP(l.ns, l.key.local, l.peer.Remote)
		if err == nil && side.socket == nil {
			if err = l.beginSide(side, fd); side.path == nil {
				l.h.log.Debug("no side path", "peer", l.peer.Remote, "err", err)
				return
			}
		} else if err == nil {
			err = side.rebind(fd)
		}
		if err != nil {
			continue
		}
		probing, cancel := context.WithTimeout(ctx, sideProbe)
		err = side.path.Probe(probing)
		cancel()
		if err == nil {
			side.retire()
			l.side.Store(side)
			return
		}
	}
}

// beginSide makes the path from the UDP socket fd, which it takes over.
func (l *link) beginSide(side *sidePath, fd int) (err error) {
	if side.socket, err = newSocket(fd, true); err != nil {
		closeFD(fd)
		return err
	}
	side.tr = &quicgo.Transport{Conn: side, ConnectionIDLength: 8}
	l.mu.Lock()
	ended := l.ended
	if !ended {
		l.begun = side // the connection's end closes it
	}
	l.mu.Unlock()
	if ended {
		return side.socket.Close()
	}
	side.path, err = l.c.Load().qc.AddPath(side.tr)
	return err
}

// pause is false when ctx ended meanwhile.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
