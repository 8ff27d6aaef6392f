package quic

import (
	"errors"
	"fmt"
	"net/netip"
)

// ErrNoConn: there is no connection of that number, or no more.
var ErrNoConn = errors.New("no such connection")

// Traced is what came of Trace.
type Traced struct {
	Peer netip.AddrPort
	Dir  string // that files are made in
	File string // that was or is written for this very connection; "": none
	// Next is that it cannot be traced any more, for quic-go decides that at the
	// beginning: it takes no new streams, and the connection that does is traced.
	Next bool
}

// Trace turns the qlog file of one connection (ConnInfo.ID) on or off, and of
// those with the same peer that come after it. Errors: ErrNoConn; that there is
// no directory.
func (h *Host) Trace(id uint64, on bool) (Traced, error) {
	c, client := h.find(id)
	if c == nil {
		return Traced{}, fmt.Errorf("connection %d: %w", id, ErrNoConn)
	}
	q, key := h.qlog, tracedPeer(client, c.remote)
	file := c.tracedTo()
	q.mu.Lock()
	t := Traced{Peer: c.remote, Dir: q.dir, File: file}
	if t.Dir == "" {
		t.Dir = q.unset
	}
	switch {
	case !on:
		delete(q.wanted, key)
	case t.Dir == "":
		q.mu.Unlock()
		return t, errors.New("no directory for qlog files: set [qlog] dir")
	default:
		q.wanted[key] = struct{}{}
	}
	q.mu.Unlock()
	switch {
	case !on && c.trace != nil:
		if f := c.trace.file.Load(); f != nil {
			f.stop()
		}
	case on && file == "":
		t.Next = true
		c.goAway()
	}
	return t, nil
}

// dirFor is the directory for the file of a connection; "": none. mu is held.
func (q *qlogs) dirFor(client bool, peer netip.AddrPort) string {
	if q.dir != "" {
		return q.dir
	}
	if _, ok := q.wanted[tracedPeer(client, peer)]; ok {
		return q.unset
	}
	return ""
}

// tracedPeer is the peer as its next connection shows it: a client comes from
// another port.
func tracedPeer(client bool, remote netip.AddrPort) netip.AddrPort {
	if client {
		return remote
	}
	return netip.AddrPortFrom(remote.Addr(), 0)
}

// tracedTo is the file that is written now.
func (c *conn) tracedTo() string {
	if c.trace == nil {
		return ""
	}
	if f := c.trace.file.Load(); f != nil && !f.full.Load() {
		return f.f.Name()
	}
	return ""
}

// stop ends the file before its connection does.
func (f *qlogFile) stop() {
	f.full.Store(true)
	_ = f.Close() // it has no errors of its own
}

// find looks a connection up, and tells whether we dialed it.
func (h *Host) find(id uint64) (c *conn, client bool) {
	h.mu.Lock()
	links, ports := h.snapshot()
	h.mu.Unlock()
	for _, l := range links {
		if c := l.c.Load(); c != nil && c.id == id {
			return c, true
		}
	}
	for _, p := range ports {
		p.mu.Lock()
		for c := range p.conns {
			if c.id == id {
				p.mu.Unlock()
				return c, false
			}
		}
		p.mu.Unlock()
	}
	return nil, false
}
