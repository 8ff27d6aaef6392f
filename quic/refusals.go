package quic

import (
	"log/slog"
	"net/netip"
	"sync"
	"time"
)

// refusalEvery is how often one peer address gets a line in the log.
const refusalEvery = time.Minute

// maxRefusals bounds the addresses remembered. More within a minute share one
// line.
const maxRefusals = 1024

// refusals logs what was refused, at most one line a minute for each peer
// address, whatever a peer does.
type refusals struct {
	log *slog.Logger

	mu   sync.Mutex // guards what follows
	said map[netip.Addr]*refusal
}

type refusal struct {
	last time.Time
	more int // since last
}

// note logs that peer was refused, or counts it. now is the time.
func (r *refusals) note(now time.Time, peer netip.AddrPort, msg string, err error) {
	times := r.due(now, peer.Addr())
	if times > 0 {
		r.log.Warn(msg, "peer", peer, "err", err, "times", times)
	}
}

// due is how many refusals the line that is due now stands for; 0: none is.
func (r *refusals) due(now time.Time, addr netip.Addr) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.said[addr]
	if e == nil && len(r.said) >= maxRefusals {
		r.forget(now)
		if len(r.said) >= maxRefusals {
			addr = netip.Addr{}
			e = r.said[addr]
		}
	}
	if e == nil {
		if r.said == nil {
			r.said = map[netip.Addr]*refusal{}
		}
		r.said[addr] = &refusal{last: now}
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

// forget drops addresses whose minute is over. mu is held.
func (r *refusals) forget(now time.Time) {
	for addr, e := range r.said {
		if now.Sub(e.last) >= refusalEvery {
			delete(r.said, addr)
		}
	}
}
