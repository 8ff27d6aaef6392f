package broker

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/poemq/poemq/broker/policy"
	"github.com/poemq/poemq/quic"
)

// ruling is the policy in force, and what looks after its host names.
type ruling struct {
	mu   sync.Mutex         // held while it is changed
	stop context.CancelFunc // ends the look-ups of the policy in force
}

// firstLookup is how long a policy waits for the addresses of its host names
// before it comes into force.
const firstLookup = 2 * time.Second

// SetPolicy puts p in force for the connects and listens to come. When rules
// name hosts, it waits for their addresses first, for up to two seconds.
func (b *Broker) SetPolicy(p *policy.Policy) {
	b.ruling.mu.Lock()
	defer b.ruling.mu.Unlock()
	p.Inherit(b.policy.Load())
	if b.ruling.stop != nil {
		b.ruling.stop()
	}
	if !p.HasHosts() {
		b.policy.Store(p)
		return
	}
	ctx, cancel := context.WithCancel(b.ctx)
	b.ruling.stop = cancel
	known := make(chan struct{})
	b.wg.Go(func() { p.Run(ctx, nil, b.log, known) })
	patience := time.NewTimer(firstLookup)
	defer patience.Stop()
	select {
	case <-known:
	case <-patience.C:
	case <-b.ctx.Done():
	}
	b.policy.Store(p)
}

// Why is what the policy in force decides about q.
func (b *Broker) Why(q policy.Query) policy.Decision { return b.policy.Load().Decide(q) }

// decide asks the policy in force about a call of r's program.
func (s *Session) decide(r Request, q policy.Query) policy.Decision {
	q.Session, q.Asked = s.name, s.asked
	q.Cgroup = func() string {
		name, err := cgroupOf(r.TID())
		if err != nil {
			s.log.Warn("a program's cgroup is not known; rules about cgroups do not match it", "tid", r.TID(), "error", err)
		}
		return name
	}
	return s.b.Why(q)
}

// cgroupOf is the path of a task's cgroup: that of version 2 (cgroups(7)), or
// with version 1 systemd's.
func cgroupOf(tid int) (string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", tid))
	if err != nil {
		return "", err
	}
	return cgroupIn(b), nil
}

// cgroupIn finds it in the text of /proc/TID/cgroup.
func cgroupIn(b []byte) string {
	found := ""
	for line := range bytes.Lines(b) {
		id, rest, _ := strings.Cut(strings.TrimSuffix(string(line), "\n"), ":")
		controllers, path, _ := strings.Cut(rest, ":")
		switch {
		case id == "0" && (found == "" || path != "/"):
			found = path
		case controllers == "name=systemd" && (found == "" || found == "/"):
			found = path
		}
	}
	return found
}

// peer is whom d connects to by QUIC.
func (d *dialState) peer() quic.Peer {
	p := quic.Peer{NS: d.ns, UID: d.uid, Local: d.bindTo, Remote: d.remote, Expect: d.decision.Identity, ZeroRTT: d.decision.ZeroRTT}
	if d.decision.Framing == policy.FramingRaw {
		p.Raw, p.ALPN = true, d.decision.ALPN
		return p // such a peer knows no port in a header
	}
	return d.sock.b.onePort(p)
}

// onePort has p met at the one UDP port of all hosts, if there is one.
func (b *Broker) onePort(p quic.Peer) quic.Peer {
	if b.udpPort != 0 {
		p.Remote, p.ServerPort = netip.AddrPortFrom(p.Remote.Addr(), b.udpPort), p.Remote.Port()
	}
	return p
}
