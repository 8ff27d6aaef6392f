package quic

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// PKIFiles name the files of a PKI, all PEM; a CRL may be DER as well. They
// are read again by Reload, so they may be symbolic links that somebody swaps.
type PKIFiles struct {
	Cert string   // our certificate, then the intermediates up to a root, if any
	Key  string   // its private key: ECDSA, Ed25519 or RSA; mode 0600 or stricter, ours or root's
	CA   string   // certificates that are trusted to vouch for peers
	CRL  []string // revocation lists of those CAs and of intermediates; may be none
}

// PKI is who we are and whom we trust when certificates of a CA say so. Safe
// for concurrent use, and by several Hosts.
type PKI struct {
	files PKIFiles
	now   atomic.Pointer[pkiState]

	reloading sync.Mutex // one Reload at a time
	mu        sync.Mutex // guards what follows
	reloaded  time.Time  // last time the state may have changed
	hooks     map[*func(ReloadReport)]struct{}
}

// ReloadReport tells what a Reload brought.
type ReloadReport struct {
	Changed  []string // one line for each file that has other content now
	Warnings []string // those that the state before did not have
}

// pkiState is what the files say. It never changes; Reload makes another.
type pkiState struct {
	cert     tls.Certificate // with Leaf
	cas      []*x509.Certificate
	roots    *x509.CertPool
	crls     []*crl
	content  map[string][]byte // by what it is, see readPKI
	about    map[string]string // one line each, same keys
	warnings []string
}

// LoadPKI reads the files. Errors: a file that is missing or not what it is to
// be, a private key that others may read, a key that is not the certificate's,
// a CRL that its CA did not sign. A certificate of ours that is expired, or
// that peers will refuse for another reason, is loaded; Warnings tells.
func LoadPKI(files PKIFiles) (*PKI, error) {
	files.CRL = slices.Clone(files.CRL)
	s, err := readPKI(files, time.Now())
	if err != nil {
		return nil, err
	}
	p := &PKI{files: files, hooks: map[*func(ReloadReport)]struct{}{}}
	p.now.Store(s)
	return p, nil
}

// Warnings tells, one line each, what is wrong with the files as they are
// loaded, though not so wrong that they are refused.
func (p *PKI) Warnings() []string { return slices.Clone(p.now.Load().warnings) }

// Reload reads the files again. On any error everything stays as it was.
// Living connections go on; those whose peer no longer verifies take no new
// streams. What changed is told to the functions of OnReload, and so to the
// log of each Host.
func (p *PKI) Reload() error { return p.reload(true) }

// reload does nothing when no file has changed, unless always is set: peers
// are verified anew then, for time passes.
func (p *PKI) reload(always bool) error {
	p.reloading.Lock()
	defer p.reloading.Unlock()
	s, err := readPKI(p.files, time.Now())
	if err != nil {
		return fmt.Errorf("certificates are not reloaded, the old ones stay: %w", err)
	}
	report := s.since(p.now.Load())
	if len(report.Changed) == 0 && !always {
		return nil
	}
	p.now.Store(s)
	p.mu.Lock()
	p.reloaded = time.Now()
	hooks := make([]func(ReloadReport), 0, len(p.hooks))
	for f := range p.hooks {
		hooks = append(hooks, *f)
	}
	p.mu.Unlock()
	for _, f := range hooks {
		f(report)
	}
	return nil
}

// OnReload has f called after each successful Reload, on the goroutine of that
// Reload, until stop is called; a call under way may end after stop. Hosts use
// it to verify the peers of living connections anew. f must not call Reload.
func (p *PKI) OnReload(f func(ReloadReport)) (stop func()) {
	key := &f
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hooks[key] = struct{}{}
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.hooks, key)
	}
}

// reloadedWithin tells whether a reload came so lately.
func (p *PKI) reloadedWithin(d time.Duration) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.reloaded.IsZero() && time.Since(p.reloaded) < d
}

// since compares with the state before.
func (s *pkiState) since(old *pkiState) ReloadReport {
	var r ReloadReport
	for what, b := range s.content {
		if !bytes.Equal(b, old.content[what]) {
			r.Changed = append(r.Changed, s.about[what])
		}
	}
	slices.Sort(r.Changed)
	for _, w := range s.warnings {
		if !slices.Contains(old.warnings, w) {
			r.Warnings = append(r.Warnings, w)
		}
	}
	return r
}

// readPKI reads and checks all files. The private key is not kept as content:
// another key comes with another certificate.
func readPKI(files PKIFiles, now time.Time) (*pkiState, error) {
	s := &pkiState{content: map[string][]byte{}, about: map[string]string{}}
	if err := s.readOwn(files, now); err != nil {
		return nil, err
	}
	if err := s.readCAs(files.CA, now); err != nil {
		return nil, err
	}
	for _, path := range files.CRL {
		if err := s.readCRL(path, now); err != nil {
			return nil, err
		}
	}
	s.warnings = append(s.warnings, s.ownWarnings(files, now)...)
	return s, nil
}

func (s *pkiState) readOwn(files PKIFiles, now time.Time) error {
	certPEM, err := readPKIFile(files.Cert, "certificate")
	if err != nil {
		return err
	}
	if files.Key == "" {
		return errors.New("private key: no file is named")
	}
	keyPEM, err := readPrivate(files.Key, "private key", 0, 0)
	if err != nil {
		return err
	}
	if bytes.Contains(keyPEM, []byte("ENCRYPTED")) {
		return fmt.Errorf("private key %s: encrypted with a passphrase: decrypt it (openssl pkey -in OLD -out NEW)", files.Key)
	}
	s.cert, err = tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return fmt.Errorf("certificate %s with private key %s: %w", files.Cert, files.Key, err)
	}
	leaf := s.cert.Leaf
	s.content["cert"] = certPEM
	s.about["cert"] = fmt.Sprintf("certificate %s: %s", files.Cert, describe(leaf))
	if now.After(leaf.NotAfter) {
		s.warnings = append(s.warnings, fmt.Sprintf("certificate %s expired at %s, peers refuse it: renew it", files.Cert, stamp(leaf.NotAfter)))
	} else if now.Before(leaf.NotBefore) {
		s.warnings = append(s.warnings, fmt.Sprintf("certificate %s is valid from %s on, peers refuse it until then: look at the clock", files.Cert, stamp(leaf.NotBefore)))
	}
	return nil
}

func (s *pkiState) readCAs(path string, now time.Time) error {
	b, err := readPKIFile(path, "CA bundle")
	if err != nil {
		return err
	}
	if s.cas, err = parseCertificates(b); err != nil {
		return fmt.Errorf("CA bundle %s: %w", path, err)
	}
	s.roots = x509.NewCertPool()
	for _, ca := range s.cas {
		s.roots.AddCert(ca)
		if now.After(ca.NotAfter) {
			s.warnings = append(s.warnings, fmt.Sprintf("CA bundle %s: %q expired at %s, peers that rely on it are refused", path, ca.Subject, stamp(ca.NotAfter)))
		}
	}
	s.content["ca"] = b
	s.about["ca"] = fmt.Sprintf("CA bundle %s: %d certificates", path, len(s.cas))
	return nil
}

// ownWarnings tells why peers with the same CAs would refuse our certificate.
func (s *pkiState) ownWarnings(files PKIFiles, now time.Time) []string {
	if leaf := s.cert.Leaf; now.After(leaf.NotAfter) || now.Before(leaf.NotBefore) {
		return nil // told already
	}
	chain, err := parseDER(s.cert.Certificate)
	if err != nil {
		return []string{fmt.Sprintf("certificate %s: %v", files.Cert, err)}
	}
	var warnings []string
	for usage, as := range map[x509.ExtKeyUsage]string{x509.ExtKeyUsageServerAuth: "as a server", x509.ExtKeyUsageClientAuth: "as a client"} {
		if err := s.verifyChain(chain, usage, now); err != nil {
			warnings = append(warnings, fmt.Sprintf("certificate %s: peers with our CAs and CRLs refuse it %s: %v", files.Cert, as, err))
		}
	}
	slices.Sort(warnings)
	return warnings
}
