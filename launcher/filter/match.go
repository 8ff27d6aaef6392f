package filter

import (
	"errors"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Match names the arguments of the socket(2) calls that are handed to the
// broker. Every flag or'ed into the type (SOCK_NONBLOCK, SOCK_CLOEXEC) is
// disregarded. In the handover it is written as [domain, type, protocol].
type Match struct {
	Domain, Type, Proto uint32
}

// sockTypeMask leaves the socket type without its flags (SOCK_TYPE_MASK in the
// kernel's include/linux/net.h).
const sockTypeMask = 0xf

// DefaultMatches are the arguments with which programs ask for TCP over IPv4
// and IPv6: protocol 0, IPPROTO_TCP, and IPPROTO_MPTCP, which is TCP to who
// asks for it (mptcp(7)) and what Go programs listen with.
func DefaultMatches() []Match {
	var all []Match
	for _, domain := range []uint32{unix.AF_INET, unix.AF_INET6} {
		for _, proto := range []uint32{0, unix.IPPROTO_TCP, unix.IPPROTO_MPTCP} {
			all = append(all, Match{domain, unix.SOCK_STREAM, proto})
		}
	}
	return all
}

// Names as in socket(2), in lower case and without their prefix.
var (
	domainNames = map[string]uint32{"inet": unix.AF_INET, "inet6": unix.AF_INET6, "unix": unix.AF_UNIX, "local": unix.AF_UNIX}
	typeNames   = map[string]uint32{"stream": unix.SOCK_STREAM, "dgram": unix.SOCK_DGRAM, "seqpacket": unix.SOCK_SEQPACKET}
	protoNames  = map[string]uint32{"ip": 0, "tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP, "sctp": unix.IPPROTO_SCTP, "mptcp": unix.IPPROTO_MPTCP, "quic": 261}
)

// String is the match in numbers, as ParseMatch reads it.
func (m Match) String() string {
	var s [3]string
	for i, v := range []uint32{m.Domain, m.Type, m.Proto} {
		s[i] = strconv.FormatUint(uint64(v), 10)
	}
	return strings.Join(s[:], ",")
}

// ParseMatch reads DOMAIN,TYPE,PROTO. Each part is a number (decimal, 0x…, 0…)
// or a name with or without its prefix: inet or AF_INET, stream or SOCK_STREAM,
// tcp or IPPROTO_TCP. A type must fit in the four bits the kernel reserves for
// it; a domain or protocol in a C int.
func ParseMatch(s string) (Match, error) {
	parts := strings.Split(s, ",")
	if len(parts) != 3 {
		return Match{}, errors.New("match " + strconv.Quote(s) + ": want DOMAIN,TYPE,PROTO, such as inet,stream,tcp")
	}
	var m Match
	for i, p := range []struct {
		what     string
		prefixes []string
		names    map[string]uint32
		max      uint64
		to       *uint32
	}{
		{"domain", []string{"AF_", "PF_"}, domainNames, 1<<31 - 1, &m.Domain},
		{"type", []string{"SOCK_"}, typeNames, sockTypeMask, &m.Type},
		{"protocol", []string{"IPPROTO_"}, protoNames, 1<<31 - 1, &m.Proto},
	} {
		v, ok := parseArg(strings.TrimSpace(parts[i]), p.prefixes, p.names, p.max)
		if !ok {
			return Match{}, errors.New("match " + strconv.Quote(s) + ": " + strconv.Quote(parts[i]) +
				" is no socket " + p.what + " (a name as in socket(2), or a number from 0 to " + strconv.FormatUint(p.max, 10) + ")")
		}
		*p.to = v
	}
	return m, nil
}

func parseArg(s string, prefixes []string, names map[string]uint32, max uint64) (uint32, bool) {
	if n, err := strconv.ParseUint(s, 0, 32); err == nil {
		return uint32(n), n <= max
	}
	name := strings.ToUpper(s)
	for _, p := range prefixes {
		name = strings.TrimPrefix(name, p)
	}
	v, ok := names[strings.ToLower(name)]
	return v, ok
}

// Unique returns the matches without repetition, in their first order.
func Unique(ms []Match) []Match {
	var out []Match
	seen := map[Match]bool{}
	for _, m := range ms {
		if !seen[m] {
			seen[m] = true
			out = append(out, m)
		}
	}
	return out
}
