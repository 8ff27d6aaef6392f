package policy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// targetsOf parses what a test writes.
func targetsOf(t testing.TB, list ...string) (all []Target) {
	t.Helper()
	for _, s := range list {
		one, err := ParseTarget(s)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, one)
	}
	return all
}

func TestDecide(t *testing.T) {
	p := New(Unset, []Rule{
		{Name: "db", To: targetsOf(t, "10.0.0.0/8", "::1"), Ports: []Ports{{5432, 5432}, {8000, 8100}}, Mode: Require, Identity: Pin},
		{Name: "root", UIDs: []uint32{0}, To: targetsOf(t, "192.0.2.7"), Mode: Off},
		{Name: "nginx", Cgroups: []string{"/system.slice/nginx.service"}, Mode: Off},
		{Name: "web", Sessions: []string{"web"}, Listen: targetsOf(t, "0.0.0.0/0"), Mode: Require},
		{Name: "asked", To: targetsOf(t, "198.51.100.0/24"), Identity: "db.example.com"},
	})
	for _, tc := range []struct {
		name string
		addr string
		q    Query
		rule string
		mode Mode
	}{
		{name: "nothing matches", addr: "203.0.113.1:80", mode: Prefer},
		{name: "the session's word where no rule has one", addr: "203.0.113.1:80", q: Query{Asked: Off}, mode: Off},
		{name: "address and port", addr: "10.1.2.3:5432", rule: "db", mode: Require},
		{name: "a rule stands above the session", addr: "10.1.2.3:5432", q: Query{Asked: Off}, rule: "db", mode: Require},
		{name: "v4 in v6", addr: "[::ffff:10.1.2.3]:8000", rule: "db", mode: Require},
		{name: "end of a range", addr: "10.1.2.3:8100", rule: "db", mode: Require},
		{name: "after a range", addr: "10.1.2.3:8101", mode: Prefer},
		{name: "v6", addr: "[::1]:5432", rule: "db", mode: Require},
		{name: "a rule about connects is not about listening", addr: "10.1.2.3:5432", q: Query{Listening: true}, mode: Prefer},
		{name: "uid", addr: "192.0.2.7:1", q: Query{UID: 0}, rule: "root", mode: Off},
		{name: "another uid", addr: "192.0.2.7:1", q: Query{UID: 1}, mode: Prefer},
		{name: "cgroup", addr: "192.0.2.8:1", q: Query{Cgroup: func() string { return "/system.slice/nginx.service" }}, rule: "nginx", mode: Off},
		{name: "below a cgroup", addr: "192.0.2.8:1", q: Query{Cgroup: func() string { return "/system.slice/nginx.service/worker" }}, rule: "nginx", mode: Off},
		{name: "beside a cgroup", addr: "192.0.2.8:1", q: Query{Cgroup: func() string { return "/system.slice/nginx.service2" }}, mode: Prefer},
		{name: "cgroup of a listener", addr: "192.0.2.8:1", q: Query{Listening: true, Cgroup: func() string { return "/system.slice/nginx.service" }}, rule: "nginx", mode: Off},
		{name: "session listening", addr: "0.0.0.0:80", q: Query{Listening: true, Session: "web"}, rule: "web", mode: Require},
		{name: "session connecting", addr: "203.0.113.1:80", q: Query{Session: "web"}, mode: Prefer},
		{name: "listening on v6", addr: "[::]:80", q: Query{Listening: true, Session: "web"}, mode: Prefer},
		{name: "a rule without a mode", addr: "198.51.100.1:80", q: Query{Asked: Off}, rule: "asked", mode: Off},
		{name: "zone", addr: "[::1%lo]:5432", rule: "db", mode: Require},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.q.Addr = netip.MustParseAddrPort(tc.addr)
			if tc.q.UID == 0 && tc.rule != "root" {
				tc.q.UID = 1000
			}
			d := p.Decide(tc.q)
			if d.Name != tc.rule || d.Mode != tc.mode || (d.Rule > 0) != (tc.rule != "") {
				t.Errorf("%+v, want rule %q and %v", d, tc.rule, tc.mode)
			}
		})
	}
}

func TestCgroupIsReadLateAndOnce(t *testing.T) {
	reads := 0
	q := Query{Addr: netip.MustParseAddrPort("10.0.0.1:80"), Cgroup: func() string { reads++; return "/a" }}
	New(Prefer, []Rule{{To: targetsOf(t, "10.0.0.2"), Cgroups: []string{"/a"}}}).Decide(q)
	if reads != 0 {
		t.Error("read for a rule that cannot match")
	}
	New(Prefer, []Rule{{Cgroups: []string{"/b"}}, {Cgroups: []string{"/c"}}}).Decide(q)
	if reads != 1 {
		t.Errorf("read %d times", reads)
	}
}

func TestParse(t *testing.T) {
	type parser func(string) (string, error)
	text := func(v fmt.Stringer, err error) (string, error) {
		if err != nil {
			return "", err
		}
		return v.String(), nil
	}
	target := func(s string) (string, error) { v, err := ParseTarget(s); return text(v, err) }
	ports := func(s string) (string, error) { v, err := ParsePorts(s); return text(v, err) }
	mode := func(s string) (string, error) { v, err := ParseMode(s); return text(v, err) }
	framing := func(s string) (string, error) { v, err := ParseFraming(s); return text(v, err) }
	for _, tc := range []struct {
		parse   parser
		in, out string
		err     string // a part of the error; empty: none
	}{
		{target, "10.0.0.0/8", "10.0.0.0/8", ""},
		{target, "::ffff:10.0.0.1", "10.0.0.1", ""},
		{target, "DB.Example.com.", "db.example.com", ""},
		{target, "10.0.0.1/8", "", "10.0.0.0/8 is meant, or 10.0.0.1/32"},
		{target, "10.0.0.0/33", "", "no prefix"},
		{target, "::ffff:10.0.0.0/104", "", "IPv4 prefix itself"},
		{target, "fe80::1%eth0", "", "no zones"},
		{target, "10.0.0.256", "", "no address"},
		{target, "a b", "", "no address"},
		{target, "", "", "no address"},
		{target, "-a.example", "", "no address"},
		{ports, "443", "443", ""},
		{ports, "8000-8100", "8000-8100", ""},
		{ports, "0", "", "from 1 to 65535"},
		{ports, "65536", "", "from 1 to 65535"},
		{ports, "8100-8000", "", "before it begins"},
		{ports, "-1", "", "no port"},
		{ports, "", "", "no port"},
		{mode, "require", "require", ""},
		{mode, "Require", "", "none of"},
		{framing, "raw", "raw", ""},
		{framing, "", "", "none of"},
		{ParseCgroup, "/a/b", "/a/b", ""},
		{ParseCgroup, "a/b", "", "no path"},
		{ParseCgroup, "/a/", "", "no path"},
		{ParseIdentity, "pin", "pin", ""},
		{ParseIdentity, "sha256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "sha256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", ""},
		{ParseIdentity, "sha256:AAAA", "", "32 octets"},
		{ParseIdentity, "spiffe://example.com/web", "spiffe://example.com/web", ""},
		{ParseIdentity, "spiffe:///web", "", "no SPIFFE"},
		{ParseIdentity, "spiffe://u@example.com/web", "", "no SPIFFE"},
		{ParseIdentity, "https://example.com", "", "none of"},
		{ParseIdentity, "db.example.com", "db.example.com", ""},
		{ParseALPN, strings.Repeat("a", 256), "", "255"},
	} {
		out, err := tc.parse(tc.in)
		switch {
		case tc.err == "" && (err != nil || out != tc.out):
			t.Errorf("%q: %q, %v, want %q", tc.in, out, err, tc.out)
		case tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)):
			t.Errorf("%q: %v, want an error with %q", tc.in, err, tc.err)
		}
	}
}

func TestCheck(t *testing.T) {
	for want, r := range map[string]Rule{
		"needs alpn":       {Framing: FramingRaw},
		"goes with":        {ALPN: "h3"},
		"kernel's TCP":     {Mode: Off, ZeroRTT: true},
		"takes addresses":  {Listen: []Target{{Host: "a"}}},
		"has no identity,": {Mode: Off, Identity: Pin},
	} {
		if err := r.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want an error with %q", r, err, want)
		}
	}
	if err := (&Rule{Framing: FramingRaw, ALPN: "h3", Mode: Require}).Check(); err != nil {
		t.Error(err)
	}
}

// names is a Resolver.
type names struct {
	mu sync.Mutex // guards m
	m  map[string][]netip.Addr
}

func (n *names) LookupNetIP(_ context.Context, _, name string) ([]netip.Addr, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.m[name]) == 0 {
		return nil, errors.New("no such host")
	}
	return n.m[name], nil
}

// set gives a name its addresses, or none.
func (n *names) set(name string, addrs ...netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.m[name] = addrs
}

// TestHosts follows a host name through its life: unknown, known, moved, lost.
func TestHosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old, moved := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
		dns := &names{m: map[string][]netip.Addr{}}
		p := New(Prefer, []Rule{{To: targetsOf(t, "db.example.com"), Mode: Require}})
		mode := func(p *Policy, a netip.Addr) Mode {
			return p.Decide(Query{Addr: netip.AddrPortFrom(a, 80)}).Mode
		}
		var said strings.Builder
		ctx, cancel := context.WithCancel(t.Context())
		first := make(chan struct{})
		go p.Run(ctx, dns, slog.New(slog.NewTextHandler(&said, nil)), first)
		<-first
		synctest.Wait()
		if mode(p, old) != Prefer || !strings.Contains(said.String(), "host=db.example.com") {
			t.Errorf("an unknown name matches, or nothing is said: %s", said.String())
		}
		dns.set("db.example.com", netip.MustParseAddr("::ffff:192.0.2.1"))
		time.Sleep(refresh + time.Second)
		if mode(p, old) != Require || mode(p, moved) != Prefer {
			t.Error("a known name does not match, or matches too much")
		}
		dns.set("db.example.com", moved)
		time.Sleep(refresh)
		if mode(p, old) != Require || mode(p, moved) != Require {
			t.Error("a program may still have the address that it looked up")
		}
		time.Sleep(linger + refresh)
		if mode(p, old) != Prefer || mode(p, moved) != Require {
			t.Error("an address of long ago still matches")
		}
		dns.set("db.example.com")
		time.Sleep(2 * linger)
		if mode(p, moved) != Require {
			t.Error("a name that cannot be looked up lost its addresses")
		}
		cancel()
		synctest.Wait()

		next := New(Prefer, []Rule{{To: targetsOf(t, "db.example.com"), Mode: Off}})
		next.Inherit(p)
		if mode(next, moved) != Off {
			t.Error("the next policy begins without the addresses of this one")
		}
	})
}

func FuzzParseTarget(f *testing.F) {
	for _, s := range []string{"10.0.0.0/8", "::1", "db.example.com", "fe80::1%1", "::ffff:1.2.3.4/120"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		one, err := ParseTarget(s)
		if err != nil {
			return
		}
		again, err := ParseTarget(one.String())
		if err != nil || again != one {
			t.Errorf("%q is %v, which is %v, %v", s, one, again, err)
		}
	})
}

// FuzzPrefix compares a match by bits with that of net/netip.
func FuzzPrefix(f *testing.F) {
	f.Add([]byte{10, 0, 0, 0}, uint8(8), []byte{10, 1, 2, 3})
	f.Add(netip.IPv6Loopback().AsSlice(), uint8(64), netip.IPv6Loopback().AsSlice())
	f.Fuzz(func(t *testing.T, prefix []byte, n uint8, addr []byte) {
		a, ok1 := netip.AddrFromSlice(prefix)
		b, ok2 := netip.AddrFromSlice(addr)
		p, err := a.Unmap().Prefix(int(n))
		if !ok1 || !ok2 || err != nil {
			return
		}
		d := New(Prefer, []Rule{{To: []Target{{Prefix: p}}, Mode: Off}}).Decide(Query{Addr: netip.AddrPortFrom(b, 1)})
		if in := p.Contains(b.Unmap()); in != (d.Mode == Off) {
			t.Errorf("%v in %v: %+v", b, p, d)
		}
	})
}

func FuzzParsePorts(f *testing.F) {
	f.Add("1-2", uint16(1))
	f.Fuzz(func(t *testing.T, s string, port uint16) {
		ports, err := ParsePorts(s)
		if err != nil {
			return
		}
		again, err := ParsePorts(ports.String())
		if err != nil || again != ports {
			t.Errorf("%q is %v, which is %v, %v", s, ports, again, err)
		}
		d := New(Prefer, []Rule{{Ports: []Ports{ports}, Mode: Off}}).Decide(Query{Addr: netip.AddrPortFrom(netip.IPv6Loopback(), port)})
		if in := ports.First <= port && port <= ports.Last; in != (d.Mode == Off) {
			t.Errorf("%d in %v: %+v", port, ports, d)
		}
	})
}

// BenchmarkDecide asks 100 rules, the last of which matches.
func BenchmarkDecide(b *testing.B) {
	var rules []Rule
	for i := range 99 {
		rules = append(rules, Rule{To: targetsOf(b, fmt.Sprintf("10.%d.0.0/16", i), fmt.Sprintf("2001:db8:%d::/48", i))})
	}
	p := New(Prefer, append(rules, Rule{To: targetsOf(b, "192.0.2.0/24"), Mode: Require}))
	q := Query{Addr: netip.MustParseAddrPort("192.0.2.1:443"), UID: 1000, Session: "web"}
	b.ReportAllocs()
	for b.Loop() {
		if p.Decide(q).Mode != Require {
			b.Fatal("another rule")
		}
	}
}

func TestAlwaysOff(t *testing.T) {
	for _, c := range []struct {
		unset, asked Mode
		rules        []Rule
		want         bool
	}{
		{unset: Off, want: true},
		{unset: Off, asked: Prefer},
		{asked: Off, want: true},
		{},
		{asked: Off, rules: []Rule{{Mode: Off}, {ZeroRTT: true}}, want: true},
		{asked: Off, rules: []Rule{{Mode: Off}, {To: targetsOf(t, "192.0.2.1"), Mode: Require}}},
	} {
		if got := New(c.unset, c.rules).AlwaysOff(c.asked); got != c.want {
			t.Errorf("default %v, asked %v, %v: %v", c.unset, c.asked, c.rules, got)
		}
	}
}
