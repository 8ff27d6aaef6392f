package names

import (
	"strings"
	"testing"
)

func TestIsHost(t *testing.T) {
	for s, want := range map[string]bool{
		"a": true, "web-1.example": true, "WEB.Example": true, "my_svc": true, "1.2.3.4": true, strings.Repeat("a", 63) + ".b": true,
		"": false, ".": false, "a.": false, ".a": false, "a..b": false, "-a": false, "a-": false, "*.a": false, "a b": false,
		"a/b": false, "spiffe://a": false, "münchen": false, strings.Repeat("a", 64): false, strings.Repeat("a.", 127) + "a": false,
	} {
		if IsHost(s) != want {
			t.Errorf("IsHost(%q) is %v", s, !want)
		}
	}
}

func TestIsSPIFFE(t *testing.T) {
	for s, want := range map[string]bool{
		"spiffe://td": true, "spiffe://td.example/ns/a": true, "spiffe://td/A_b-c.d": true,
		"": false, "spiffe://": false, "spiffe://TD/a": false, "spiffe://td/": false, "spiffe://td//a": false, "spiffe://td/../a": false,
		"spiffe://td/./a": false, "spiffe://td/a?b": false, "spiffe://td/a#b": false, "spiffe://u@td/a": false, "spiffe://td:1/a": false,
		"spiffe://td/%61": false, "https://td/a": false, "SPIFFE://td/a": false, "spiffe://td/ü": false, "spiffe://td/*": false,
	} {
		if IsSPIFFE(s) != want {
			t.Errorf("IsSPIFFE(%q) is %v", s, !want)
		}
	}
}
