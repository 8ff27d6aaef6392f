package quic

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// testCA signs what tests need.
type testCA struct {
	t    *testing.T
	cert *x509.Certificate
	key  crypto.Signer
}

var nextSerial atomic.Int64

func newKey(t *testing.T, kind string) crypto.Signer {
	t.Helper()
	var key crypto.Signer
	var err error
	switch kind {
	case "", "P-256":
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "P-384":
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "Ed25519":
		_, key, err = ed25519.GenerateKey(rand.Reader)
	case "RSA":
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	default:
		t.Fatalf("no key kind %q", kind)
	}
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// newCA makes a root, or, of a CA, an intermediate.
func newCA(t *testing.T, name, kind string, over *testCA, change func(*x509.Certificate)) *testCA {
	t.Helper()
	c := &testCA{t: t, key: newKey(t, kind)}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(nextSerial.Add(1)), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(48 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	if change != nil {
		change(template)
	}
	parent, signer := template, c.key
	if over != nil {
		parent, signer = over.cert, over.key
	}
	c.cert = sign(t, template, parent, c.key.Public(), signer)
	return c
}

func sign(t *testing.T, template, parent *x509.Certificate, pub crypto.PublicKey, signer crypto.Signer) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, pub, signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// leaf is a certificate for host.example, 127.0.0.1 and a SPIFFE ID.
func (c *testCA) leaf(key crypto.Signer, change func(*x509.Certificate)) *x509.Certificate {
	id, _ := url.Parse("spiffe://td.example/ns/web")
	template := &x509.Certificate{
		SerialNumber: big.NewInt(nextSerial.Add(1)), Subject: pkix.Name{CommonName: "host"},
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames:    []string{"host.example", "*.wild.example"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		URIs:        []*url.URL{id},
	}
	if change != nil {
		change(template)
	}
	return sign(c.t, template, c.cert, key.Public(), c.key)
}

func (c *testCA) crl(revoked ...*x509.Certificate) []byte {
	c.t.Helper()
	list := &x509.RevocationList{Number: big.NewInt(nextSerial.Add(1)), ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: time.Now().Add(time.Hour)}
	for _, r := range revoked {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: r.SerialNumber, RevocationTime: time.Now().Add(-time.Minute)})
	}
	return c.signCRL(list)
}

func (c *testCA) signCRL(list *x509.RevocationList) []byte {
	c.t.Helper()
	der, err := x509.CreateRevocationList(rand.Reader, list, c.cert, c.key)
	if err != nil {
		c.t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})
}

func pemOf(certs ...*x509.Certificate) []byte {
	var b []byte
	for _, c := range certs {
		b = append(b, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return b
}

func keyPEM(t *testing.T, key crypto.Signer) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// put renames a file into place, as those who rotate certificates do.
func put(t *testing.T, path string, b []byte) {
	t.Helper()
	tmp := path + ".new"
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(tmp, path); err != nil {
		t.Fatal(err)
	}
}

// writePKI puts certificate chain, key and CAs into a directory of their own.
func writePKI(t *testing.T, key crypto.Signer, chain, cas []*x509.Certificate, crls ...[]byte) PKIFiles {
	t.Helper()
	dir := t.TempDir()
	f := PKIFiles{Cert: filepath.Join(dir, "tls.pem"), Key: filepath.Join(dir, "tls-key.pem"), CA: filepath.Join(dir, "ca.pem")}
	put(t, f.Cert, pemOf(chain...))
	put(t, f.Key, keyPEM(t, key))
	put(t, f.CA, pemOf(cas...))
	for _, b := range crls {
		path := filepath.Join(dir, "crl.pem")
		put(t, path, b)
		f.CRL = append(f.CRL, path)
	}
	return f
}

func mustPKI(t *testing.T, f PKIFiles) *PKI {
	t.Helper()
	p, err := LoadPKI(f)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// member is a PKI of a host with an ordinary certificate of ca.
func member(t *testing.T, ca *testCA, crls ...[]byte) *PKI {
	t.Helper()
	key := newKey(t, "")
	return mustPKI(t, writePKI(t, key, []*x509.Certificate{ca.leaf(key, nil)}, []*x509.Certificate{ca.cert}, crls...))
}

func fleetHost(t *testing.T, p *PKI, change func(*Config)) *Host {
	t.Helper()
	return testHost(t, func(c *Config) {
		c.PKI = p
		if change != nil {
			change(c)
		}
	})
}

func TestPKIKinds(t *testing.T) {
	for _, kind := range []string{"P-256", "P-384", "Ed25519", "RSA"} {
		t.Run(kind, func(t *testing.T) {
			root := newCA(t, "root", kind, nil, nil)
			other := newCA(t, "another root", "", nil, nil)
			between := newCA(t, "between", kind, root, nil)
			load := func() *PKI {
				key := newKey(t, kind)
				return mustPKI(t, writePKI(t, key, []*x509.Certificate{between.leaf(key, nil), between.cert}, []*x509.Certificate{other.cert, root.cert}))
			}
			p := load()
			if w := p.Warnings(); len(w) > 0 {
				t.Errorf("warnings: %v", w)
			}
			e, got := listen(t, fleetHost(t, p, nil), "127.0.0.1:0", ListenOptions{})
			dial(t, fleetHost(t, load(), nil), e.Addr())
			<-got
		})
	}
}

func TestPKIFilesRefused(t *testing.T) {
	root := newCA(t, "root", "", nil, nil)
	key := newKey(t, "")
	leaf := root.leaf(key, nil)
	for name, c := range map[string]struct {
		spoil func(f *PKIFiles)
		want  string
	}{
		"group may read the key":  {func(f *PKIFiles) { os.Chmod(f.Key, 0o640) }, "mode 0640 lets others at it"},
		"others may read the key": {func(f *PKIFiles) { os.Chmod(f.Key, 0o604) }, "mode 0604 lets others at it"},
		"another's key": {func(f *PKIFiles) {
			if os.Geteuid() != 0 {
				t.Skip("needs root to give a file away")
			}
			os.Chown(f.Key, 12345, 0)
		}, "owned by uid 12345"},
		"key is a directory":  {func(f *PKIFiles) { os.Remove(f.Key); os.Mkdir(f.Key, 0o700) }, "not a regular file"},
		"no key":              {func(f *PKIFiles) { os.Remove(f.Key) }, "no such file"},
		"no key named":        {func(f *PKIFiles) { f.Key = "" }, "no file is named"},
		"no certificate":      {func(f *PKIFiles) { os.Remove(f.Cert) }, "no such file"},
		"no CA named":         {func(f *PKIFiles) { f.CA = "" }, "CA bundle: no file is named"},
		"key of another":      {func(f *PKIFiles) { put(t, f.Key, keyPEM(t, newKey(t, ""))) }, "does not match"},
		"key of another kind": {func(f *PKIFiles) { put(t, f.Key, keyPEM(t, newKey(t, "RSA"))) }, "does not match"},
		"encrypted key": {func(f *PKIFiles) {
			put(t, f.Key, []byte("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAA==\n-----END ENCRYPTED PRIVATE KEY-----\n"))
		}, "passphrase"},
		"garbage for a certificate": {func(f *PKIFiles) { put(t, f.Cert, []byte("garbage")) }, "tls.pem"},
		"garbage for a CA":          {func(f *PKIFiles) { put(t, f.CA, []byte("garbage")) }, "no PEM block CERTIFICATE"},
		"garbage in a CA": {func(f *PKIFiles) {
			put(t, f.CA, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")}))
		}, "certificate 1"},
		"garbage for a CRL": {func(f *PKIFiles) { f.CRL = []string{f.CA + "x"}; put(t, f.CA+"x", []byte("garbage")) }, "neither PEM (X509 CRL) nor DER"},
		"missing CRL":       {func(f *PKIFiles) { f.CRL = []string{f.CA + "x"} }, "no such file"},
		"forged CRL": {func(f *PKIFiles) {
			f.CRL = []string{f.CA + "x"}
			put(t, f.CA+"x", newCA(t, "root", "", nil, nil).crl())
		}, "not signed by the CA it names"},
		"delta CRL": {func(f *PKIFiles) {
			f.CRL = []string{f.CA + "x"}
			put(t, f.CA+"x", root.signCRL(&x509.RevocationList{
				Number: big.NewInt(2), ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour),
				ExtraExtensions: []pkix.Extension{{Id: oidDeltaCRL, Critical: true, Value: []byte{2, 1, 1}}},
			}))
		}, "delta CRL"},
	} {
		t.Run(name, func(t *testing.T) {
			f := writePKI(t, key, []*x509.Certificate{leaf}, []*x509.Certificate{root.cert})
			if _, err := LoadPKI(f); err != nil {
				t.Fatalf("unspoilt: %v", err)
			}
			c.spoil(&f)
			if _, err := LoadPKI(f); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q in it", err, c.want)
			}
		})
	}
}

func TestPKIKeyOfRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to have a file of root's")
	}
	// Owned by root is what the reader of the file is here; that root's is
	// taken by others, too, is the owners argument.
	path := filepath.Join(t.TempDir(), "key")
	os.WriteFile(path, nil, 0o400)
	os.Chown(path, 12345, 0)
	if _, err := readPrivate(path, "key", 0); err == nil {
		t.Error("another's key is taken")
	}
	if _, err := readPrivate(path, "key", 0, 12345); err != nil {
		t.Errorf("the other owner: %v", err)
	}
}

func TestPKIWarnings(t *testing.T) {
	root, other := newCA(t, "root", "", nil, nil), newCA(t, "other", "", nil, nil)
	old := newCA(t, "old root", "", nil, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
	key := newKey(t, "")
	for name, c := range map[string]struct {
		leaf *x509.Certificate
		cas  []*x509.Certificate
		crl  []byte
		want string
	}{
		"fine":           {leaf: root.leaf(key, nil)},
		"expired":        {leaf: root.leaf(key, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }), want: "expired at"},
		"not yet valid":  {leaf: root.leaf(key, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) }), want: "valid from"},
		"unknown CA":     {leaf: other.leaf(key, nil), want: "unknown authority"},
		"server only":    {leaf: root.leaf(key, func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[:1] }), want: "refuse it as a client"},
		"client only":    {leaf: root.leaf(key, func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[1:] }), want: "refuse it as a server"},
		"old CA":         {leaf: root.leaf(key, nil), cas: []*x509.Certificate{old.cert}, want: `"CN=old root" expired`},
		"stranger's CRL": {leaf: root.leaf(key, nil), crl: other.crl(), want: "not in the CA bundle"},
		"stale CRL": {leaf: root.leaf(key, nil), want: "should have been renewed", crl: root.signCRL(&x509.RevocationList{
			Number: big.NewInt(1), ThisUpdate: time.Now().Add(-2 * time.Hour), NextUpdate: time.Now().Add(-time.Hour),
		})},
	} {
		t.Run(name, func(t *testing.T) {
			var crls [][]byte
			if c.crl != nil {
				crls = append(crls, c.crl)
			}
			p := mustPKI(t, writePKI(t, key, []*x509.Certificate{c.leaf}, append(c.cas, root.cert), crls...))
			got := strings.Join(p.Warnings(), "\n")
			if c.want == "" && got != "" || !strings.Contains(got, c.want) {
				t.Errorf("warnings %q, want %q", got, c.want)
			}
		})
	}
}

func FuzzCRLs(f *testing.F) {
	t := &testing.T{}
	root := newCA(t, "root", "", nil, nil)
	b := root.crl(root.cert)
	f.Add(b)
	block, _ := pem.Decode(b)
	f.Add(block.Bytes)
	f.Add([]byte("garbage"))
	f.Fuzz(func(t *testing.T, b []byte) {
		lists, err := parseCRLs(b)
		if (err == nil) != (len(lists) > 0) {
			t.Errorf("%d lists, %v", len(lists), err)
		}
		for _, l := range lists {
			_, _ = l.knownSigner([]*x509.Certificate{root.cert})
		}
	})
}
