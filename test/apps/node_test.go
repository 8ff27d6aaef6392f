package apps

import (
	"testing"

	"github.com/poemq/poemq/test/rig"
)

func TestNodeHTTP(t *testing.T) {
	r := rig.New(t, "node")
	port := r.Port()
	server := r.Command("node", testdata("http.js"), "server", port).Start()
	server.Says("listening")
	if got, want := r.Command("node", testdata("http.js"), "client", port).Output(), "200 right answers\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestNodeNet(t *testing.T) {
	r := rig.New(t, "node")
	port := r.Port()
	file, sum := r.Random("file", bigFile)
	server := r.Command("node", testdata("net.js"), "server", port).Start()
	server.Says("listening")
	if got, want := r.Command("node", testdata("net.js"), "client", port, file).Output(), sum+" names agree\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
