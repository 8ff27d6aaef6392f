package quic

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// TLS alerts about certificates (RFC 8446 section 6.2). We choose the one that
// tells the other side most.
const (
	alertBadCertificate         tls.AlertError = 42
	alertUnsupportedCertificate tls.AlertError = 43
	alertCertificateRevoked     tls.AlertError = 44
	alertCertificateExpired     tls.AlertError = 45
	alertCertificateUnknown     tls.AlertError = 46
	alertUnknownCA              tls.AlertError = 48
	alertAccessDenied           tls.AlertError = 49
	alertDecryptError           tls.AlertError = 51 // a signature does not verify
	alertCertificateRequired    tls.AlertError = 116
)

// IdentityError tells why a peer is not who it has to be, or that it does not
// take us for whom we have to be. It is an ErrIdentity.
type IdentityError struct {
	Peer   netip.AddrPort
	Shown  string // what the peer showed; of a refusal by the peer: what we showed
	Wanted string
	Err    error  // what is wrong
	ToDo   string // for the operator
}

func (e *IdentityError) Error() string {
	return fmt.Sprintf("%v: %v: %v; shown: %s; wanted: %s; %s", ErrIdentity, e.Peer, e.Err, e.Shown, e.Wanted, e.ToDo)
}

// Unwrap gives the alert that TLS sends to the peer, too.
func (e *IdentityError) Unwrap() []error { return []error{ErrIdentity, e.Err, alertFor(e.Err)} }

var errNoCertificate = errors.New("no certificate")

// alertFor chooses the alert for a failure of verification.
func alertFor(err error) tls.AlertError {
	var (
		invalid x509.CertificateInvalidError
		unknown x509.UnknownAuthorityError
	)
	switch {
	case errors.Is(err, errNoCertificate):
		return alertCertificateRequired
	case errors.Is(err, errRevoked):
		return alertCertificateRevoked
	case errors.As(err, &unknown):
		return alertUnknownCA
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return alertCertificateExpired
	case errors.As(err, &invalid) && invalid.Reason == x509.IncompatibleUsage:
		return alertUnsupportedCertificate
	}
	return alertBadCertificate
}

// toDo is the advice that goes with a failure of verification.
func toDo(err error) string {
	switch alertFor(err) {
	case alertCertificateRequired:
		return "give the peer a certificate of the fleet's CA"
	case alertCertificateRevoked:
		return "if the peer is to be trusted again, issue it a new certificate"
	case alertUnknownCA:
		return "if the peer's CA is to be trusted, add it to our CA bundle; else give the peer a certificate of ours"
	case alertCertificateExpired:
		return "renew that certificate, or look at the clocks of both hosts"
	case alertUnsupportedCertificate:
		return "issue the peer a certificate for both server and client authentication"
	}
	return "issue the peer a certificate with the right name, or correct what is expected of it"
}

// verifyChain looks for a chain from certs[0] to a root of ours, valid now,
// for usage, in which nothing is revoked.
func (s *pkiState) verifyChain(certs []*x509.Certificate, usage x509.ExtKeyUsage, now time.Time) error {
	if len(certs) == 0 {
		return errNoCertificate
	}
	between := x509.NewCertPool()
	for _, c := range certs[1:] {
		between.AddCert(c)
	}
	chains, err := certs[0].Verify(x509.VerifyOptions{
		Roots: s.roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage},
	})
	if err != nil {
		return err
	}
	for _, chain := range chains {
		if err = s.checkRevoked(chain); err == nil {
			return nil
		}
	}
	return err
}

// verifyServer checks the certificates a server showed against the fleet and
// against what is expected of it. x is none of the kinds that pin.
func (p *PKI) verifyServer(peer netip.AddrPort, x expectation, cs tls.ConnectionState) error {
	err := p.now.Load().verifyChain(cs.PeerCertificates, x509.ExtKeyUsageServerAuth, time.Now())
	if err == nil {
		err = x.matches(cs.PeerCertificates[0], peer.Addr())
	}
	if err == nil {
		return nil
	}
	return &IdentityError{
		Peer: peer, Shown: shown(cs), Err: err, ToDo: toDo(err),
		Wanted: "a server's certificate of our CA for " + x.describe(peer.Addr()),
	}
}

// verifyClient checks the certificates a client showed.
func (p *PKI) verifyClient(peer netip.AddrPort, cs tls.ConnectionState) error {
	err := p.now.Load().verifyChain(cs.PeerCertificates, x509.ExtKeyUsageClientAuth, time.Now())
	if err == nil {
		return nil
	}
	return &IdentityError{Peer: peer, Shown: shown(cs), Wanted: "a client's certificate of our CA", Err: err, ToDo: toDo(err)}
}

func shown(cs tls.ConnectionState) string {
	if len(cs.PeerCertificates) == 0 {
		return "no certificate"
	}
	return describe(cs.PeerCertificates[0])
}
