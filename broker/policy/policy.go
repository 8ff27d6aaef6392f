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
	// connect and listen hold the addresses of rules, in the order of these.
	connect, listen table
}

// table is the addresses that rules are about, of each family.
type table struct{ v4, v6 []prefix }

// prefix is a set of addresses that one rule is about. Its bits compare in a
// fraction of the time that netip.Prefix.Contains takes.
type prefix struct {
	bits, mask bits
	host       *host // of which addr must be one, then with no mask; else nil
	rule       int
}

// bits is an address in a form that is quick to compare. An IPv4 address is in
// low.
type bits struct{ high, low uint64 }

func addrBits(a netip.Addr) bits {
	if a.Is4() {
		b := a.As4()
		return bits{low: uint64(binary.BigEndian.Uint32(b[:]))}
	}
	b := a.As16()
	return bits{high: binary.BigEndian.Uint64(b[:8]), low: binary.BigEndian.Uint64(b[8:])}
}

// host is a host name and its addresses now.
type host struct {
	name  string
	addrs atomic.Pointer[[]netip.Addr]
}

func (h *host) has(a netip.Addr) bool {
	known := h.addrs.Load()
	return known != nil && slices.Contains(*known, a)
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
			p.add(&p.connect, r.To, i)
		}
		if len(r.Listen) > 0 || len(r.To) == 0 {
			p.add(&p.listen, r.Listen, i)
		}
	}
	return p
}

// add puts what a rule is about into t: everything when there are no targets.
func (p *Policy) add(t *table, targets []Target, rule int) {
	if len(targets) == 0 {
		t.both(prefix{rule: rule})
	}
	for _, one := range targets {
		if one.Host != "" {
			t.both(prefix{host: p.host(one.Host), rule: rule})
			continue
		}
		n := one.Prefix.Bits()
		entry := prefix{bits: addrBits(one.Prefix.Masked().Addr()), rule: rule}
		if one.Prefix.Addr().Is4() {
			entry.mask.low = uint64(^uint32(0) << (32 - n))
			t.v4 = append(t.v4, entry)
			continue
		}
		entry.mask = bits{^uint64(0) << max(0, 64-n), ^uint64(0) << min(64, 128-n)} // a shift by 64 gives 0
		t.v6 = append(t.v6, entry)
	}
}

func (t *table) both(p prefix) { t.v4, t.v6 = append(t.v4, p), append(t.v6, p) }

func (p *Policy) host(name string) *host {
	h := p.hosts[name]
	if h == nil {
		h = &host{name: name}
		p.hosts[name] = h
	}
	return h
}

// Rules are the rules, not to be changed.
func (p *Policy) Rules() []Rule { return p.rules }

// Decide answers q by the first rule that matches.
func (p *Policy) Decide(q Query) Decision {
	d := Decision{Mode: q.Asked}
	if i := p.find(&q); i >= 0 {
		r := &p.rules[i]
		d = Decision{
			Mode: r.Mode, Identity: r.Identity, ZeroRTT: r.ZeroRTT, ALPN: r.ALPN, Framing: r.Framing,
			Rule: i + 1, Name: r.Name, Where: r.Where,
		}
		if d.Mode == Unset {
			d.Mode = q.Asked
		}
	}
	if d.Mode == Unset {
		d.Mode = p.unset
	}
	return d
}

// AlwaysOff reports that whatever a session that asks for asked may do, its mode is
// Off.
func (p *Policy) AlwaysOff(asked Mode) bool {
	if asked == Unset {
		asked = p.unset
	}
	return asked == Off && !slices.ContainsFunc(p.rules, func(r Rule) bool { return r.Mode != Unset && r.Mode != Off })
}

// find gives the index of the first rule that matches; -1: none.
func (p *Policy) find(q *Query) int {
	m := match{q: q}
	addr := q.Addr.Addr().Unmap().WithZone("")
	t := &p.connect
	if q.Listening {
		t = &p.listen
	}
	list := t.v6
	if addr.Is4() {
		list = t.v4
	}
	a := addrBits(addr)
	for i := range list {
		e := &list[i]
		if a.high&e.mask.high != e.bits.high || a.low&e.mask.low != e.bits.low || e.host != nil && !e.host.has(addr) {
			continue
		}
		if m.is(&p.rules[e.rule]) {
			return e.rule
		}
	}
	return -1
}

// match is one query on its way through the rules.
type match struct {
	q      *Query
	cgroup string
	asked  bool // for the cgroup
}

// is reports that r, whose addresses match, matches. What is dear comes last.
func (m *match) is(r *Rule) bool {
	if len(r.Ports) > 0 && !m.portIn(r.Ports) ||
		len(r.UIDs) > 0 && !slices.Contains(r.UIDs, m.q.UID) ||
		len(r.Sessions) > 0 && !slices.Contains(r.Sessions, m.q.Session) {
		return false
	}
	return len(r.Cgroups) == 0 || m.within(r.Cgroups)
}

func (m *match) portIn(list []Ports) bool {
	port := m.q.Addr.Port()
	for _, p := range list {
		if p.First <= port && port <= p.Last {
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
