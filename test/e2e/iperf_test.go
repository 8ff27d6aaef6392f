package e2e

import (
	"encoding/json"
	"strconv"
	"testing"
	"time"
)

// TestIperf runs iperf3 in every direction, two seconds each.
func TestIperf(t *testing.T) {
	onEveryLink(t, func(t *testing.T, l *link) {
		for _, way := range []struct {
			name string
			args []string
			v6   bool
		}{
			{name: "forward"},
			{name: "reverse", args: []string{"-R"}},
			{name: "four streams", args: []string{"-P", "4"}},
			{name: "bidirectional", args: []string{"--bidir"}},
			{name: "IPv6", args: []string{"-6"}, v6: true},
		} {
			t.Run(way.name, func(t *testing.T) {
				addr := l.server.v4
				if way.v6 {
					addr = l.server.v6
				}
				port := freePort(t)
				seen := l.capture(t, port)
				server := l.server.serve(t, port, input{}, tool("iperf3"), "-s", "-1", "-p", strconv.Itoa(port))
				argv := append([]string{tool("iperf3"), "-J", "-t", "2", "-p", strconv.Itoa(port), "-c", addr}, way.args...)
				client := l.client.start(t, input{}, argv...)
				client.succeed(t, 40*time.Second)
				server.succeed(t, 20*time.Second)
				wantThroughput(t, client.stdout(), way.name == "bidirectional")
				seen.onlyUDP(t)
			})
		}
	})
}

// rate is what iperf3 sums up for one direction.
type rate struct {
	Bytes         float64 `json:"bytes"`
	BitsPerSecond float64 `json:"bits_per_second"`
}

// wantThroughput reads iperf3's JSON report: no error, and bytes in each
// direction that was measured.
func wantThroughput(t *testing.T, report string, bidirectional bool) {
	t.Helper()
	var r struct {
		Error string `json:"error"`
		End   struct {
			Sent            rate `json:"sum_sent"`
			Received        rate `json:"sum_received"`
			ReverseSent     rate `json:"sum_sent_bidir_reverse"`
			ReverseReceived rate `json:"sum_received_bidir_reverse"`
		} `json:"end"`
	}
	if err := json.Unmarshal([]byte(report), &r); err != nil {
		t.Fatalf("iperf3's report: %v\n%s", err, report)
	}
	if r.Error != "" {
		t.Errorf("iperf3: %s", r.Error)
	}
	measured := map[string]rate{"sent": r.End.Sent, "received": r.End.Received}
	if bidirectional {
		measured["sent by the server"] = r.End.ReverseSent
		measured["received by the client"] = r.End.ReverseReceived
	}
	for what, m := range measured {
		t.Logf("%s: %.2f Gbit/s", what, m.BitsPerSecond/1e9)
		if m.Bytes == 0 || m.BitsPerSecond == 0 {
			t.Errorf("%s: nothing", what)
		}
	}
}
