package launcher

import (
	"slices"
	"testing"
)

func TestCandidates(t *testing.T) {
	for _, c := range []struct {
		name string
		env  []string
		want []string
	}{
		{"x", []string{"PATH=/a:/b"}, []string{"/a/x", "/b/x"}},
		{"x", []string{"PATH=:/b:"}, []string{"x", "/b/x", "x"}},
		{"x", []string{"PATH="}, []string{"x"}},
		{"x", nil, []string{"/bin/x", "/usr/bin/x"}},
		{"x", []string{"PATH=/a", "PATH=/b"}, []string{"/a/x"}},
		{"./x", []string{"PATH=/a"}, []string{"./x"}},
		{"d/x", []string{"PATH=/a"}, []string{"d/x"}},
		{"", []string{"PATH=/a"}, nil},
	} {
		if got := candidates(c.name, c.env); !slices.Equal(got, c.want) {
			t.Errorf("%q in %q: %q, want %q", c.name, c.env, got, c.want)
		}
	}
}
