// Package names tells well-formed names of hosts and workloads from others.
package names

import "strings"

// SPIFFEPrefix begins every SPIFFE ID.
const SPIFFEPrefix = "spiffe://"

// IsHost accepts host names of RFC 1123 section 2.1, of either case, and
// underscores in them, which container platforms use. Addresses in dotted
// decimal look like host names; callers that care ask netip.ParseAddr first.
func IsHost(s string) bool {
	if len(s) == 0 || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if len(label) == 0 || len(label) > 63 || strings.Trim(label, "-") != label || !plain(label, "-_") {
			return false
		}
	}
	return true
}

// IsSPIFFE accepts SPIFFE IDs (SPIFFE-ID section 2): a trust domain in lower
// case, a path of plain segments, nothing else.
func IsSPIFFE(s string) bool {
	rest, ok := strings.CutPrefix(s, SPIFFEPrefix)
	if !ok || len(s) > 2048 {
		return false
	}
	for i, segment := range strings.Split(rest, "/") {
		if segment == "" || segment == "." || segment == ".." || !plain(segment, "-_.") {
			return false
		}
		if i == 0 && (segment != strings.ToLower(segment) || len(segment) > 255) {
			return false
		}
	}
	return true
}

// plain: letters and digits of ASCII, and those in also.
func plain(s, also string) bool {
	for _, c := range []byte(s) {
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !letter && strings.IndexByte(also, c) < 0 {
			return false
		}
	}
	return true
}
