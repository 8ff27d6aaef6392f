package e2e

import (
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestWrittenAndClosed writes 1 MB and closes at once, from either side: all
// of it arrives.
func TestWrittenAndClosed(t *testing.T) {
	const n = "1048576"
	onEveryLink(t, func(t *testing.T, l *link) {
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
				sent, received := field(said, "sent "), field(said, "received ")
				if sent == "" || sent != received {
					t.Errorf("sent %q, received %q", sent, received)
				}
				if end := field(said, "ended "); end != "eof" {
					t.Errorf("the reader's end is %q, want eof", end)
				}
				seen.onlyUDP(t)
			})
		}
	})
}

// TestReaderThatNeverReads lets a client write against a server that does not
// read: the writer waits, both brokers stay small, and when the server reads at
// last, everything is there.
func TestReaderThatNeverReads(t *testing.T) {
	const (
		offer       = 1 << 30  // bytes the writer would like to write
		mostTaken   = 64 << 20 // bytes it may get rid of
		mostGrowth  = 128      // MiB a broker may grow by
		takenAtOnce = 64 << 10 // bytes that are surely taken
	)
	l := loopback(t)
	l.client = newHost(t) // two brokers, so that each is measured alone
	var brokers []*broker
	var before []int
	if !native {
		brokers = []*broker{startBroker(t, l.client), startBroker(t, l.server)}
		for _, b := range brokers {
			before = append(before, b.memory(t, "VmHWM"))
		}
	}
	port := freePort(t)
	server := l.server.serve(t, port, input{pipe: true}, program("gopeer"), "listen", hostPort(l.server.v4, port), "stall")
	client := l.client.start(t, input{pipe: true}, tool("python3"), program("pypeer.py"), "flood", l.server.v4, strconv.Itoa(port), strconv.Itoa(offer))
	server.says(t, 20*time.Second, "holding")
	client.says(t, time.Minute, "accepted ")

	accepted := strings.Fields(field(client.stdout(), "accepted "))
	taken, err := strconv.Atoi(accepted[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the writer got rid of %d KiB", taken>>10)
	if taken > mostTaken || taken < takenAtOnce {
		t.Errorf("the writer got rid of %d bytes, want between %d and %d", taken, takenAtOnce, mostTaken)
	}
	for i, b := range brokers {
		if grown := b.memory(t, "VmHWM") - before[i]; grown > mostGrowth {
			t.Errorf("broker %d grew by %d MiB, want at most %d", i, grown, mostGrowth)
		}
	}

	client.write(t, "close\n")
	client.succeed(t, 20*time.Second)
	server.write(t, "read\n")
	server.succeed(t, time.Minute)
	if got, want := field(server.stdout(), "received "), strings.Join(accepted, " "); got != want {
		t.Errorf("received %q, want %q", got, want)
	}
}

// field is the rest of the line that starts with prefix.
func field(said, prefix string) string {
	for line := range strings.Lines(said) {
		if rest, ok := strings.CutPrefix(line, prefix); ok {
			return strings.TrimSpace(rest)
		}
	}
	return ""
}
