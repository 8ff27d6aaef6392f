package filter

import "testing"

// FuzzMatch: what is accepted is within what socket(2) takes, and means the
// same when written again.
func FuzzMatch(f *testing.F) {
	f.Add("inet,stream,tcp")
	f.Add("AF_INET6,SOCK_STREAM,0x84")
	f.Fuzz(func(t *testing.T, s string) {
		m, err := ParseMatch(s)
		if err != nil {
			return
		}
		if m.Type > sockTypeMask || m.Domain > 1<<31-1 || m.Proto > 1<<31-1 {
			t.Errorf("%q: %v", s, m)
		}
		if again, err := ParseMatch(m.String()); err != nil || again != m {
			t.Errorf("%q: %v, then %v, %v", s, m, again, err)
		}
	})
}
