package network

import (
	"testing"
	"time"

	"github.com/poemq/poemq/test/link"
)

// A path that loses and reorders packets, and swallows large ones without a word
// (a hole of path MTU discovery), costs time and nothing else.
func TestRoughPath(t *testing.T) {
	const (
		size    = 4 << 20
		largest = 1330 // octets of an IP packet
	)
	s := newPoemqStage(t, link.Params{Delay: 5 * time.Millisecond, Rate: 50e6, Loss: 0.005, Reorder: 0.01})
	s.wire.refuses(func(_ link.Direction, p link.Packet) bool { return len(p) > largest })
	s.server.serve(s.server.under, "serve", port)
	for _, action := range []string{"get", "put"} {
		client := s.client.under(s.peer, action, s.server.at(port), size).Start()
		client.Wait(time.Minute)
		said := client.Stdout()
		if result := textOf(t, said, "result"); result != "ok" || numberOf(t, said, "octets") != size {
			t.Fatalf("%s ended with %s", action, said)
		}
		t.Logf("%s: %v", action, timeOf(t, said, "us").Round(time.Millisecond))
	}
	if c, _, _ := s.wire.take(); c.tcp != 0 || c.udp == 0 {
		t.Errorf("on the wire: %v; want UDP only", c)
	}
}
