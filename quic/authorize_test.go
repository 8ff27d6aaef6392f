package quic

import (
	"crypto/x509"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

func TestAllowList(t *testing.T) {
	key := "sha256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
	id := PeerIdentity{Names: []string{"a.web.example", "spiffe://td/ns/x", "192.0.2.1", "2001:db8::1"}, Key: key}
	nobody := PeerIdentity{}
	for pattern, want := range map[string]bool{
		"a.web.example": true, "A.Web.Example": true, "*.web.example": true, "*": true, key: true,
		"spiffe://td/ns/x": true, "spiffe://td/ns/*": true, "spiffe://td/*/*": true, "spiffe://td/*/x": true,
		"192.0.2.1": true, "::ffff:192.0.2.1": true, "2001:db8:0::1": true,
		"b.web.example": false, "web.example": false, "*.example": false, "*.a.web.example": false, "*.com": false,
		"spiffe://td/*": false, "spiffe://td/ns/x/*": false, "spiffe://td/ns/*/*": false, "spiffe://other/ns/*": false, "spiffe://td/ns": false,
		"192.0.2.2": false, "*.0.2.1": false, "sha256:AAAAQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=": false,
	} {
		l := AllowList{{Peers: []string{"nobody.example", pattern}}}
		if got := l.Authorize(id, addrPort("127.0.0.1:80")) == nil; got != want {
			t.Errorf("%q lets in: %v", pattern, got)
		}
		if l.Authorize(nobody, addrPort("127.0.0.1:80")) == nil {
			t.Errorf("%q lets in a peer without a certificate", pattern)
		}
		if err := l.Validate(); err != nil {
			t.Error(err)
		}
	}
	for _, odd := range []string{"spiffe://td/ns/a?b", "spiffe://td/ns/a#b", "spiffe://td/ns/", "spiffe://td/ns/..", "spiffe://td/ns/%2e"} {
		if matchName("spiffe://td/ns/*", odd) {
			t.Errorf("spiffe://td/ns/* matches %q", odd)
		}
	}
	if err := (AllowList{}).Authorize(nobody, addrPort("127.0.0.1:80")); err != nil {
		t.Errorf("an empty list: %v", err)
	}
}

func TestAllowListPorts(t *testing.T) {
	l := AllowList{
		{Peers: []string{"*"}, Ports: []PortRange{{80, 80}, {8000, 8099}}},
		{Peers: []string{"admin.example"}, Ports: []PortRange{{79, 81}, {7999, 8100}}},
	}
	for port, want := range map[uint16]bool{80: true, 8000: true, 8099: true, 79: false, 81: false, 7999: false, 8100: false, 443: true} {
		local := netip.AddrPortFrom(netip.IPv4Unspecified(), port)
		if got := l.Authorize(PeerIdentity{Names: []string{"x.example"}}, local) == nil; got != want {
			t.Errorf("port %d: %v", port, got)
		}
		if err := l.Authorize(PeerIdentity{Names: []string{"admin.example"}}, local); err != nil {
			t.Error(err)
		}
	}
}

func TestAllowListValidate(t *testing.T) {
	for name, l := range map[string]AllowList{
		"no peers":         {{}},
		"star in a label":  {{Peers: []string{"web*.example"}}},
		"star in between":  {{Peers: []string{"a.*.example"}}},
		"star in segment":  {{Peers: []string{"spiffe://td/ns*/x"}}},
		"any trust domain": {{Peers: []string{"spiffe://*/x"}}},
		"bad key":          {{Peers: []string{"sha256:xyz"}}},
		"empty":            {{Peers: []string{""}}},
		"port 0":           {{Peers: []string{"*"}, Ports: []PortRange{{0, 5}}}},
		"backwards":        {{Peers: []string{"*"}, Ports: []PortRange{{5, 4}}}},
	} {
		if err := l.Validate(); err == nil || !strings.Contains(err.Error(), "entry 1") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzPortRange(f *testing.F) {
	for _, s := range []string{"80", "8000-8099", "1-65535", "0", "5-4", "-", "1-", "+1", "65536"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParsePortRange(s)
		if err != nil {
			return
		}
		if r.First == 0 || r.First > r.Last {
			t.Errorf("%q is %v", s, r)
		}
		if again, err := ParsePortRange(r.String()); err != nil || again != r {
			t.Errorf("%q: %v, then %v, %v", s, r, again, err)
		}
	})
}

func FuzzExpect(f *testing.F) {
	for _, s := range []string{"", "pin", "host.example", "192.0.2.1", "spiffe://td/ns/x", "sha256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=", "*", "spiffe://td/*", "*.example"} {
		f.Add(s)
	}
	leaf := &x509.Certificate{DNSNames: []string{"host.example"}}
	f.Fuzz(func(t *testing.T, s string) {
		x, err := parseExpect(s, true)
		if _, err2 := parseExpect(s, false); err2 == nil && err != nil {
			t.Errorf("%q is understood without a PKI only", s)
		}
		if err == nil && x.kind == expectName && x.matches(leaf, netip.Addr{}) == nil && x.value != "host.example" {
			t.Errorf("%q matches host.example", s)
		}
		if validPattern(s) && !strings.Contains(s, "*") && !strings.HasPrefix(s, keyPrefix) && !matchName(s, s) {
			t.Errorf("%q does not match itself", s)
		}
	})
}

// TestPeerNames: nothing gets a name of another kind by looking like it.
func TestPeerNames(t *testing.T) {
	root := newCA(t, "root", "", nil, nil)
	key := newKey(t, "")
	id, _ := url.Parse("spiffe://td/x")
	for name, c := range map[string]struct {
		change func(*x509.Certificate)
		want   []string
	}{
		"all": {func(c *x509.Certificate) {
			c.Subject.CommonName = "cn.example"
			c.DNSNames, c.URIs, c.IPAddresses = []string{"a.example", "*.b.example"}, []*url.URL{id}, []net.IP{net.ParseIP("192.0.2.1"), net.ParseIP("2001:db8::1")}
		}, []string{"a.example", "*.b.example", "spiffe://td/x", "192.0.2.1", "2001:db8::1"}},
		"common name":      {bare("cn.example"), []string{"cn.example"}},
		"CN as URI":        {bare("spiffe://td/x"), nil},
		"CN as address":    {bare("192.0.2.1"), nil},
		"CN as anybody":    {bare("*"), nil},
		"DNS as URI":       {func(c *x509.Certificate) { bare("cn.example")(c); c.DNSNames = []string{"spiffe://td/x"} }, nil},
		"DNS as address":   {func(c *x509.Certificate) { bare("cn.example")(c); c.DNSNames = []string{"192.0.2.1"} }, nil},
		"CN beside e-mail": {func(c *x509.Certificate) { bare("cn.example")(c); c.EmailAddresses = []string{"a@b.example"} }, nil},
	} {
		if got := identityOf(root.leaf(key, c.change)).Names; !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// bare has a common name and nothing else.
func bare(cn string) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		c.Subject.CommonName, c.DNSNames, c.URIs, c.IPAddresses = cn, nil, nil, nil
	}
}

// TestAuthorize: the identity that was verified decides, for each stream.
func TestAuthorize(t *testing.T) {
	root := newCA(t, "root", "", nil, nil)
	pc := member(t, root)
	var log logBuffer
	var allow atomic.Pointer[AllowList]
	allow.Store(&AllowList{{Peers: []string{"spiffe://td.example/ns/*"}, Ports: []PortRange{{1, 1}}}, {Peers: []string{"other.example"}}})
	asked := make(chan PeerIdentity, 10)
	server := fleetHost(t, member(t, root), func(c *Config) {
		log.use(c)
		c.Authorize = func(id PeerIdentity, local netip.AddrPort) error {
			asked <- id
			return allow.Load().Authorize(id, local)
		}
	})
	e, err := server.Listen(nil, addrPort("127.0.0.1:0"), ListenOptions{}, func(in *Incoming) {
		if in.PeerIdentity().Key != fingerprint(pc.ownCert().Leaf) {
			t.Errorf("%+v connects", in.PeerIdentity())
		}
		in.Accept()
	})
	if err != nil {
		t.Fatal(err)
	}
	client := fleetHost(t, pc, nil)
	for range 3 {
		_, err := client.Dial(testContext(t), Peer{Remote: e.Addr()}, 1, nil)
		wantErrno(t, err, unix.ECONNREFUSED)
		id := <-asked
		if !slices.Contains(id.Names, "host.example") || id.Subject != "CN=host" {
			t.Errorf("asked for %+v", id)
		}
	}
	if l := log.lines("stream refused", "CN=host", "spiffe://td.example/ns/web", "port "); len(l) != 1 {
		t.Errorf("%d lines in the log, want 1:\n%s", len(l), log.b.String())
	}
	allow.Store(&AllowList{{Peers: []string{"spiffe://td.example/ns/*"}, Ports: []PortRange{{1, 65535}}}})
	dial(t, client, e.Addr())
}

// TestAuthorizeWithoutPKI: there is no identity, and that is said.
func TestAuthorizeWithoutPKI(t *testing.T) {
	allow := AllowList{{Peers: []string{"*"}}}
	asked := make(chan PeerIdentity, 1)
	e, err := testHost(t, func(c *Config) {
		c.Authorize = func(id PeerIdentity, local netip.AddrPort) error {
			asked <- id
			return allow.Authorize(id, local)
		}
	}).Listen(nil, addrPort("127.0.0.1:0"), ListenOptions{}, func(*Incoming) { t.Error("came through") })
	if err != nil {
		t.Fatal(err)
	}
	_, err = testHost(t, nil).Dial(testContext(t), Peer{Remote: e.Addr()}, 1, nil)
	wantErrno(t, err, unix.ECONNREFUSED)
	if id := <-asked; id.Names != nil || id.Key != "" || id.Subject != "" {
		t.Errorf("asked for %+v", id)
	}
}
