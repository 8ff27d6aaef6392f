package launcher

import "testing"

// FuzzInherited: what is accepted means the same when written again.
func FuzzInherited(f *testing.F) {
	f.Add(inherited{1, 2, 3, 4, 5}.String())
	f.Add("0:0:0:0:ffffffffffffffff")
	f.Fuzz(func(t *testing.T, s string) {
		in, err := parseInherited(s)
		if err != nil {
			return
		}
		if again, err := parseInherited(in.String()); err != nil || again != in {
			t.Errorf("%q: %v, then %v, %v", s, in, again, err)
		}
	})
}
