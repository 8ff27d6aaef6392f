package e2e

import (
	"testing"
	"time"
)

// TestBrokerKilled kills a broker in the middle of a transfer: both programs
// get an error, never a clean end of file, and nothing hangs.
func TestBrokerKilled(t *testing.T) {
	needPoemq(t)
	const (
		// nearLimit is for the program whose own broker died.
		nearLimit = 5 * time.Second
		// farLimit is for the other: its broker learns of it when the
		// QUIC connection times out.
		farLimit = 60 * time.Second
	)
	for _, who := range []string{"the client's", "the server's", "the only"} {
		for _, does := range []struct{ name, client, server string }{
			{"client sends", "endless", "sink"},
			{"server sends", "sink", "endless"},
			{"both wait", "idle", "idle"},
		} {
			t.Run(who+" broker, "+does.name, func(t *testing.T) {
				l := loopback(t)
				var victim *broker
				if who == "the only" {
					victim = startBroker(t, l.server)
				} else {
					l.client = newHost(t)
					a, b := startBroker(t, l.client), startBroker(t, l.server)
					victim = a
					if who == "the server's" {
						victim = b
					}
				}
				port := freePort(t)
				addr := hostPort(l.server.v4, port)
				server := l.server.serve(t, port, input{}, program("gopeer"), "listen", addr, does.server)
				client := l.client.start(t, input{}, program("gopeer"), "connect", addr, does.client)
				for _, p := range []*process{server, client} {
					p.says(t, 20*time.Second, "under way")
				}
				victim.kill(t)
				near, far := client, server
				if who == "the server's" {
					near, far = server, client
				}
				wantError(t, near, nearLimit)
				if who == "the only" {
					wantError(t, far, nearLimit)
				} else {
					wantError(t, far, farLimit)
				}
			})
		}
	}
}

// wantError waits for a gopeer to end and wants that its connection ended with
// an error.
func wantError(t *testing.T, p *process, limit time.Duration) {
	t.Helper()
	start := time.Now()
	p.succeed(t, limit)
	end := field(p.stdout(), "ended ")
	t.Logf("pid %d: %s after %v", p.pid, end, time.Since(start).Round(time.Millisecond))
	switch end {
	case "ECONNRESET", "EPIPE", "ETIMEDOUT":
	default:
		t.Errorf("pid %d: the connection ended with %q, want an error as of a lost TCP connection", p.pid, end)
	}
}
