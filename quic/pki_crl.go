package quic

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// errRevoked: a CRL lists the certificate or one above it.
var errRevoked = errors.New("certificate is revoked")

// crl is one revocation list (RFC 5280 section 5).
type crl struct {
	list    *x509.RevocationList
	revoked map[string]x509.RevocationListEntry // by the octets of the serial number
	// signers remembers who signed it, by SHA-256 of the certificate: hashing
	// a long list takes longer than a handshake. Only CAs that verified are
	// asked for, so there are few.
	signers sync.Map // [32]byte → error or nil
}

// Extensions of CRLs (RFC 5280 sections 5.2.4, 5.2.5, 5.3.3).
var (
	oidDeltaCRL          = asn1.ObjectIdentifier{2, 5, 29, 27}
	oidIssuingPoint      = asn1.ObjectIdentifier{2, 5, 29, 28}
	oidCertificateIssuer = asn1.ObjectIdentifier{2, 5, 29, 29}
)

// readCRL adds the lists of a file. One that is past its next update still
// counts, with a warning: its absence would not make revoked peers better, and
// refusing everybody would stop a fleet because of one missed renewal.
func (s *pkiState) readCRL(path string, now time.Time) error {
	b, err := readPKIFile(path, "CRL")
	if err != nil {
		return err
	}
	lists, err := parseCRLs(b)
	if err != nil {
		return fmt.Errorf("CRL %s: %w", path, err)
	}
	revoked, next := 0, time.Time{}
	for _, l := range lists {
		known, err := l.knownSigner(s.cas)
		if err != nil {
			return fmt.Errorf("CRL %s: %w", path, err)
		}
		if !known {
			s.warnings = append(s.warnings, fmt.Sprintf("CRL %s: its issuer %q is not in the CA bundle; it counts for intermediates of that name only", path, l.list.Issuer))
		}
		next = l.list.NextUpdate
		if !next.IsZero() && now.After(next) {
			s.warnings = append(s.warnings, fmt.Sprintf("CRL %s of %q should have been renewed by %s: what it lists is refused, what was revoked later is not known", path, l.list.Issuer, stamp(next)))
		}
		revoked += len(l.revoked)
	}
	s.crls = append(s.crls, lists...)
	s.content["crl "+path] = b
	s.about["crl "+path] = fmt.Sprintf("CRL %s: %d revoked, next update %s", path, revoked, stamp(next))
	return nil
}

// parseCRLs takes the X509 CRL blocks of a PEM file, or one list in DER.
func parseCRLs(b []byte) ([]*crl, error) {
	var ders [][]byte
	for rest := b; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type == "X509 CRL" {
			ders = append(ders, block.Bytes)
		}
	}
	if len(ders) == 0 {
		ders = [][]byte{b}
	}
	var lists []*crl
	for i, der := range ders {
		list, err := x509.ParseRevocationList(der)
		if err != nil {
			return nil, fmt.Errorf("list %d: neither PEM (X509 CRL) nor DER: %w", i+1, err)
		}
		l, err := newCRL(list)
		if err != nil {
			return nil, fmt.Errorf("list %d: %w", i+1, err)
		}
		lists = append(lists, l)
	}
	return lists, nil
}

// newCRL refuses lists that mean something else than they seem to.
func newCRL(list *x509.RevocationList) (*crl, error) {
	for _, x := range list.Extensions {
		switch {
		case x.Id.Equal(oidDeltaCRL):
			return nil, errors.New("a delta CRL: only complete lists are understood")
		case x.Critical && !x.Id.Equal(oidIssuingPoint):
			return nil, fmt.Errorf("unknown critical extension %v", x.Id)
		}
	}
	l := &crl{list: list, revoked: map[string]x509.RevocationListEntry{}}
	for _, e := range list.RevokedCertificateEntries {
		for _, x := range e.Extensions {
			if x.Id.Equal(oidCertificateIssuer) {
				return nil, errors.New("an indirect CRL: only lists of the issuing CA are understood")
			}
		}
		l.revoked[string(e.SerialNumber.Bytes())] = e
	}
	return l, nil
}

// knownSigner tells whether one of cas signed the list; an error if one has
// the issuer's name but none has its key.
func (l *crl) knownSigner(cas []*x509.Certificate) (bool, error) {
	var failed error
	for _, ca := range cas {
		if !bytes.Equal(ca.RawSubject, l.list.RawIssuer) {
			continue
		}
		err := l.signedBy(ca)
		if err == nil {
			return true, nil
		}
		failed = fmt.Errorf("not signed by the CA it names, %q: %w", ca.Subject, err)
	}
	return false, failed
}

func (l *crl) signedBy(issuer *x509.Certificate) error {
	key := sha256.Sum256(issuer.Raw)
	if known, ok := l.signers.Load(key); ok {
		err, _ := known.(error)
		return err
	}
	err := l.list.CheckSignatureFrom(issuer)
	l.signers.Store(key, err)
	return err
}

// checkRevoked looks at one chain, leaf first, root last.
func (s *pkiState) checkRevoked(chain []*x509.Certificate) error {
	for i, c := range chain[:len(chain)-1] {
		issuer := chain[i+1]
		j := slices.IndexFunc(s.crls, func(l *crl) bool {
			_, listed := l.revoked[string(c.SerialNumber.Bytes())]
			return listed && bytes.Equal(l.list.RawIssuer, issuer.RawSubject) && l.signedBy(issuer) == nil
		})
		if j >= 0 {
			e := s.crls[j].revoked[string(c.SerialNumber.Bytes())]
			return fmt.Errorf("%w: serial %s of %q, since %s", errRevoked, hex.EncodeToString(c.SerialNumber.Bytes()), issuer.Subject, stamp(e.RevocationTime))
		}
	}
	return nil
}
