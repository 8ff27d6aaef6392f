package quic

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	quicgo "github.com/quic-go/quic-go"
)

// logBuffer is a log to look into.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// lines are those with all of want in them.
func (l *logBuffer) lines(want ...string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var found []string
next:
	for line := range strings.Lines(l.b.String()) {
		for _, w := range want {
			if !strings.Contains(line, w) {
				continue next
			}
		}
		found = append(found, line)
	}
	return found
}

func (l *logBuffer) use(c *Config) { c.Log = slog.New(slog.NewTextHandler(l, nil)) }

// wantIdentity fails the test unless err is ECONNREFUSED, an ErrIdentity and
// says all of words.
func wantIdentity(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	wantErrno(t, err, unix.ECONNREFUSED)
	if !errors.Is(err, ErrIdentity) {
		t.Errorf("%v is no ErrIdentity", err)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q, want %q in it", err, w)
		}
	}
}

// TestExpect: what a client wants of a server's certificate.
func TestExpect(t *testing.T) {
	root, other := newCA(t, "root", "", nil, nil), newCA(t, "other root", "", nil, nil)
	key := newKey(t, "")
	good := root.leaf(key, nil)
	without := func(change func(*x509.Certificate)) *x509.Certificate { return root.leaf(key, change) }
	foreign, _ := url.Parse("spiffe://td.example/ns/second")
	revoked := root.leaf(key, nil)
	client := member(t, root, root.crl(revoked))
	for name, c := range map[string]struct {
		leaf   *x509.Certificate
		expect string
		want   []string // of the error; none: it connects
	}{
		"address":           {leaf: good},
		"no address":        {leaf: without(func(c *x509.Certificate) { c.IPAddresses = nil }), want: []string{"IP SANs", "for the IP address 127.0.0.1", `"CN=host"`, "host.example", "serial ", `issuer "CN=root"`, "valid from"}},
		"other address":     {leaf: without(func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 2)} }), want: []string{"127.0.0.2", "not 127.0.0.1"}},
		"name":              {leaf: good, expect: "host.example"},
		"name in capitals":  {leaf: good, expect: "Host.Example."},
		"wildcard":          {leaf: good, expect: "a.wild.example"},
		"wildcard too deep": {leaf: good, expect: "a.b.wild.example", want: []string{"not a.b.wild.example"}},
		"wrong name":        {leaf: good, expect: "web.example", want: []string{"for the name web.example", "not web.example", "right name"}},
		"common name only": {
			leaf: without(func(c *x509.Certificate) {
				c.Subject.CommonName, c.DNSNames, c.URIs, c.IPAddresses = "host.example", nil, nil, nil
			}), expect: "host.example", want: []string{"Common Name"},
		},
		"address by name":   {leaf: good, expect: "127.0.0.1"},
		"wrong address":     {leaf: good, expect: "192.0.2.1", want: []string{"not 192.0.2.1"}},
		"SPIFFE":            {leaf: good, expect: "spiffe://td.example/ns/web"},
		"wrong SPIFFE":      {leaf: good, expect: "spiffe://td.example/ns/db", want: []string{"another SPIFFE ID", "wanted: a server's certificate of our CA for spiffe://td.example/ns/db"}},
		"SPIFFE prefix":     {leaf: good, expect: "spiffe://td.example/ns", want: []string{"another SPIFFE ID"}},
		"two SPIFFE":        {leaf: without(func(c *x509.Certificate) { c.URIs = append(c.URIs, foreign) }), expect: "spiffe://td.example/ns/web", want: []string{"2 URIs"}},
		"no SPIFFE":         {leaf: without(func(c *x509.Certificate) { c.URIs = nil }), expect: "spiffe://td.example/ns/web", want: []string{"0 URIs"}},
		"key":               {leaf: good, expect: fingerprint(good)},
		"key, foreign CA":   {leaf: other.leaf(key, nil), expect: fingerprint(good)},
		"wrong key":         {leaf: good, expect: fingerprint(root.cert), want: []string{fingerprint(good), fingerprint(root.cert), "another key"}},
		"pin":               {leaf: other.leaf(key, nil), expect: "pin"},
		"wrong CA":          {leaf: other.leaf(key, nil), want: []string{"unknown authority", `issuer "CN=other root"`, "CA bundle"}},
		"expired":           {leaf: without(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }), want: []string{"expired", "renew"}},
		"not yet valid":     {leaf: without(func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) }), want: []string{"not yet valid", "clocks"}},
		"clients only":      {leaf: without(func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[1:] }), want: []string{"incompatible key usage", "both server and client"}},
		"revoked":           {leaf: revoked, want: []string{"revoked", "serial", "new certificate"}},
		"nonsense":          {leaf: good, expect: "no name", want: []string{"none of a DNS name"}},
		"nonsense of a key": {leaf: good, expect: "sha256:abc", want: []string{"no key"}},
		"nonsense SPIFFE":   {leaf: good, expect: "spiffe://td.example/ns/*", want: []string{"no SPIFFE ID"}},
	} {
		t.Run(name, func(t *testing.T) {
			server := mustPKI(t, writePKI(t, key, []*x509.Certificate{c.leaf}, []*x509.Certificate{root.cert}))
			e, got := listen(t, fleetHost(t, server, nil), "127.0.0.1:0", ListenOptions{})
			st, err := fleetHost(t, client, nil).Dial(testContext(t), Peer{Remote: e.Addr(), Expect: c.expect}, 1, nil)
			if len(c.want) > 0 {
				wantIdentity(t, err, c.want...)
			} else if err != nil {
				t.Error(err)
			} else {
				<-got
				st.Close()
			}
		})
	}
}

// TestExpectWithoutPKI: a key is demanded as it is; a name cannot be.
func TestExpectWithoutPKI(t *testing.T) {
	id := mustIdentity(t, "")
	e, _ := listen(t, testHost(t, func(c *Config) { c.Identity = id }), "127.0.0.1:0", ListenOptions{})
	client := testHost(t, nil)
	try := func(expect string) error {
		_, err := client.Dial(testContext(t), Peer{Remote: e.Addr(), Expect: expect}, 1, nil)
		return err
	}
	for _, expect := range []string{id.Fingerprint(), "pin", ""} {
		if err := try(expect); err != nil {
			t.Errorf("%q: %v", expect, err)
		}
	}
	wantIdentity(t, try(mustIdentity(t, "").Fingerprint()), "another key", id.Fingerprint())
	wantIdentity(t, try("host.example"), "host.example", "no CA to verify it with", "configure certificate, key and CA")
	wantIdentity(t, try("spiffe://td/x"), "no CA")
	client.mu.Lock()
	defer client.mu.Unlock()
	if len(client.pool) != 3 {
		t.Errorf("%d connections in the pool, want one for each way to know the peer", len(client.pool))
	}
}

// TestClientRefused: what a server wants of clients, told on both sides.
func TestClientRefused(t *testing.T) {
	root, other := newCA(t, "root", "", nil, nil), newCA(t, "other root", "", nil, nil)
	key := newKey(t, "")
	revoked := root.leaf(key, nil)
	server := member(t, root, root.crl(revoked))
	without := func(change func(*x509.Certificate)) *x509.Certificate { return root.leaf(key, change) }
	for name, c := range map[string]struct {
		leaf *x509.Certificate // nil: a host without a PKI
		says string            // the client's error
		log  string            // the server's
	}{
		"no certificate": {nil, "certificate required", "no certificate"},
		"wrong CA":       {other.leaf(key, nil), "unknown CA", "unknown authority"},
		"expired":        {without(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }), "expired", "expired"},
		"not yet valid":  {without(func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) }), "not yet valid", "not yet valid"},
		"servers only":   {without(func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[:1] }), "not a certificate for clients", "incompatible key usage"},
		"revoked":        {revoked, "revoked", "revoked"},
	} {
		t.Run(name, func(t *testing.T) {
			var serverLog, clientLog logBuffer
			e, got := listen(t, fleetHost(t, server, serverLog.use), "127.0.0.1:0", ListenOptions{})
			client := testHost(t, func(cfg *Config) {
				clientLog.use(cfg)
				if c.leaf != nil {
					cfg.PKI = mustPKI(t, writePKI(t, key, []*x509.Certificate{c.leaf}, []*x509.Certificate{root.cert}))
				}
			})
			for range 3 {
				_, err := client.Dial(testContext(t), Peer{Remote: e.Addr()}, 1, nil)
				wantIdentity(t, err, "the peer refused our certificate", c.says)
			}
			if n := len(got); n > 0 {
				t.Errorf("%d streams came through", n)
			}
			if l := serverLog.lines("client refused", "peer=127.0.0.1:", c.log); len(l) != 1 {
				t.Errorf("server's log has %d lines, want one:\n%s", len(l), serverLog.b.String())
			}
			if l := clientLog.lines("peer refuses us", e.Addr().String(), c.says); len(l) != 1 {
				t.Errorf("client's log has %d lines, want one:\n%s", len(l), clientLog.b.String())
			}
		})
	}
}

// TestConcurrentDialsRefused: dials that share the handshake are all refused.
func TestConcurrentDialsRefused(t *testing.T) {
	e, _ := listen(t, fleetHost(t, member(t, newCA(t, "root", "", nil, nil)), nil), "127.0.0.1:0", ListenOptions{})
	client := testHost(t, nil)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			_, err := client.Dial(testContext(t), Peer{Remote: e.Addr()}, 1, nil)
			wantIdentity(t, err, "certificate required")
		})
	}
	wg.Wait()
}

// TestRefusedBeforeOpen: the refusal comes between the end of the handshake and
// the stream. It must not look like a lost connection, after which a program
// goes on over TCP.
func TestRefusedBeforeOpen(t *testing.T) {
	e, _ := listen(t, fleetHost(t, member(t, newCA(t, "root", "", nil, nil)), nil), "127.0.0.1:0", ListenOptions{})
	client := testHost(t, nil)
	p := Peer{Remote: e.Addr()}
	l, _, err := client.link(p)
	if err != nil {
		t.Fatal(err)
	}
	<-l.gone
	if l.err != nil {
		err = dialError("handshake", p, l.err)
	} else {
		_, err = l.open(testContext(t), p, 1)
	}
	wantIdentity(t, client.refusedByPeer(p, err), "certificate required")
}

// TestFleetMeetsStranger: a member refuses a server outside of the fleet,
// unless it is told to pin it, and then refuses another key.
func TestFleetMeetsStranger(t *testing.T) {
	client := fleetHost(t, member(t, newCA(t, "root", "", nil, nil)), nil)
	stranger := testHost(t, nil)
	e, got := listen(t, stranger, "127.0.0.1:0", ListenOptions{})
	_, err := client.Dial(testContext(t), Peer{Remote: e.Addr()}, 1, nil)
	wantIdentity(t, err, `subject "CN=poemq"`)
	if _, err := client.Dial(testContext(t), Peer{Remote: e.Addr(), Expect: "pin"}, 1, nil); err != nil {
		t.Fatal(err)
	}
	<-got
	stranger.Close()
	listen(t, testHost(t, nil), e.Addr().String(), ListenOptions{})
	_, err = client.Dial(testContext(t), Peer{Remote: e.Addr(), Expect: "pin"}, 1, nil)
	wantIdentity(t, err, "does not match its pin")
}

// middle terminates QUIC with a key of its own, before target.
func middle(t *testing.T, cert tls.Certificate, target netip.AddrPort) netip.AddrPort {
	t.Helper()
	ln, err := quicgo.ListenAddr("127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{cert}, NextProtos: []string{ALPN}, ClientAuth: tls.RequestClientCert,
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept(t.Context())
			if err != nil {
				return
			}
			t.Errorf("the man in the middle was taken for %v", target)
			c.CloseWithError(0, "")
		}
	}()
	return udpAddrPort(ln.Addr())
}

// TestManInTheMiddle: somebody in between who has another key, even with the
// names of the real certificate, is refused with and without a PKI; and so is
// one who shows the real certificate without its key.
func TestManInTheMiddle(t *testing.T) {
	root, forged := newCA(t, "root", "", nil, nil), newCA(t, "root", "", nil, nil)
	pki := member(t, root)
	e, _ := listen(t, fleetHost(t, pki, nil), "127.0.0.1:0", ListenOptions{})
	client := fleetHost(t, member(t, root), nil)
	key := newKey(t, "")

	m := middle(t, tls.Certificate{Certificate: [][]byte{forged.leaf(key, nil).Raw, forged.cert.Raw}, PrivateKey: key}, e.Addr())
	for _, expect := range []string{"", "host.example", "spiffe://td.example/ns/web", fingerprint(pki.ownCert().Leaf)} {
		_, err := client.Dial(testContext(t), Peer{Remote: m, Expect: expect}, 1, nil)
		wantIdentity(t, err)
	}

	stolen := tls.Certificate{Certificate: pki.ownCert().Certificate, PrivateKey: key}
	m = middle(t, stolen, e.Addr())
	for _, expect := range []string{"", fingerprint(pki.ownCert().Leaf), "pin"} {
		_, err := client.Dial(testContext(t), Peer{Remote: m, Expect: expect}, 1, nil)
		wantIdentity(t, err, "did not prove")
	}
	if known, err := client.id.pins.find(Place{Peer: m}, ""); known || err != nil {
		t.Errorf("a key was pinned that nobody proved to have: %v", err)
	}
}

// TestRefusals: one line a minute and address, with a count; bounded memory.
func TestRefusals(t *testing.T) {
	var b logBuffer
	r := refusals{log: slog.New(slog.NewTextHandler(&b, nil))}
	now := time.Now()
	at := func(d time.Duration, addr string) { r.note(now.Add(d), addrPort(addr), "refused", errors.New("why")) }
	for i := range 10 {
		at(time.Duration(i)*time.Second, "192.0.2.1:1")
	}
	at(0, "192.0.2.2:1")
	at(61*time.Second, "192.0.2.1:2")
	if n := len(b.lines("peer=192.0.2.1:1 err=why times=1")); n != 1 {
		t.Errorf("%d first lines", n)
	}
	if n := len(b.lines("peer=192.0.2.1:2 err=why times=10")); n != 1 {
		t.Errorf("no line with the count:\n%s", b.b.String())
	}
	if n := len(b.lines("")); n != 3 {
		t.Errorf("%d lines, want 3", n)
	}
	servers := refusals{log: slog.New(slog.NewTextHandler(&b, nil)), servers: true}
	for _, s := range []string{"192.0.2.9:1", "192.0.2.9:2", "192.0.2.9:1"} {
		servers.note(now, addrPort(s), "refused", errors.New("why"))
	}
	if n := len(b.lines("peer=192.0.2.9:")); n != 2 {
		t.Errorf("%d lines for two servers of one address", n)
	}
	a := netip.MustParseAddr("2001:db8::")
	for range 3 * maxRefusals {
		a = a.Next()
		r.note(now.Add(62*time.Second), netip.AddrPortFrom(a, 1), "refused", errors.New("why"))
	}
	if n := len(r.said); n > maxRefusals+1 {
		t.Errorf("%d addresses remembered, want at most %d", n, maxRefusals+1)
	}
}
