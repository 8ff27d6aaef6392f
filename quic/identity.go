package quic

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// identityFile holds the private key and the certificate, both PEM. One file,
// so that they appear together.
const (
	identityFile = "identity.pem"
)

// Identity is who we are to peers: an ECDSA P-256 key and a certificate it
// signed itself; and the pins, which say who peers are to us. Safe for
// concurrent use.
type Identity struct {
	cert tls.Certificate
	key  *ecdsa.PrivateKey
	pins *pins
	dir  string // "": everything lives in memory
}

// LoadIdentity reads the identity kept in dir, making dir (0700) and the key
// (0600) on first use. Any number of processes may do so at once: all get the
// same key. With dir "" key and pins live in memory only.
//
// A key that others may read, or that another user owns, is refused (as ssh
// does), and never replaced.
func LoadIdentity(dir string) (*Identity, error) {
	if dir == "" {
		b, err := newIdentityPEM()
		if err != nil {
			return nil, err
		}
		return parseIdentity(b, "")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("identity directory: %w", err)
	}
	path := filepath.Join(dir, identityFile)
	b, err := readPrivate(path, "identity key", unix.O_NOFOLLOW)
	if errors.Is(err, fs.ErrNotExist) {
		if err = createIdentity(dir, path); err == nil {
			b, err = readPrivate(path, "identity key", unix.O_NOFOLLOW)
		}
	}
	if err != nil {
		return nil, err
	}
	return parseIdentity(b, dir)
}

// createIdentity writes a new key to a temporary file and links it to path:
// link(2) fails when another process was first, whose key is then used.
func createIdentity(dir, path string) error {
	b, err := newIdentityPEM()
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".identity-*") // mode 0600
	if err != nil {
		return fmt.Errorf("identity key: %w", err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return fmt.Errorf("identity key: %w", err)
	}
	if err := os.Link(f.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("identity key: %w", err)
	}
	return nil
}

func newIdentityPEM() ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make identity key: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, fmt.Errorf("make identity certificate: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: "poemq"},
		DNSNames:     []string{"poemq"},
		NotBefore:    time.Now().Add(-24 * time.Hour), // a peer's clock may be behind
		NotAfter:     time.Now().AddDate(50, 0, 0),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make identity certificate: %w", err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("make identity key: %w", err)
	}
	var b bytes.Buffer
	pem.Encode(&b, &pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
	pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: der})
	return b.Bytes(), nil
}

func parseIdentity(b []byte, dir string) (*Identity, error) {
	cert, err := tls.X509KeyPair(b, b)
	if err != nil {
		return nil, fmt.Errorf("identity key %s: %w", filepath.Join(dir, identityFile), err)
	}
	key, ok := cert.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("identity key %s: not ECDSA", filepath.Join(dir, identityFile))
	}
	return &Identity{cert: cert, key: key, pins: newPins(dir), dir: dir}, nil
}

// Fingerprint is our public key as peers pin it: "sha256:BASE64".
func (id *Identity) Fingerprint() string { return fingerprint(id.cert.Leaf) }

// fingerprint hashes the SubjectPublicKeyInfo, so a certificate may be made
// anew around the same key (RFC 7469 section 2.4 does so for the same reason).
func fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	return "sha256:" + base64.StdEncoding.EncodeToString(sum[:])
}
