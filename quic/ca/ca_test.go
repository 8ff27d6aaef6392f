package ca

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func mustInit(t *testing.T) *CA {
	t.Helper()
	c, err := Init(filepath.Join(t.TempDir(), "ca"), "Test CA", 0)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func mustIssue(t *testing.T, c *CA, r Request) (*Issued, *x509.Certificate) {
	t.Helper()
	i, err := c.Issue(r)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(i.CertPEM, i.KeyPEM)
	if err != nil {
		t.Fatal(err)
	}
	return i, pair.Leaf
}

// wantDays fails unless end is so many days from now, within an hour.
func wantDays(t *testing.T, end time.Time, days int) {
	t.Helper()
	if d := time.Until(end) - time.Duration(days)*24*time.Hour; d.Abs() > time.Hour {
		t.Errorf("valid until %v, want %d days from now", end, days)
	}
}

func TestInit(t *testing.T) {
	c := mustInit(t)
	wantDays(t, c.cert.NotAfter, CADays)
	for path, mode := range map[string]os.FileMode{c.dir: 0o700, c.path(keyFile): 0o600, c.path(certFile): 0o644, c.path(crlFile): 0o644, c.path(indexFile): 0o600} {
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v, want %v", path, st.Mode(), err, mode)
		}
	}
	again, err := Open(c.dir)
	if err != nil {
		t.Fatal(err)
	}
	if !again.cert.Equal(c.cert) || again.cert.Subject.CommonName != "Test CA" {
		t.Errorf("opened %v", again.cert.Subject)
	}
	left, _ := filepath.Glob(filepath.Join(c.dir, ".*"))
	if len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestInitNeverReplaces(t *testing.T) {
	c := mustInit(t)
	before, _ := os.ReadFile(c.path(keyFile))
	if _, err := Init(c.dir, "another", 0); err == nil || !strings.Contains(err.Error(), "never replaced") {
		t.Errorf("init over a CA: %v", err)
	}
	os.Remove(c.path(certFile)) // even if only the key is left
	if _, err := Init(c.dir, "another", 0); err == nil {
		t.Error("init over a key")
	}
	if after, _ := os.ReadFile(c.path(keyFile)); string(after) != string(before) {
		t.Error("the key was replaced")
	}
	dir := filepath.Join(t.TempDir(), "ca")
	var wg sync.WaitGroup
	made := make(chan *CA, 10)
	for i := range 10 {
		wg.Go(func() {
			if c, err := Init(dir, fmt.Sprint("ca ", i), 0); err == nil {
				made <- c
			}
		})
	}
	wg.Wait()
	if len(made) != 1 {
		t.Fatalf("%d CAs were made in one directory", len(made))
	}
	first := <-made
	if c, err := Open(dir); err != nil || !c.cert.Equal(first.cert) {
		t.Errorf("the directory has another CA than was made: %v", err)
	}
}

func TestBadInit(t *testing.T) {
	for _, c := range []struct {
		name string
		days int
	}{{"", 0}, {strings.Repeat("x", 65), 0}, {"x", -1}, {"x", maxDays + 1}} {
		dir := filepath.Join(t.TempDir(), "ca")
		if _, err := Init(dir, c.name, c.days); err == nil {
			t.Errorf("%+v is taken", c)
		}
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("%+v left a directory", c)
		}
	}
}

func TestOpenRefused(t *testing.T) {
	if _, err := Open(t.TempDir()); err == nil || !strings.Contains(err.Error(), "ca init") {
		t.Errorf("no CA: %v", err)
	}
	c := mustInit(t)
	os.Chmod(c.path(keyFile), 0o640)
	if _, err := Open(c.dir); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("key for all: %v", err)
	}
	os.Chmod(c.path(keyFile), 0o600)
	other := mustInit(t)
	b, _ := os.ReadFile(other.path(keyFile))
	os.WriteFile(c.path(keyFile), b, 0o600)
	if _, err := Open(c.dir); err == nil || !strings.Contains(err.Error(), "does not match") {
		t.Errorf("another's key: %v", err)
	}
}

func TestIssue(t *testing.T) {
	c := mustInit(t)
	i, leaf := mustIssue(t, c, Request{
		Hosts:  []string{"Web1.example", "*.web.example"},
		IPs:    []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")},
		SPIFFE: "spiffe://td/ns/web",
	})
	wantDays(t, leaf.NotAfter, HostDays)
	want := []string{"web1.example", "*.web.example", "192.0.2.1", "2001:db8::1", "spiffe://td/ns/web"}
	if !slices.Equal(i.Entry.Names, want) {
		t.Errorf("names %q, want %q", i.Entry.Names, want)
	}
	roots := x509.NewCertPool()
	roots.AddCert(c.cert)
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		for _, name := range []string{"web1.example", "a.web.example", "192.0.2.1", "2001:db8::1"} {
			if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: name, KeyUsages: []x509.ExtKeyUsage{usage}}); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	if len(leaf.URIs) != 1 || leaf.URIs[0].String() != "spiffe://td/ns/web" || leaf.IsCA {
		t.Errorf("URIs %v, CA %v", leaf.URIs, leaf.IsCA)
	}
	_, short := mustIssue(t, c, Request{Hosts: []string{"a"}, Days: 1})
	wantDays(t, short.NotAfter, 1)
	_, long := mustIssue(t, c, Request{Hosts: []string{strings.Repeat("a", 63) + ".example"}, Days: 2 * CADays})
	if long.NotAfter.After(c.cert.NotAfter) {
		t.Errorf("outlives the CA: %v", long.NotAfter)
	}
	entries, err := c.List()
	if err != nil || len(entries) != 3 || entries[0].Serial != leaf.SerialNumber.Text(16) || entries[0].State(time.Now()) != "valid" {
		t.Errorf("index: %+v, %v", entries, err)
	}
}

func TestIssueRefused(t *testing.T) {
	c := mustInit(t)
	for name, r := range map[string]Request{
		"no host":        {},
		"empty host":     {Hosts: []string{""}},
		"path":           {Hosts: []string{"../x"}},
		"blank":          {Hosts: []string{"a b"}},
		"address":        {Hosts: []string{"192.0.2.1"}},
		"wildcard first": {Hosts: []string{"*.example"}},
		"lone star":      {Hosts: []string{"a", "*"}},
		"SPIFFE":         {Hosts: []string{"a"}, SPIFFE: "https://td/x"},
		"zone":           {Hosts: []string{"a"}, IPs: []netip.Addr{netip.MustParseAddr("fe80::1%eth0")}},
		"wildcard IP":    {Hosts: []string{"a"}, IPs: []netip.Addr{netip.IPv4Unspecified()}},
		"days":           {Hosts: []string{"a"}, Days: -1},
	} {
		if _, err := c.Issue(r); err == nil {
			t.Errorf("%s: issued", name)
		}
	}
	if entries, err := c.List(); err != nil || len(entries) > 0 {
		t.Errorf("index: %+v, %v", entries, err)
	}
}

func TestRevoke(t *testing.T) {
	c := mustInit(t)
	var leaves []*x509.Certificate
	for _, host := range []string{"a", "b", "c"} {
		i, leaf := mustIssue(t, c, Request{Hosts: []string{host}})
		os.WriteFile(filepath.Join(c.dir, host+".pem"), i.CertPEM, 0o644)
		leaves = append(leaves, leaf)
	}
	if _, err := c.Revoke(filepath.Join(c.dir, "a.pem"), 0); err != nil {
		t.Fatal(err)
	}
	first, err := c.Revoke(strings.ToUpper(leaves[1].SerialNumber.Text(16)), 7)
	if err != nil {
		t.Fatal(err)
	}
	again, err := c.Revoke(leaves[1].SerialNumber.Text(16), 7)
	if err != nil || !again.Revoked.Equal(first.Revoked) || again.State(time.Now()) != "revoked" {
		t.Errorf("again: %+v, %v; first %+v", again, err, first)
	}
	list, err := c.readCRL()
	if err != nil {
		t.Fatal(err)
	}
	wantDays(t, list.NextUpdate, 7)
	if err := list.CheckSignatureFrom(c.cert); err != nil {
		t.Error(err)
	}
	var got []string
	for _, e := range list.RevokedCertificateEntries {
		got = append(got, e.SerialNumber.Text(16))
	}
	if want := []string{leaves[0].SerialNumber.Text(16), leaves[1].SerialNumber.Text(16)}; !slices.Equal(got, want) {
		t.Errorf("list has %q, want %q", got, want)
	}
	next, err := c.NewCRL(0)
	if err != nil {
		t.Fatal(err)
	}
	wantDays(t, next, CRLDays)
	newer, err := c.readCRL()
	if err != nil || newer.Number.Cmp(list.Number) != 1 || len(newer.RevokedCertificateEntries) != 2 {
		t.Errorf("next list: %v, %v", newer, err)
	}
	stranger := mustInit(t)
	i, _ := mustIssue(t, stranger, Request{Hosts: []string{"a"}})
	os.WriteFile(filepath.Join(c.dir, "stranger.pem"), i.CertPEM, 0o644)
	for _, what := range []string{"abc", "no such file", filepath.Join(c.dir, "stranger.pem"), c.path(keyFile), "0"} {
		if _, err := c.Revoke(what, 0); err == nil {
			t.Errorf("revoked %q", what)
		}
	}
}

// TestIndexAtOnce: many who issue and revoke at once lose nothing.
func TestIndexAtOnce(t *testing.T) {
	c := mustInit(t)
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			mine, err := Open(c.dir)
			if err != nil {
				t.Error(err)
				return
			}
			issued, err := mine.Issue(Request{Hosts: []string{fmt.Sprint("host", i)}})
			if err != nil {
				t.Error(err)
				return
			}
			if i%2 == 0 {
				if _, err := mine.Revoke(issued.Entry.Serial, 0); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	entries, err := c.List()
	if err != nil || len(entries) != 20 {
		t.Fatalf("%d entries, %v", len(entries), err)
	}
	list, err := c.readCRL()
	if err != nil || len(list.RevokedCertificateEntries) != 10 {
		t.Errorf("list %+v, %v", list, err)
	}
}

func TestIndexDamaged(t *testing.T) {
	for name, b := range map[string]string{
		"no JSON":      "x\n",
		"no serial":    `{"names":["a"]}`,
		"bad serial":   `{"serial":"xyz"}`,
		"serial twice": `{"serial":"ab"}` + "\n" + `{"serial":"0AB"}`,
	} {
		if _, err := parseIndex([]byte(b)); err == nil || !strings.Contains(err.Error(), "line ") {
			t.Errorf("%s: %v", name, err)
		}
	}
	c := mustInit(t)
	os.Remove(c.path(indexFile))
	if _, err := c.Issue(Request{Hosts: []string{"a"}}); err == nil || !strings.Contains(err.Error(), "is missing") {
		t.Errorf("no index: %v", err)
	}
}

func FuzzIndex(f *testing.F) {
	f.Add([]byte(`{"serial":"ab","names":["a"],"not_after":"2026-01-01T00:00:00Z"}` + "\n"))
	f.Add([]byte("garbage"))
	f.Fuzz(func(t *testing.T, b []byte) {
		entries, err := parseIndex(b)
		if err != nil {
			return
		}
		for _, e := range entries {
			n, err := parseSerial(e.Serial)
			if err != nil || n.Text(16) != e.Serial {
				t.Errorf("serial %q: %v, %v", e.Serial, n, err)
			}
		}
	})
}

// openssl runs it and returns what it prints.
func openssl(t *testing.T, args ...string) (string, error) {
	t.Helper()
	b, err := exec.Command("openssl", args...).CombinedOutput()
	return string(b), err
}

// TestOpenSSL: others read what we write.
func TestOpenSSL(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("openssl is not installed")
	}
	c := mustInit(t)
	i, leaf := mustIssue(t, c, Request{Hosts: []string{"web1.example"}, IPs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, SPIFFE: "spiffe://td/ns/web"})
	cert, key := filepath.Join(c.dir, "web1.pem"), filepath.Join(c.dir, "web1-key.pem")
	if err := WriteFile(cert, i.CertPEM, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(key, i.KeyPEM, 0o600); err != nil {
		t.Fatal(err)
	}
	verify := func(more ...string) (string, error) {
		return openssl(t, append(append([]string{"verify", "-x509_strict", "-crl_check", "-CAfile", c.CertFile(), "-CRLfile", c.CRLFile()}, more...), cert)...)
	}
	for _, more := range [][]string{{"-purpose", "sslserver"}, {"-purpose", "sslclient"}, {"-verify_hostname", "web1.example"}, {"-verify_ip", "192.0.2.1"}} {
		if out, err := verify(more...); err != nil {
			t.Errorf("%v: %v\n%s", more, err, out)
		}
	}
	if out, err := verify("-verify_hostname", "web2.example"); err == nil {
		t.Errorf("another name verifies:\n%s", out)
	}
	certKey, err := openssl(t, "x509", "-in", cert, "-noout", "-pubkey")
	if err != nil {
		t.Fatal(err, certKey)
	}
	if out, err := openssl(t, "pkey", "-in", key, "-pubout"); err != nil || out != certKey {
		t.Errorf("key: %v\n%s", err, out)
	}
	if _, err := c.Revoke(cert, 0); err != nil {
		t.Fatal(err)
	}
	if out, err := verify(); err == nil || !strings.Contains(out, "certificate revoked") {
		t.Errorf("revoked: %v\n%s", err, out)
	}
	out, err := openssl(t, "crl", "-in", c.CRLFile(), "-noout", "-text", "-CAfile", c.CertFile())
	if err != nil || !strings.Contains(out, "verify OK") || !strings.Contains(strings.ToLower(out), leaf.SerialNumber.Text(16)) {
		t.Errorf("crl: %v\n%s", err, out)
	}
	// The serial as openssl prints it is taken, too.
	serial, err := openssl(t, "x509", "-in", cert, "-noout", "-serial")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Revoke(strings.TrimSpace(strings.TrimPrefix(serial, "serial=")), 0); err != nil {
		t.Error(err)
	}
}

func TestCertPEMIsOneBlock(t *testing.T) {
	c := mustInit(t)
	i, _ := mustIssue(t, c, Request{Hosts: []string{"a"}})
	if block, rest := pem.Decode(i.CertPEM); block == nil || len(rest) > 0 {
		t.Errorf("a chain of more than the host's certificate: %q", rest)
	}
}
