package broker

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/poemq/poemq/broker/api"
	"github.com/poemq/poemq/broker/policy"
	"github.com/poemq/poemq/quic"
)

// probePatience bounds each way of a probe.
const probePatience = 3 * time.Second

// Probe reaches out to remote by QUIC and by TCP, from the broker's own network
// namespace, and tells what a connection as d decides would be. By QUIC no
// program there learns of it; by TCP its server sees a connection that ends.
// Nothing is learnt or forgotten of the fallback.
func (b *Broker) Probe(ctx context.Context, remote netip.AddrPort, uid uint32, d policy.Decision) api.Probe {
	var p api.Probe
	var both sync.WaitGroup
	both.Go(func() { p.QUIC = b.probeQUIC(ctx, remote, uid, d) })
	both.Go(func() { p.TCP = probeTCP(ctx, remote) })
	both.Wait()
	p.Verdict = verdict(&p, d.Mode, b.RememberedFor(remote, uid))
	return p
}

func (b *Broker) probeQUIC(ctx context.Context, remote netip.AddrPort, uid uint32, d policy.Decision) api.ProbeResult {
	if d.Framing == policy.FramingRaw {
		return api.ProbeResult{Answer: "skipped", Error: "the rule says framing = \"raw\": only a program's own connection can tell"}
	}
	ctx, cancel := context.WithTimeout(ctx, probePatience)
	defer cancel()
	begun := time.Now()
	r, err := b.host.Reach(ctx, b.onePort(quic.Peer{UID: uid, Remote: remote, Expect: d.Identity}))
	if err != nil {
		return api.ProbeResult{Answer: "failed", Took: ms(time.Since(begun)), Error: probeError(ctx, err)}
	}
	return api.ProbeResult{
		Answer: "ok", Took: ms(r.Took), Reused: !r.Fresh, RTT: ms(r.RTT), Version: r.Version, Identity: r.Identity.Key,
	}
}

// probeError says in words that nothing came.
func probeError(ctx context.Context, err error) string {
	if ctx.Err() != nil {
		return fmt.Sprintf("no answer within %v", probePatience)
	}
	if reason, ok := notQUIC(err, false); ok {
		return reason + ": " + err.Error()
	}
	return err.Error()
}

func probeTCP(ctx context.Context, remote netip.AddrPort) api.ProbeResult {
	begun := time.Now()
	c, err := (&net.Dialer{Timeout: probePatience}).DialContext(ctx, "tcp", remote.String())
	r := api.ProbeResult{Answer: "ok", Took: ms(time.Since(begun))}
	if err != nil {
		r.Answer, r.Error = "failed", err.Error()
		return r
	}
	c.Close()
	return r
}

// RememberedFor is what is remembered of remote for a user, in whichever network
// namespace.
func (b *Broker) RememberedFor(remote netip.AddrPort, uid uint32) []api.Fallback {
	found := []api.Fallback{}
	for _, r := range b.Remembered() {
		if r.Remote == remote && r.UID == uid {
			found = append(found, r.plain())
		}
	}
	return found
}

// verdict tells what a connection made now would be.
func verdict(p *api.Probe, mode policy.Mode, known []api.Fallback) string {
	quic, tcp := p.QUIC.Answer == "ok", p.TCP.Answer == "ok"
	switch {
	case p.QUIC.Answer == "skipped":
		return "it depends on the program's own connection"
	case mode == policy.Off && tcp:
		return "TCP, as the policy says"
	case mode == policy.Off:
		return "it fails: " + p.TCP.Error
	case mode == policy.Require && quic:
		return "QUIC"
	case mode == policy.Require:
		return "it fails, since the policy requires QUIC: " + p.QUIC.Error
	case len(known) > 0 && tcp && quic:
		return fmt.Sprintf("TCP until %s, since it is remembered (%s); QUIC answers now: poemqctl fallback forget has it tried",
			known[0].Expires.Format(time.RFC3339), known[0].Reason)
	case quic:
		return "QUIC"
	case tcp:
		return "TCP, since QUIC is not to be had: " + p.QUIC.Error
	}
	return "it fails: " + p.TCP.Error
}
