package quic

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/poemq/poemq/quic/internal/names"
)

// PeerIdentity is who is at the other end, as far as that was verified. A
// client that showed no certificate, since we did not ask, is the zero value.
type PeerIdentity struct {
	// Names are the DNS names, URIs and IP addresses of the certificate; the
	// common name only if it has no alternative name at all.
	Names   []string
	Key     string // "sha256:BASE64" of the public key
	Subject string // distinguished name, RFC 2253
}

// String is short, for logs.
func (id PeerIdentity) String() string {
	if id.Key == "" {
		return "nobody in particular"
	}
	return fmt.Sprintf("%s [%s]", id.Subject, strings.Join(id.Names, " "))
}

func identityOf(leaf *x509.Certificate) PeerIdentity {
	return PeerIdentity{Names: certNames(leaf), Key: fingerprint(leaf), Subject: leaf.Subject.String()}
}

// certNames leaves out what says it is a name of another kind: a DNS name or a
// common name could be "spiffe://…" or an address where a CA checks it less.
func certNames(c *x509.Certificate) []string {
	var all []string
	for _, n := range c.DNSNames {
		if isHostName(strings.TrimPrefix(n, "*.")) {
			all = append(all, n)
		}
	}
	for _, u := range c.URIs {
		all = append(all, u.String())
	}
	for _, ip := range c.IPAddresses {
		if a, ok := netip.AddrFromSlice(ip); ok {
			all = append(all, a.Unmap().String())
		}
	}
	cn := c.Subject.CommonName
	if len(c.DNSNames)+len(c.URIs)+len(c.IPAddresses)+len(c.EmailAddresses) == 0 && isHostName(cn) {
		all = append(all, cn)
	}
	return all
}

func isHostName(s string) bool {
	_, err := netip.ParseAddr(s)
	return err != nil && names.IsHost(s)
}

// PortRange are the TCP ports from First to Last, both included.
type PortRange struct{ First, Last uint16 }

// ParsePortRange reads "443" or "8000-8099".
func ParsePortRange(s string) (PortRange, error) {
	first, last, isRange := strings.Cut(s, "-")
	if !isRange {
		last = first
	}
	a, err := strconv.ParseUint(first, 10, 16)
	b, err2 := strconv.ParseUint(last, 10, 16)
	if err := errors.Join(err, err2); err != nil || a == 0 || a > b {
		return PortRange{}, fmt.Errorf("port range %q: want a port from 1 to 65535, or two of them as in 8000-8099", s)
	}
	return PortRange{uint16(a), uint16(b)}, nil
}

func (r PortRange) String() string {
	if r.First == r.Last {
		return strconv.Itoa(int(r.First))
	}
	return fmt.Sprintf("%d-%d", r.First, r.Last)
}

// Allow lets peers connect to ports.
type Allow struct {
	// Peers are patterns, of which one has to match one name of the peer (or
	// its key): a name, an address or "sha256:…" as it is; "*.web.example"
	// with exactly one label for the star; "spiffe://td/ns/*" with exactly one
	// path segment for each star; "*" for every peer that has a name.
	Peers []string
	// Ports of ours; none means all.
	Ports []PortRange
}

// AllowList says who may connect to ports. One that no entry names is open to
// every peer.
type AllowList []Allow

// Authorize is for Config.Authorize.
func (l AllowList) Authorize(id PeerIdentity, local netip.AddrPort) error {
	if !l.Names(local.Port()) {
		return nil
	}
	for _, a := range l {
		if a.covers(local.Port()) && a.lists(id) {
			return nil
		}
	}
	return fmt.Errorf("no entry of the allow list lets %v connect to port %d", id, local.Port())
}

// Names reports that port is one that not everybody may connect to.
func (l AllowList) Names(port uint16) bool {
	return slices.ContainsFunc(l, func(a Allow) bool { return a.covers(port) })
}

// Validate tells which entry can never mean what it says.
func (l AllowList) Validate() error {
	for i, a := range l {
		if len(a.Peers) == 0 {
			return fmt.Errorf("allow list, entry %d: no peers; \"*\" means all that have a name", i+1)
		}
		for _, p := range a.Peers {
			if !validPattern(p) {
				return fmt.Errorf("allow list, entry %d: %q is none of a DNS name, *.NAME, an IP address, spiffe://…, sha256:… and *", i+1, p)
			}
		}
		for _, r := range a.Ports {
			if r.First == 0 || r.First > r.Last {
				return fmt.Errorf("allow list, entry %d: port range %v is empty", i+1, r)
			}
		}
	}
	return nil
}

func (a Allow) covers(port uint16) bool {
	return len(a.Ports) == 0 || slices.ContainsFunc(a.Ports, func(r PortRange) bool {
		return r.First <= port && port <= r.Last
	})
}

func (a Allow) lists(id PeerIdentity) bool {
	return slices.ContainsFunc(a.Peers, func(pattern string) bool {
		if strings.HasPrefix(pattern, keyPrefix) {
			return pattern == id.Key
		}
		return slices.ContainsFunc(id.Names, func(name string) bool { return matchName(pattern, name) })
	})
}

// validPattern: a star stands for a whole label or segment, never for a part.
func validPattern(p string) bool {
	if strings.HasPrefix(p, keyPrefix) {
		_, err := parseExpect(p, false)
		return err == nil
	}
	if domain, ok := strings.CutPrefix(p, names.SPIFFEPrefix); ok {
		if strings.HasPrefix(domain, "*") {
			return false // every trust domain: whoever can make one is let in
		}
		segments := strings.Split(p, "/")
		for i, segment := range segments {
			if segment == "*" {
				segments[i] = "x"
			}
		}
		return names.IsSPIFFE(strings.Join(segments, "/"))
	}
	if _, err := netip.ParseAddr(p); err == nil {
		return true
	}
	return p == "*" || names.IsHost(strings.TrimPrefix(p, "*."))
}

// matchName compares a pattern of Allow.Peers with a name of a certificate.
func matchName(pattern, name string) bool {
	switch {
	case pattern == "*":
		return true
	case strings.HasPrefix(pattern, names.SPIFFEPrefix):
		return matchSPIFFE(pattern, name)
	case strings.Contains(name, "://"):
		return false
	}
	if a, err := netip.ParseAddr(pattern); err == nil {
		b, err := netip.ParseAddr(name)
		return err == nil && a.Unmap() == b.Unmap()
	}
	pattern, name = strings.ToLower(pattern), strings.ToLower(name)
	if domain, ok := strings.CutPrefix(pattern, "*."); ok {
		if _, err := netip.ParseAddr(name); err == nil {
			return false
		}
		label, rest, ok := strings.Cut(name, ".")
		return ok && label != "" && rest == domain
	}
	return pattern == name
}

func matchSPIFFE(pattern, name string) bool {
	if !names.IsSPIFFE(name) {
		return false
	}
	want, got := strings.Split(pattern, "/"), strings.Split(name, "/")
	if len(want) != len(got) {
		return false
	}
	for i := range want {
		// The first three are "spiffe:", "" and the trust domain.
		if want[i] != got[i] && (i < 3 || want[i] != "*") {
			return false
		}
	}
	return true
}
