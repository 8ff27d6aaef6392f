package quic

import (
	"log/slog"
	"net/netip"
	"sync"
	"time"
)

// refusalEvery is how often one peer gets a line in the log.
const refusalEvery = time.Minute

// maxRefusals bounds the peers remembered. More within a minute share one line.
const maxRefusals = 1024

// refusals logs what was refused, at most one line a minute for each peer,
// whatever it does. A client is its address, whichever port it comes from; a
// server is address and port.
type refusals struct {
	log     *slog.Logger
	servers bool // the peers are servers

	mu   sync.Mutex // guards what follows
	said map[netip.AddrPort]*refusal
}

type refusal struct {
	last time.Time
	more int // since last
}

// note logs that peer was refused, or counts it. now is the time.
func (r *refusals) note(now time.Time, peer netip.AddrPort, msg string, err error) {
	who := peer
	if !r.servers {
		who = netip.AddrPortFrom(peer.Addr(), 0)
	}
	if times := r.due(now, who); times > 0 {
		r.log.Warn(msg, "peer", peer, "err", err, "times", times)
	}
}

// due is how many refusals the line that is due now stands for; 0: none is.
func (r *refusals) due(now time.Time, who netip.AddrPort) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.said[who]
	if e == nil && len(r.said) >= maxRefusals {
		r.forget(now)
		if len(r.said) >= maxRefusals {
			who = netip.AddrPort{}
			e = r.said[who]
		}
	}
	if e == nil {
		if r.said == nil {
			r.said = map[netip.AddrPort]*refusal{}
		}
		r.said[who] = &refusal{last: now}
		return 1
	}
	e.more++
	if now.Sub(e.last) < refusalEvery {
		return 0
	}
	times := e.more
	e.last, e.more = now, 0
	return times
}

// forget drops peers whose minute is over. mu is held.
func (r *refusals) forget(now time.Time) {
	for who, e := range r.said {
		if now.Sub(e.last) >= refusalEvery {
			delete(r.said, who)
		}
	}
}
