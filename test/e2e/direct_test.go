package e2e

import (
	"testing"
	"time"
)

// TestDirect: with [wire] local = "direct" programs of one broker are connected
// with each other. All bytes arrive, in both directions, no packet is seen, and
// many connections leave nothing behind in the broker.
func TestDirect(t *testing.T) {
	if native {
		t.Skip("there is no broker on a native run")
	}
	l := loopback(t)
	configure(t, l.server, "[wire]\nlocal = \"direct\"\n")
	b := startBroker(t, l.server)
	const n = "20000000"
	for _, way := range []struct{ name, client, server string }{
		{"client writes", "blast", "sink"},
		{"server writes", "sink", "blast"},
	} {
		t.Run(way.name, func(t *testing.T) {
			port := freePort(t)
			addr := hostPort(l.server.v4, port)
			seen := l.capture(t, port)
			server := l.server.serve(t, port, input{}, program("gopeer"), "listen", addr, way.server, n)
			client := l.client.start(t, input{}, program("gopeer"), "connect", addr, way.client, n)
			client.succeed(t, 20*time.Second)
			server.succeed(t, 20*time.Second)
			said := client.stdout() + server.stdout()
			if sent, received := field(said, "sent "), field(said, "received "); sent == "" || sent != received {
				t.Errorf("sent %q, received %q", sent, received)
			}
			if udp, tcp := count(t, seen.udp), count(t, seen.tcp); udp+tcp != 0 {
				t.Errorf("%d UDP packets and %d TCP segments were seen, want none", udp, tcp)
			}
		})
	}
	t.Run("3000 in sequence", func(t *testing.T) {
		port := freePort(t)
		addr := hostPort(l.server.v4, port)
		l.server.serve(t, port, input{}, program("gopeer"), "listen", addr, "banner")
		churn := func(n string) {
			c := l.client.start(t, input{}, program("gopeer"), "connect", addr, "churn", n)
			c.succeed(t, time.Minute)
			c.says(t, time.Second, "churned "+n)
		}
		churn("100")
		before := b.usage(t)
		churn("3000")
		b.returnsTo(t, before)
	})
}
