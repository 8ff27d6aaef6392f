package quic

import (
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// maxPKIFile bounds what is read, octets; large CRLs have some megabytes.
const maxPKIFile = 64 << 20

// readPrivate reads a regular file that belongs to us or to one of owners, and
// that nobody else may read or write. It checks the file it opened, not the
// name, so nothing can be swapped in between. what begins the errors.
func readPrivate(path, what string, flags int, owners ...int) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|flags, 0)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, fmt.Errorf("%s %s: %w", what, path, err)
	}
	owner := int(st.Uid)
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return nil, fmt.Errorf("%s %s: not a regular file", what, path)
	case owner != os.Geteuid() && !slices.Contains(owners, owner):
		return nil, fmt.Errorf("%s %s: owned by uid %d, we are %d: refused", what, path, owner, os.Geteuid())
	case st.Mode&0o077 != 0:
		return nil, fmt.Errorf("%s %s: mode %04o lets others at it: refused (chmod 600)", what, path, st.Mode&0o7777)
	}
	return readBounded(f, what)
}

// readPKIFile reads a file that is no secret.
func readPKIFile(path, what string) ([]byte, error) {
	if path == "" {
		return nil, fmt.Errorf("%s: no file is named", what)
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	defer f.Close()
	return readBounded(f, what)
}

func readBounded(f *os.File, what string) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(f, maxPKIFile+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	if len(b) > maxPKIFile {
		return nil, fmt.Errorf("%s %s: larger than %d octets", what, f.Name(), maxPKIFile)
	}
	return b, nil
}

// parseCertificates takes the CERTIFICATE blocks of a PEM file, at least one.
func parseCertificates(b []byte) ([]*x509.Certificate, error) {
	var ders [][]byte
	for {
		var block *pem.Block
		if block, b = pem.Decode(b); block == nil {
			break
		}
		if block.Type == "CERTIFICATE" {
			ders = append(ders, block.Bytes)
		}
	}
	if len(ders) == 0 {
		return nil, errors.New("no PEM block CERTIFICATE in it")
	}
	return parseDER(ders)
}

func parseDER(ders [][]byte) ([]*x509.Certificate, error) {
	certs := make([]*x509.Certificate, 0, len(ders))
	for i, der := range ders {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", i+1, err)
		}
		certs = append(certs, c)
	}
	return certs, nil
}

// describe is a certificate in one line, for people.
func describe(c *x509.Certificate) string {
	names := certNames(c)
	for _, e := range c.EmailAddresses {
		names = append(names, "email:"+e)
	}
	return fmt.Sprintf("subject %q, names [%s], serial %s, issuer %q, valid from %s until %s",
		c.Subject, strings.Join(names, " "), hex.EncodeToString(c.SerialNumber.Bytes()), c.Issuer, stamp(c.NotBefore), stamp(c.NotAfter))
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }
