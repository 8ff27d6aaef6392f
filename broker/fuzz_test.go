package broker

import (
	"strings"
	"testing"
)

// FuzzCgroup: the path is one that is in the text, on one line.
func FuzzCgroup(f *testing.F) {
	f.Add("0::/system.slice/nginx.service\n")
	f.Add("12:pids:/a\n1:name=systemd:/user.slice\n0::/\n")
	f.Fuzz(func(t *testing.T, s string) {
		if path := cgroupIn([]byte(s)); !strings.Contains(s, path) || strings.Contains(path, "\n") {
			t.Errorf("%q in %q", path, s)
		}
	})
}
