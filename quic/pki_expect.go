package quic

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/poemq/poemq/quic/internal/names"
)

// expectation is Peer.Expect, understood.
type expectation struct {
	kind  expectKind
	value string // of expectKey the fingerprint, of expectName the name, of expectURI the URI
}

type expectKind int

const (
	expectAddress expectKind = iota // the IP SAN of the address dialed
	expectPin                       // the key first seen there
	expectKey                       // this key
	expectName                      // this DNS or IP SAN
	expectURI                       // this SPIFFE ID
)

// keyPrefix begins every fingerprint.
const keyPrefix = "sha256:"

// parseExpect understands Peer.Expect on a host with or without a PKI.
func parseExpect(s string, pki bool) (expectation, error) {
	switch {
	case s == "pin", s == "" && !pki:
		return expectation{kind: expectPin}, nil
	case s == "":
		return expectation{kind: expectAddress}, nil
	case strings.HasPrefix(s, keyPrefix):
		sum, err := base64.StdEncoding.Strict().DecodeString(s[len(keyPrefix):])
		if err != nil || len(sum) != sha256.Size {
			return expectation{}, fmt.Errorf("%q is no key: want sha256: and 44 characters of base64", s)
		}
		return expectation{expectKey, s}, nil
	}
	x := expectation{expectName, strings.ToLower(strings.TrimSuffix(s, "."))}
	if strings.HasPrefix(s, names.SPIFFEPrefix) {
		x = expectation{expectURI, s}
		if !names.IsSPIFFE(s) {
			return expectation{}, fmt.Errorf("%q is no SPIFFE ID: want spiffe://TRUST-DOMAIN/PATH", s)
		}
	} else if _, err := netip.ParseAddr(s); err != nil && !names.IsHost(x.value) {
		return expectation{}, fmt.Errorf("%q is none of a DNS name, an IP address, spiffe://…, sha256:… and pin", s)
	}
	if !pki {
		return expectation{}, fmt.Errorf("a certificate for %q is wanted, but we have no CA to verify it with", s)
	}
	return x, nil
}

// usesPKI tells whether the CA has a say; else the key alone counts.
func (x expectation) usesPKI() bool { return x.kind != expectPin && x.kind != expectKey }

// describe says for whom a certificate has to be.
func (x expectation) describe(remote netip.Addr) string {
	switch x.kind {
	case expectAddress:
		return "the IP address " + remote.String()
	case expectName:
		return "the name " + x.value
	}
	return x.value
}

// matches compares with the names of a certificate that verified.
func (x expectation) matches(leaf *x509.Certificate, remote netip.Addr) error {
	switch x.kind {
	case expectAddress:
		return leaf.VerifyHostname(remote.WithZone("").String())
	case expectName:
		return leaf.VerifyHostname(x.value)
	}
	if len(leaf.URIs) != 1 { // X.509-SVID section 2: exactly one
		return fmt.Errorf("the certificate has %d URIs, a SPIFFE ID stands alone", len(leaf.URIs))
	}
	if leaf.URIs[0].String() != x.value {
		return errors.New("the certificate is for another SPIFFE ID")
	}
	return nil
}
