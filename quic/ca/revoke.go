package ca

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"slices"
	"time"
)

// Revoke enters in the index that a certificate is not to be trusted any more,
// and signs a new list of days validity (0: CRLDays). what is a file with the
// certificate or its serial number in hexadecimal. One that was revoked before
// keeps its date.
func (c *CA) Revoke(what string, days int) (Entry, error) {
	serial, err := c.serialOf(what)
	if err != nil {
		return Entry{}, err
	}
	unlock, err := c.lock()
	if err != nil {
		return Entry{}, err
	}
	defer unlock()
	entries, err := c.readIndex()
	if err != nil {
		return Entry{}, err
	}
	i := slices.IndexFunc(entries, func(e Entry) bool { return e.Serial == serial.Text(16) })
	if i < 0 {
		return Entry{}, fmt.Errorf("revoke %s: the CA in %s has issued no certificate with serial %s", what, c.dir, serial.Text(16))
	}
	if entries[i].Revoked.IsZero() {
		entries[i].Revoked = time.Now().UTC().Truncate(time.Second)
		if err := c.writeIndex(entries); err != nil {
			return Entry{}, err
		}
	}
	return entries[i], c.writeCRL(entries, days)
}

// serialOf reads a certificate, or a number.
func (c *CA) serialOf(what string) (*big.Int, error) {
	b, err := os.ReadFile(what)
	if errors.Is(err, fs.ErrNotExist) {
		n, err := parseSerial(what)
		if err != nil {
			return nil, fmt.Errorf("revoke: no such file, and %w", err)
		}
		return n, nil
	} else if err != nil {
		return nil, fmt.Errorf("revoke: %w", err)
	}
	block, _ := pem.Decode(b)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, fmt.Errorf("revoke %s: it does not begin with a PEM certificate", what)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("revoke %s: %w", what, err)
	}
	if err := cert.CheckSignatureFrom(c.cert); err != nil {
		return nil, fmt.Errorf("revoke %s: the CA in %s did not issue it: %w", what, c.dir, err)
	}
	return cert.SerialNumber, nil
}

// NewCRL signs a new list, valid for days (0: CRLDays), and tells until when.
func (c *CA) NewCRL(days int) (next time.Time, err error) {
	unlock, err := c.lock()
	if err != nil {
		return time.Time{}, err
	}
	defer unlock()
	entries, err := c.readIndex()
	if err != nil {
		return time.Time{}, err
	}
	if err := c.writeCRL(entries, days); err != nil {
		return time.Time{}, err
	}
	list, err := c.readCRL()
	if err != nil {
		return time.Time{}, err
	}
	return list.NextUpdate, nil
}

// writeCRL lists what is revoked. Its number is one more than that of the list
// before (RFC 5280 section 5.2.3). The lock is held.
func (c *CA) writeCRL(entries []Entry, days int) error {
	life, err := lifetime(days, CRLDays)
	if err != nil {
		return err
	}
	number := big.NewInt(1)
	if old, err := c.readCRL(); err == nil && old.Number != nil {
		number.Add(old.Number, number)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	now := time.Now()
	template := &x509.RevocationList{Number: number, ThisUpdate: now.Add(-backdate), NextUpdate: now.Add(life)}
	for _, e := range entries {
		if e.Revoked.IsZero() {
			continue
		}
		serial, err := parseSerial(e.Serial)
		if err != nil {
			return err
		}
		template.RevokedCertificateEntries = append(template.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: serial, RevocationTime: e.Revoked})
	}
	der, err := x509.CreateRevocationList(rand.Reader, template, c.cert, c.key)
	if err != nil {
		return fmt.Errorf("sign CRL: %w", err)
	}
	var b bytes.Buffer
	pem.Encode(&b, &pem.Block{Type: "X509 CRL", Bytes: der})
	return WriteFile(c.path(crlFile), b.Bytes(), 0o644)
}

func (c *CA) readCRL() (*x509.RevocationList, error) {
	b, err := os.ReadFile(c.path(crlFile))
	if err != nil {
		return nil, fmt.Errorf("CRL: %w", err)
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, fmt.Errorf("CRL %s: not PEM", c.path(crlFile))
	}
	list, err := x509.ParseRevocationList(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("CRL %s: %w", c.path(crlFile), err)
	}
	return list, nil
}
