package policy

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Resolver looks host names up; *net.Resolver is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

const (
	// refresh is how often names are looked up again.
	refresh = 60 * time.Second
	// lookupTimeout bounds one look-up.
	lookupTimeout = 10 * time.Second
	// linger is how long an address counts after it was last among a name's:
	// programs keep what they looked up, and servers of names give them out in
	// turn.
	linger = 10 * time.Minute
)

// HasHosts reports that rules name hosts, so that Run has something to do.
func (p *Policy) HasHosts() bool { return len(p.hosts) > 0 }

// Inherit takes over what old knows of host names, so that a policy that takes
// the place of another matches at once.
func (p *Policy) Inherit(old *Policy) {
	if old == nil {
		return
	}
	for name, h := range p.hosts {
		if before := old.hosts[name]; before != nil {
			h.addrs.CompareAndSwap(nil, before.addrs.Load())
		}
	}
}

// Run looks the host names of rules up, at once and then every minute, until
// ctx ends. first is closed after the first time. A nil resolver is the
// system's.
func (p *Policy) Run(ctx context.Context, r Resolver, log *slog.Logger, first chan<- struct{}) {
	if r == nil {
		r = net.DefaultResolver
	}
	seen := make(map[*host]map[netip.Addr]time.Time, len(p.hosts))
	for _, h := range p.hosts {
		seen[h] = map[netip.Addr]time.Time{}
		if known := h.addrs.Load(); known != nil {
			for _, a := range *known {
				seen[h][a] = time.Now()
			}
		}
	}
	tick := time.NewTicker(refresh)
	defer tick.Stop()
	for {
		var all sync.WaitGroup
		for h, addrs := range seen {
			all.Go(func() { h.lookUp(ctx, r, addrs, log) })
		}
		all.Wait()
		if first != nil {
			close(first)
			first = nil
		}
		if len(p.hosts) == 0 {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// lookUp refreshes h's addresses; seen is when each was last among them.
func (h *host) lookUp(ctx context.Context, r Resolver, seen map[netip.Addr]time.Time, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	found, err := r.LookupNetIP(ctx, "ip", h.name)
	if err != nil || len(found) == 0 {
		if errors.Is(ctx.Err(), context.Canceled) {
			return
		}
		if h.addrs.Load() == nil {
			log.Warn("a host name of a rule has no address; the rule matches nothing by it", "host", h.name, "error", err)
		} else {
			log.Info("a host name of a rule cannot be looked up; its last addresses stay", "host", h.name, "error", err)
		}
		return
	}
	now := time.Now()
	for _, a := range found {
		seen[a.Unmap().WithZone("")] = now
	}
	addrs := make([]netip.Addr, 0, len(seen))
	for a, at := range seen {
		if now.Sub(at) > linger {
			delete(seen, a)
			continue
		}
		addrs = append(addrs, a)
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	if before := h.addrs.Load(); before == nil || !slices.Equal(*before, addrs) {
		log.Info("a host name of a rule has these addresses", "host", h.name, "addresses", addrs)
	}
	h.addrs.Store(&addrs)
}
