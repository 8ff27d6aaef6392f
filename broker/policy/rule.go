package policy

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"path"
	"strconv"
	"strings"
)

// Mode is how a connection is carried.
type Mode uint8

// The modes.
const (
	Unset   Mode = iota // what is asked elsewhere
	Require             // QUIC or an error
	Prefer              // QUIC where the peer has it, else the kernel's TCP
	Off                 // the kernel's TCP
)

var modeNames = [...]string{"", "require", "prefer", "off"}

func (m Mode) String() string { return modeNames[m] }

// ParseMode reads a mode's name; the empty one is Unset.
func ParseMode(s string) (Mode, error) {
	for m, name := range modeNames {
		if s == name {
			return Mode(m), nil
		}
	}
	return Unset, fmt.Errorf("%q is none of require, prefer, off", s)
}

// Framing is how a TCP connection lies in a QUIC connection.
type Framing uint8

// The framings.
const (
	FramingPoemq Framing = iota // docs/wire.md
	FramingRaw                  // a stream without a header
)

var framingNames = [...]string{"poemq", "raw"}

func (f Framing) String() string { return framingNames[f] }

// ParseFraming reads a framing's name.
func ParseFraming(s string) (Framing, error) {
	for f, name := range framingNames {
		if s == name {
			return Framing(f), nil
		}
	}
	return 0, fmt.Errorf("%q is none of poemq, raw", s)
}

// Rule says what is done with the connections and listening ports it is about.
// A condition that is empty holds for everything. To is about connects only,
// Listen about listening only; a rule that has neither is about both.
type Rule struct {
	Name  string // free text for logs
	Where string // where it was written, for logs

	To       []Target // the address connected to
	Listen   []Target // the address listened on, without host names
	Ports    []Ports  // the port connected to or listened on
	UIDs     []uint32 // the program's effective user
	Cgroups  []string // the program's cgroup, or one above it
	Sessions []string // the session's name

	Mode     Mode
	Identity string // see ParseIdentity
	ZeroRTT  bool
	ALPN     string
	Framing  Framing
}

// Check refuses what cannot be meant.
func (r *Rule) Check() error {
	for _, t := range r.Listen {
		if t.Host != "" {
			return fmt.Errorf("listen takes addresses, and %q is a name", t.Host)
		}
	}
	switch {
	case r.Framing == FramingRaw && r.ALPN == "":
		return errors.New(`framing "raw" needs alpn: QUIC peers agree on a protocol by it (RFC 9001 section 8.1)`)
	case r.Framing != FramingRaw && r.ALPN != "":
		return errors.New(`alpn goes with framing "raw"; poemq's own framing has its own`)
	case r.Mode == Off && (r.Identity != "" || r.ZeroRTT || r.Framing == FramingRaw):
		return errors.New(`mode "off" is the kernel's TCP, which has no identity, zero_rtt or framing`)
	}
	return nil
}

// Target is a set of addresses: a prefix, or those of a host name.
type Target struct {
	Prefix netip.Prefix
	Host   string
}

func (t Target) String() string {
	if t.Host != "" {
		return t.Host
	}
	if t.Prefix.IsSingleIP() {
		return t.Prefix.Addr().String()
	}
	return t.Prefix.String()
}

// ParseTarget reads an address, an address/bits prefix or a host name.
func ParseTarget(s string) (Target, error) {
	if addr, bits, ok := strings.Cut(s, "/"); ok {
		p, err := netip.ParsePrefix(s)
		switch {
		case err != nil:
			return Target{}, fmt.Errorf("%q is no prefix like 10.0.0.0/8 or fd00::/8", s)
		case p.Addr().Is4In6():
			return Target{}, fmt.Errorf("%q: write the IPv4 prefix itself", s)
		case p != p.Masked():
			return Target{}, fmt.Errorf("%q has bits of %s beyond the first %s; %s is meant, or %s/%d", s, addr, bits, p.Masked(), addr, p.Addr().BitLen())
		}
		return Target{Prefix: p}, nil
	}
	if a, err := netip.ParseAddr(s); err == nil {
		if a.Zone() != "" {
			return Target{}, fmt.Errorf("%q: rules know no zones; leave %q out", s, "%"+a.Zone())
		}
		a = a.Unmap()
		return Target{Prefix: netip.PrefixFrom(a, a.BitLen())}, nil
	}
	if !isHostName(s) {
		return Target{}, fmt.Errorf("%q is no address, prefix or host name", s)
	}
	return Target{Host: strings.TrimSuffix(strings.ToLower(s), ".")}, nil
}

// isHostName follows RFC 1123 section 2.1, and takes underscores too. A name
// that ends in a number would be a mistyped address.
func isHostName(s string) bool {
	s = strings.TrimSuffix(s, ".")
	if s == "" || len(s) > 253 {
		return false
	}
	labels := strings.Split(s, ".")
	for _, label := range labels {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range []byte(label) {
			switch {
			case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
			default:
				return false
			}
		}
	}
	last := labels[len(labels)-1]
	return last[0] < '0' || last[0] > '9'
}

// Ports is a range of ports, both ends included.
type Ports struct{ First, Last uint16 }

func (p Ports) String() string {
	if p.First == p.Last {
		return strconv.Itoa(int(p.First))
	}
	return fmt.Sprintf("%d-%d", p.First, p.Last)
}

// ParsePorts reads a port or FIRST-LAST.
func ParsePorts(s string) (Ports, error) {
	first, last, isRange := strings.Cut(s, "-")
	if !isRange {
		last = first
	}
	a, err1 := strconv.ParseUint(first, 10, 16)
	b, err2 := strconv.ParseUint(last, 10, 16)
	if err1 != nil || err2 != nil || a == 0 || b == 0 {
		return Ports{}, fmt.Errorf("%q is no port from 1 to 65535 and no range of them like 8000-8100", s)
	}
	if a > b {
		return Ports{}, fmt.Errorf("%q ends before it begins", s)
	}
	return Ports{uint16(a), uint16(b)}, nil
}

// ParseCgroup reads the path of a cgroup as /proc/PID/cgroup has it.
func ParseCgroup(s string) (string, error) {
	if !strings.HasPrefix(s, "/") || path.Clean(s) != s {
		return "", fmt.Errorf("%q is no path of a cgroup like /system.slice/nginx.service", s)
	}
	return s, nil
}

// Pin is the identity of a peer whose key is remembered at first use.
const Pin = "pin"

// ParseIdentity reads who a peer must be: pin, sha256: with the hash of its key
// in base64, spiffe://TRUSTDOMAIN/PATH, or a host name of its certificate. Empty
// leaves it to the rest of the configuration.
func ParseIdentity(s string) (string, error) {
	hash, isHash := strings.CutPrefix(s, "sha256:")
	switch {
	case s == "", s == Pin:
		return s, nil
	case isHash:
		if b, err := base64.StdEncoding.DecodeString(hash); err != nil || len(b) != 32 {
			return "", fmt.Errorf("%q is not sha256: and 32 octets in base64, as poemqd tells of a peer", s)
		}
		return s, nil
	case strings.HasPrefix(s, "spiffe://"):
		u, err := url.Parse(s)
		if err != nil || u.Host == "" || u.User != nil || u.Port() != "" || u.RawQuery != "" || u.Fragment != "" {
			return "", fmt.Errorf("%q is no SPIFFE ID like spiffe://example.com/web", s)
		}
		return s, nil
	case isHostName(s):
		return s, nil
	}
	return "", fmt.Errorf("%q is none of pin, sha256:…, spiffe://… or a host name", s)
}

// ParseALPN reads the name of a protocol (RFC 7301).
func ParseALPN(s string) (string, error) {
	if len(s) > 255 {
		return "", fmt.Errorf("%d octets are more than a protocol's name may have, 255", len(s))
	}
	return s, nil
}
