package ca

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
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

// Days that things are valid unless told otherwise.
const (
	CADays   = 3653
	HostDays = 825
	CRLDays  = 30
)

// maxDays keeps dates within what X.509 can say.
const maxDays = 100 * 366

const (
	certFile  = "ca.pem"
	keyFile   = "ca-key.pem"
	indexFile = "index"
	crlFile   = "crl.pem"
	lockFile  = "lock"
)

// backdate is how late a host's clock may be.
const backdate = time.Hour

// CA is a certificate authority that is kept in a directory. Several processes
// may use one directory at once.
type CA struct {
	dir  string
	cert *x509.Certificate
	key  crypto.Signer
}

// Init makes a CA in dir, which is made if it is missing (mode 0700). name is
// its common name; days how long it is valid, 0 for CADays. A directory that
// has one already is an error and stays as it is.
func Init(dir, name string, days int) (*CA, error) {
	if name == "" || len(name) > 64 {
		return nil, fmt.Errorf("name %q of the CA: want 1 to 64 characters", name)
	}
	life, err := lifetime(days, CADays)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make a CA: %w", err)
	}
	c := &CA{dir: dir}
	unlock, err := c.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	for _, f := range []string{certFile, keyFile, indexFile, crlFile} {
		if _, err := os.Lstat(c.path(f)); !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("make a CA in %s: %s is there already; a CA is never replaced, take another directory", dir, f)
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a CA: %w", err)
	}
	c.key = key
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    now.Add(-backdate), NotAfter: now.Add(life),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		IsCA:     true, BasicConstraintsValid: true, MaxPathLenZero: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make a CA: %w", err)
	}
	if c.cert, err = x509.ParseCertificate(der); err != nil {
		return nil, fmt.Errorf("make a CA: %w", err)
	}
	return c, c.writeNew(der, key)
}

// writeNew writes the files of a new CA; ca.pem, by which others find it, last.
func (c *CA) writeNew(der []byte, key *ecdsa.PrivateKey) error {
	keyPEM, err := marshalKey(key)
	if err != nil {
		return err
	}
	if err := WriteFile(c.path(keyFile), keyPEM, 0o600); err != nil {
		return err
	}
	if err := c.writeIndex(nil); err != nil {
		return err
	}
	if err := c.writeCRL(nil, 0); err != nil {
		return err
	}
	return WriteFile(c.path(certFile), certPEM(der), 0o644)
}

// Open reads the CA in dir. A private key that others may read is refused.
func Open(dir string) (*CA, error) {
	c := &CA{dir: dir}
	certPEM, err := os.ReadFile(c.path(certFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("no CA in %s: make one first (poemqctl ca init --dir %s)", dir, dir)
	} else if err != nil {
		return nil, fmt.Errorf("CA: %w", err)
	}
	st, err := os.Stat(c.path(keyFile))
	if err != nil {
		return nil, fmt.Errorf("CA key: %w", err)
	}
	if st.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("CA key %s: mode %04o lets others at it: refused (chmod 600)", c.path(keyFile), st.Mode().Perm())
	}
	keyPEM, err := os.ReadFile(c.path(keyFile))
	if err != nil {
		return nil, fmt.Errorf("CA key: %w", err)
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("CA in %s: %w", dir, err)
	}
	key, ok := pair.PrivateKey.(crypto.Signer)
	if c.cert, c.key = pair.Leaf, key; !ok || !c.cert.IsCA {
		return nil, fmt.Errorf("CA in %s: %s is not the certificate of a CA", dir, certFile)
	}
	return c, nil
}

// Certificate is the CA's own.
func (c *CA) Certificate() *x509.Certificate { return c.cert }

// CertFile and CRLFile are the files that hosts need a copy of.
func (c *CA) CertFile() string { return c.path(certFile) }

// CRLFile: see CertFile.
func (c *CA) CRLFile() string { return c.path(crlFile) }

func (c *CA) path(name string) string { return filepath.Join(c.dir, name) }

// lock keeps other processes from changing the CA.
func (c *CA) lock() (unlock func(), err error) {
	f, err := os.OpenFile(c.path(lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock CA: %w", err)
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock CA %s: %w", c.dir, err)
	}
	return func() { f.Close() }, nil
}

// lifetime of days, or of unset days if there are none.
func lifetime(days, unset int) (time.Duration, error) {
	if days == 0 {
		days = unset
	}
	if days < 1 || days > maxDays {
		return 0, fmt.Errorf("%d days: want 1 to %d", days, maxDays)
	}
	return time.Duration(days) * 24 * time.Hour, nil
}

// newSerial has 127 random bits (RFC 5280 section 4.1.2.2 allows 159).
func newSerial() (*big.Int, error) {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("serial number: %w", err)
	}
	return n.Add(n, big.NewInt(1)), nil
}

func marshalKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("private key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

func certPEM(ders ...[]byte) []byte {
	var b bytes.Buffer
	for _, der := range ders {
		pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: der})
	}
	return b.Bytes()
}

// WriteFile replaces path by a file with these octets and mode, all at once:
// whoever opens it gets the old or the new content.
func WriteFile(path string, b []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".ca-*") // mode 0600
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer os.Remove(f.Name()) // gone, if it was renamed
	_, err = f.Write(b)
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
