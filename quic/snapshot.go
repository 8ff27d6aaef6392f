package quic

import (
	"net/netip"
	"time"
)

// ConnInfo is a connection as an operator sees it.
type ConnInfo struct {
	ID          uint64         // of this host's connections, from 1
	Client      bool           // we dialed it
	Peer, Local netip.AddrPort // UDP
	UID         uint32         // of the programs that share it; a client's only
	NS          uint64         // inode number of the network namespace
	Streams     int            // living
	Total       uint64         // streams there ever were
	Stats       Stats
	Since       time.Time
	Age         time.Duration
	// Handshaking: 0-RTT data may be under way, nothing is proved yet. What
	// follows is known later.
	Handshaking bool
	Resumed     bool // from a kept session
	ZeroRTT     bool // 0-RTT data was accepted
	Version     string
	Identity    PeerIdentity // what is verified of the peer
	Qlog        string       // the file that a trace is written to; "": none
	Draining    bool         // it takes no new streams
}

// Snapshot lists the connections that are open now, in no order.
func (h *Host) Snapshot() []ConnInfo {
	h.mu.Lock()
	links, ports := h.snapshot()
	h.mu.Unlock()
	now := time.Now()
	var all []ConnInfo
	for _, l := range links {
		if c := l.c.Load(); c != nil {
			i := c.info(now)
			i.Client, i.UID, i.NS = true, l.key.uid, l.key.ns
			all = append(all, i)
		}
	}
	for _, p := range ports {
		p.mu.Lock()
		for c := range p.conns {
			i := c.info(now)
			i.NS = p.key.ns
			all = append(all, i)
		}
		p.mu.Unlock()
	}
	return all
}

func (c *conn) info(now time.Time) ConnInfo {
	i := ConnInfo{
		Peer: c.remote, Local: c.local, Stats: c.stats(), Since: c.since, Age: now.Sub(c.since),
		Handshaking: !handshakeOver(c.qc), ID: c.id, Qlog: c.tracedTo(),
	}
	i.Streams = i.Stats.Streams
	if !i.Handshaking { // before, quic-go may be writing what this reads
		cs := c.qc.ConnectionState()
		i.Resumed, i.ZeroRTT, i.Version = cs.TLS.DidResume, cs.Used0RTT, cs.Version.String()
		i.Identity = c.identity()
	}
	c.mu.Lock()
	i.Total, i.Draining = c.total, c.draining
	c.mu.Unlock()
	return i
}
