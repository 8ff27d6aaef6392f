package ca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/poemq/poemq/quic/internal/names"
)

// Request is what a certificate is to say.
type Request struct {
	Hosts  []string // DNS names, at least one; all but the first may begin with "*."
	IPs    []netip.Addr
	SPIFFE string // a SPIFFE ID, or empty
	Days   int    // 0: HostDays
}

// Issued is a new certificate with its key, which is kept nowhere else.
type Issued struct {
	Entry   Entry
	CertPEM []byte // the chain a host shows: its certificate; the CA's is not needed
	KeyPEM  []byte // PKCS #8; secret
}

// Issue makes a key and a certificate for it and enters it in the index.
func (c *CA) Issue(r Request) (*Issued, error) {
	template, err := c.template(r)
	if err != nil {
		return nil, fmt.Errorf("issue a certificate: %w", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("issue a certificate: %w", err)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, c.cert, key.Public(), c.key)
	if err != nil {
		return nil, fmt.Errorf("issue a certificate: %w", err)
	}
	keyPEM, err := marshalKey(key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("issue a certificate: %w", err)
	}
	e := entryOf(leaf)
	unlock, err := c.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	entries, err := c.readIndex()
	if err != nil {
		return nil, err
	}
	if err := c.writeIndex(append(entries, e)); err != nil {
		return nil, err
	}
	return &Issued{Entry: e, CertPEM: certPEM(der), KeyPEM: keyPEM}, nil
}

func (c *CA) template(r Request) (*x509.Certificate, error) {
	life, err := lifetime(r.Days, HostDays)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	if now.After(c.cert.NotAfter) {
		return nil, fmt.Errorf("the CA expired at %s: make a new one", c.cert.NotAfter.UTC().Format(time.DateOnly))
	}
	end := now.Add(life)
	if end.After(c.cert.NotAfter) {
		end = c.cert.NotAfter // it would not verify any longer
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		SerialNumber: serial,
		NotBefore:    now.Add(-backdate), NotAfter: end,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	return t, name(t, r)
}

// name checks the names and puts them into the certificate.
func name(t *x509.Certificate, r Request) error {
	if len(r.Hosts) == 0 {
		return errors.New("no host is named")
	}
	for i, h := range r.Hosts {
		plain := h
		if i > 0 {
			plain = strings.TrimPrefix(h, "*.")
		}
		if err := checkHost(plain); err != nil {
			return err
		}
		t.DNSNames = append(t.DNSNames, strings.ToLower(h))
	}
	if first := t.DNSNames[0]; len(first) <= 64 { // the most a common name may have
		t.Subject = pkix.Name{CommonName: first}
	}
	for _, ip := range r.IPs {
		if !ip.IsValid() || ip.Zone() != "" || ip.IsUnspecified() {
			return fmt.Errorf("address %q: want one that peers dial, without a zone", ip)
		}
		t.IPAddresses = append(t.IPAddresses, ip.Unmap().AsSlice())
	}
	if r.SPIFFE != "" {
		u, err := url.Parse(r.SPIFFE)
		if err != nil || !names.IsSPIFFE(r.SPIFFE) {
			return fmt.Errorf("SPIFFE ID %q: want spiffe://TRUST-DOMAIN/PATH of plain segments", r.SPIFFE)
		}
		t.URIs = []*url.URL{u}
	}
	return nil
}

// checkHost accepts host names. Addresses are no names.
func checkHost(h string) error {
	if _, err := netip.ParseAddr(h); err == nil {
		return fmt.Errorf("host %q is an address: name the host, and give addresses with --ip", h)
	}
	if !names.IsHost(h) {
		return fmt.Errorf("host %q is no host name: want labels of letters, digits and hyphens with dots between", h)
	}
	return nil
}
