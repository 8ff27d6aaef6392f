package quic

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/poemq/poemq/quic/ca"
)

// TestFleetOfOurCA: what quic/ca writes is what LoadPKI reads, from the first
// certificate to the revoked one.
func TestFleetOfOurCA(t *testing.T) {
	dir := t.TempDir()
	authority, err := ca.Init(filepath.Join(dir, "ca"), "fleet", 0)
	if err != nil {
		t.Fatal(err)
	}
	host := func(name string) *PKI {
		issued, err := authority.Issue(ca.Request{Hosts: []string{name}, IPs: []netip.Addr{netip.MustParseAddr("127.0.0.1")}})
		if err != nil {
			t.Fatal(err)
		}
		f := PKIFiles{
			Cert: filepath.Join(dir, name+".pem"), Key: filepath.Join(dir, name+"-key.pem"),
			CA: authority.CertFile(), CRL: []string{authority.CRLFile()},
		}
		if err := os.WriteFile(f.Cert, issued.CertPEM, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(f.Key, issued.KeyPEM, 0o600); err != nil {
			t.Fatal(err)
		}
		p := mustPKI(t, f)
		if w := p.Warnings(); len(w) > 0 {
			t.Errorf("%s: %q", name, w)
		}
		return p
	}
	server := host("server.example")
	e, got := listen(t, fleetHost(t, server, nil), "127.0.0.1:0", ListenOptions{})
	client := fleetHost(t, host("client.example"), nil)
	for _, expect := range []string{"", "server.example"} {
		if _, err := client.Dial(testContext(t), Peer{Remote: e.Addr(), Expect: expect}, 1, nil); err != nil {
			t.Errorf("expecting %q: %v", expect, err)
		}
		<-got
	}
	if _, err := authority.Revoke(filepath.Join(dir, "client.example.pem"), 0); err != nil {
		t.Fatal(err)
	}
	if err := server.Reload(); err != nil {
		t.Fatal(err)
	}
	_, err = client.Dial(testContext(t), Peer{Remote: e.Addr(), UID: 1}, 1, nil)
	wantIdentity(t, err, "revoked")
}
