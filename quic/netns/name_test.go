package netns

import (
	"os"
	"path/filepath"
	"testing"
)

func TestName(t *testing.T) {
	was := namesDir
	namesDir = t.TempDir()
	t.Cleanup(func() { namesDir = was })
	own, err := Self()
	if err != nil {
		t.Fatal(err)
	}
	link := func(name string) {
		t.Helper()
		if err := os.Symlink("/proc/self/ns/net", filepath.Join(namesDir, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"cni-5cbd9a9c-64a1-f8f4-b1a3-2d8ee3a3b1f0", "two words", "at@home"} {
		link(name)
	}
	if got := Name(own.ID()); got != "" {
		t.Errorf("%q is a name", got)
	}
	link("blue")
	if got := Name(own.ID()); got != "blue" {
		t.Errorf("the namespace is called %q, want blue", got)
	}
	if got := Name(own.ID() + 1); got != "" {
		t.Errorf("another namespace is called %q", got)
	}
}
