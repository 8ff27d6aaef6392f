package regress

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/poemq/poemq/test/rig"
)

// Protected mode lets loopback in and nobody else; the ancestor shows Redis an
// empty peer name, which it refuses.
func TestRedisProtectedModeKnowsItsPeer(t *testing.T) {
	r := rig.New(t, "redis-server", "redis-cli")
	port := r.Port()
	server := r.Command("redis-server", "--port", port, "--save", "", "--dir", r.Dir).Start()
	server.Says("Ready to accept connections")
	for _, host := range []string{"127.0.0.1", "::1"} {
		if got := r.Command("redis-cli", "-h", host, "-p", port, "ping").Output(); got != "PONG\n" {
			t.Errorf("from %s: %q", host, got)
		}
	}
	t.Run("another address", func(t *testing.T) {
		// Its own address as the peer's name: not loopback, so it is refused.
		host := otherAddress(t)
		got := r.Command("redis-cli", "-h", host, "-p", port, "ping").Run()
		if all := got.Stdout() + got.Stderr(); !strings.Contains(all, "DENIED Redis is running in protected mode") {
			t.Errorf("from %s: %q", host, all)
		}
	})
}

func TestPythonHTTPServerLogsItsClient(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1"} {
		t.Run(host, func(t *testing.T) {
			r := rig.New(t, "python3", "curl")
			port := r.Port()
			r.Write("www/poem", "so much depends\n")
			server := r.Command("python3", "-u", "-m", "http.server", port, "--bind", host, "--directory", r.Path("www")).Start()
			server.Says("Serving HTTP on " + host + " port " + fmt.Sprint(port))
			url := fmt.Sprintf("http://127.0.0.1:%d/poem", port)
			if host == "::1" {
				url = fmt.Sprintf("http://[::1]:%d/poem", port)
			}
			if got := r.Command("curl", "-sS", url).Output(); got != "so much depends\n" {
				t.Errorf("curl got %q", got)
			}
			server.Says(`"GET /poem HTTP/1.1" 200 -`)
			if !strings.HasPrefix(server.Stderr(), host+" - - [") {
				t.Errorf("the log does not begin with %s:\n%s", host, server.Stderr())
			}
		})
	}
}

// iperf3 prints both ends of its connections on both sides; they must agree.
func TestIperf3PrintsTheAddresses(t *testing.T) {
	r := rig.New(t, "iperf3")
	port := r.Port()
	server := r.Command("iperf3", "-s", "-1", "-p", port, "--forceflush").Start()
	server.Says("Server listening on")
	out := r.Command("iperf3", "-c", "127.0.0.1", "-p", port, "-t", 1, "-b", "100M", "-J").Output()
	var report struct {
		Start struct {
			Connected []struct {
				LocalHost  string `json:"local_host"`
				LocalPort  int    `json:"local_port"`
				RemoteHost string `json:"remote_host"`
				RemotePort int    `json:"remote_port"`
			}
			ConnectingTo struct {
				Host string
				Port int
			} `json:"connecting_to"`
		}
		End struct {
			SumReceived struct{ Bytes float64 } `json:"sum_received"`
		}
	}
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		t.Fatalf("%v in\n%s", err, out)
	}
	if len(report.Start.Connected) != 1 {
		t.Fatalf("iperf3 reports no one connection:\n%s", out)
	}
	c := report.Start.Connected[0]
	if c.LocalHost != "127.0.0.1" || c.RemoteHost != "127.0.0.1" || c.RemotePort != port || c.LocalPort == 0 {
		t.Errorf("the client prints %+v", c)
	}
	if report.End.SumReceived.Bytes < 1e6 {
		t.Errorf("iperf3 moved %v bytes", report.End.SumReceived.Bytes)
	}
	server.Says(fmt.Sprintf("local 127.0.0.1 port %d connected to 127.0.0.1 port %d", port, c.LocalPort))
	if !regexp.MustCompile(`Accepted connection from 127\.0\.0\.1, port [1-9]\d*`).MatchString(server.Stdout()) {
		t.Errorf("the server prints\n%s", server.Stdout())
	}
}
