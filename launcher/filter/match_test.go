package filter

import (
	"strings"
	"testing"
)

func TestParseMatch(t *testing.T) {
	for _, c := range []struct {
		in   string
		want Match
		bad  string // a word of the error
	}{
		{"inet,stream,tcp", Match{2, 1, 6}, ""},
		{"AF_INET6,SOCK_STREAM,IPPROTO_TCP", Match{10, 1, 6}, ""},
		{"pf_inet,1,0", Match{2, 1, 0}, ""},
		{"2,1,261", Match{2, 1, 261}, ""},
		{"inet,stream,quic", Match{2, 1, 261}, ""},
		{"inet,stream,IPPROTO_QUIC", Match{2, 1, 261}, ""},
		{"inet, stream, 123456", Match{2, 1, 123456}, ""},
		{"0xa,0x1,0x6", Match{10, 1, 6}, ""},
		{"inet,seqpacket,sctp", Match{2, 5, 132}, ""},
		{"", Match{}, "DOMAIN,TYPE,PROTO"},
		{"inet,stream", Match{}, "DOMAIN,TYPE,PROTO"},
		{"inet,stream,tcp,0", Match{}, "DOMAIN,TYPE,PROTO"},
		{"ipv4,stream,tcp", Match{}, "domain"},
		{"SOCK_STREAM,stream,tcp", Match{}, "domain"},
		{"inet,,tcp", Match{}, "type"},
		{"inet,16,tcp", Match{}, "0 to 15"},
		{"inet,stream,-1", Match{}, "protocol"},
		{"inet,stream,4294967296", Match{}, "protocol"},
		{"inet,stream,2147483648", Match{}, "2147483647"},
		{"inet,stream,tpc", Match{}, `"tpc"`},
	} {
		got, err := ParseMatch(c.in)
		switch {
		case c.bad == "" && (err != nil || got != c.want):
			t.Errorf("%q: %v, %v", c.in, got, err)
		case c.bad != "" && (err == nil || !strings.Contains(err.Error(), c.bad)):
			t.Errorf("%q: %v, %v, want an error with %q", c.in, got, err, c.bad)
		case c.bad == "":
			if again, err := ParseMatch(got.String()); again != got || err != nil {
				t.Errorf("%q becomes %q, which is %v, %v", c.in, got, again, err)
			}
		}
	}
}
