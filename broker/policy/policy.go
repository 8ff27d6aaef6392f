package policy

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
)

// Query is what is asked of a Policy.
type Query struct {
	// Addr is where a connect goes, or what is listened on.
	Addr      netip.AddrPort
	Listening bool
	UID       uint32        // the program's, effective
	Cgroup    func() string // reads the program's cgroup; called at most once
	Session   string        // the session's name
	// Asked is what the session wants where no rule says otherwise.
	Asked Mode
}

// Decision is a Policy's answer.
type Decision struct {
	Mode     Mode // never Unset
	Identity string
	ZeroRTT  bool
	ALPN     string
	Framing  Framing
	// Rule is which rule decided, counted from 1; 0: none.
	Rule  int
	Name  string // the rule's
	Where string // the rule's
}

// By names the rule for logs and errors; "no rule" when there was none.
func (d Decision) By() string {
	switch {
	case d.Rule == 0:
		return "no rule"
	case d.Name == "":
		return fmt.Sprintf("rule %d, %s", d.Rule, d.Where)
	}
	return fmt.Sprintf("rule %d, %s, %q", d.Rule, d.Where, d.Name)
}

// Policy is a set of rules. It does not change; only what host names stand for
// does, while Run runs. Safe for concurrent use.
type Policy struct {
	unset Mode
	rules []Rule
	hosts map[string]*host
	// connects and listens are the rules about either, in order.
	connects, listens []prepared
}

// prepared is a rule in the form that is quick to match.
type prepared struct {
	addrs   targets
	anyAddr bool
	index   int // in rules
	*Rule
}

// targets are addresses; bits compare in a fraction of the time that
// netip.Prefix.Contains takes.
type targets struct {
	v4    []prefix4
	v6    []prefix6
	hosts []*host
}

type prefix4 struct{ bits, mask uint32 }

type prefix6 struct{ high, low, maskHigh, maskLow uint64 }

// host is a host name and its addresses now.
type host struct {
	name  string
	addrs atomic.Pointer[[]netip.Addr]
}

// New makes a Policy of rules, which it keeps. unset is the mode where neither
// a rule nor a session says one.
func New(unset Mode, rules []Rule) *Policy {
	if unset == Unset {
		unset = Prefer
	}
	p := &Policy{unset: unset, rules: rules, hosts: map[string]*host{}}
	for i := range rules {
		r := &rules[i]
		if len(r.To) > 0 || len(r.Listen) == 0 {
			p.connects = append(p.connects, prepared{p.prepare(r.To), len(r.To) == 0, i, r})
		}
		if len(r.Listen) > 0 || len(r.To) == 0 {
			p.listens = append(p.listens, prepared{p.prepare(r.Listen), len(r.Listen) == 0, i, r})
		}
	}
	return p
}

func (p *Policy) prepare(list []Target) (t targets) {
	for _, one := range list {
		if one.Host == "" {
			t.add(one.Prefix)
			continue
		}
		h := p.hosts[one.Host]
		if h == nil {
			h = &host{name: one.Host}
			p.hosts[one.Host] = h
		}
		t.hosts = append(t.hosts, h)
	}
	return t
}

func (t *targets) add(p netip.Prefix) {
	a := addrBits(p.Masked().Addr())
	if p.Addr().Is4() {
		t.v4 = append(t.v4, prefix4{uint32(a.low), ^uint32(0) << (32 - p.Bits())})
		return
	}
	// A shift by 64 or more gives 0.
	high, low := ^uint64(0)<<max(0, 64-p.Bits()), ^uint64(0)<<min(64, 128-p.Bits())
	t.v6 = append(t.v6, prefix6{a.high, a.low, high, low})
}

// bits is an address in a form that is quick to compare.
type bits struct {
	high, low uint64 // an IPv4 address is in low
	is4       bool
}

func addrBits(a netip.Addr) bits {
	if a.Is4() {
		b := a.As4()
		return bits{low: uint64(binary.BigEndian.Uint32(b[:])), is4: true}
	}
	b := a.As16()
	return bits{high: binary.BigEndian.Uint64(b[:8]), low: binary.BigEndian.Uint64(b[8:])}
}

func (m *match) among(t *targets) bool {
	if m.bits.is4 {
		for _, p := range t.v4 {
			if uint32(m.bits.low)&p.mask == p.bits {
				return true
			}
		}
	} else {
		for _, p := range t.v6 {
			if m.bits.high&p.maskHigh == p.high && m.bits.low&p.maskLow == p.low {
				return true
			}
		}
	}
	for _, h := range t.hosts {
		if known := h.addrs.Load(); known != nil && slices.Contains(*known, m.addr) {
			return true
		}
	}
	return false
}

// Rules are the rules, not to be changed.
func (p *Policy) Rules() []Rule { return p.rules }

// Decide answers q by the first rule that matches.
func (p *Policy) Decide(q Query) Decision {
	m := match{q: &q, addr: q.Addr.Addr().Unmap().WithZone(""), port: q.Addr.Port()}
	m.bits = addrBits(m.addr)
	d := Decision{Mode: q.Asked}
	rules := p.connects
	if q.Listening {
		rules = p.listens
	}
	for i := range rules {
		r := &rules[i]
		if !m.is(r) {
			continue
		}
		d.Identity, d.ZeroRTT, d.ALPN, d.Framing = r.Identity, r.ZeroRTT, r.ALPN, r.Framing
		d.Rule, d.Name, d.Where = r.index+1, r.Name, r.Where
		if r.Mode != Unset {
			d.Mode = r.Mode
		}
		break
	}
	if d.Mode == Unset {
		d.Mode = p.unset
	}
	return d
}

// match is one query on its way through the rules.
type match struct {
	q      *Query
	addr   netip.Addr
	bits   bits
	port   uint16
	cgroup string
	asked  bool // for the cgroup
}

// is reports that r matches. What is dear comes last.
func (m *match) is(r *prepared) bool {
	if !r.anyAddr && !m.among(&r.addrs) ||
		len(r.Ports) > 0 && !m.portIn(r.Ports) ||
		len(r.UIDs) > 0 && !slices.Contains(r.UIDs, m.q.UID) ||
		len(r.Sessions) > 0 && !slices.Contains(r.Sessions, m.q.Session) {
		return false
	}
	return len(r.Cgroups) == 0 || m.within(r.Cgroups)
}

func (m *match) portIn(list []Ports) bool {
	for _, p := range list {
		if p.First <= m.port && m.port <= p.Last {
			return true
		}
	}
	return false
}

func (m *match) within(list []string) bool {
	if !m.asked && m.q.Cgroup != nil {
		m.asked, m.cgroup = true, m.q.Cgroup()
	}
	if m.cgroup == "" {
		return false
	}
	for _, above := range list {
		rest, ok := strings.CutPrefix(m.cgroup, above)
		if ok && (rest == "" || rest[0] == '/' || above == "/") {
			return true
		}
	}
	return false
}
