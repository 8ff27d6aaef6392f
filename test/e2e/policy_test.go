package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// configure writes the configuration of h's broker.
func configure(t *testing.T, h *host, text string) {
	t.Helper()
	h.config = filepath.Join(h.state, "poemq.toml")
	if err := os.WriteFile(h.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// reload has b read its configuration again, and waits for its word on it.
func (b *broker) reload(t *testing.T, word string) {
	t.Helper()
	before := strings.Count(b.stderr(), word)
	b.signal(t, syscall.SIGHUP)
	eventually(t, 10*time.Second, fmt.Sprintf("poemqd logs %q", word), func() bool { return strings.Count(b.stderr(), word) > before })
}

// carriedBy runs one connection over port, served by b, with as before the
// client, and tells what was seen on the wire.
func (l *link) carriedBy(t *testing.T, b *broker, port int, as ...string) string {
	t.Helper()
	seen := l.capture(t, port)
	addr := hostPort(l.server.v4, port)
	line := "port=" + addr + " " // of the broker's log, when it serves the port by all that it shall be
	before := strings.Count(b.stderr(), line)
	server := l.server.start(t, input{}, program("gopeer"), "listen", addr, "blast", "1000")
	eventually(t, 15*time.Second, fmt.Sprintf("port %d is served", port), func() bool {
		// Where all is off, the socket is the kernel's, and the broker hears nothing.
		return server.ended() || strings.Count(b.stderr(), line) > before ||
			inTable(strconv.Itoa(server.pid), "tcp", port, "0A") && !inTable(strconv.Itoa(server.pid), "udp", port, "")
	})
	client := l.client.start(t, input{}, append(as, program("gopeer"), "connect", addr, "sink", "1000")...)
	client.succeed(t, 20*time.Second)
	server.succeed(t, 20*time.Second)
	udp, tcp := count(t, seen.udp), count(t, seen.tcp)
	switch {
	case udp > 0 && tcp == 0:
		return "udp"
	case tcp > 0 && udp == 0:
		return "tcp"
	}
	return fmt.Sprintf("%d UDP packets and %d TCP segments", udp, tcp)
}

// TestRules has rules decide by port and by user how connections are carried.
func TestRules(t *testing.T) {
	needPoemq(t)
	l := loopback(t)
	required, off, users := freePort(t), freePort(t), freePort(t)
	configure(t, l.server, fmt.Sprintf(`
		[[rule]]
		name = "required"
		port = %d
		mode = "require"
		[[rule]]
		port = %d
		mode = "off"
		[[rule]]
		name = "nobody's"
		to = "127.0.0.0/8"
		uid = 65534
		mode = "off"
	`, required, off))
	b := startBroker(t, l.server)
	nobody := []string{tool("setpriv"), "--reuid=65534", "--regid=65534", "--clear-groups"}
	for _, tc := range []struct {
		name string
		port int
		as   []string
		want string
	}{
		{name: "require", port: required, want: "udp"},
		{name: "off", port: off, want: "tcp"},
		{name: "no rule", port: users, want: "udp"},
		{name: "off for a user", port: users, as: nobody, want: "tcp"},
		{name: "require before off", port: required, as: nobody, want: "udp"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := l.carriedBy(t, b, tc.port, tc.as...); got != tc.want {
				t.Errorf("carried by %s, want %s", got, tc.want)
			}
		})
	}
	t.Run("why", func(t *testing.T) {
		for _, tc := range []struct{ args, want string }{
			{fmt.Sprintf("127.0.0.1:%d", required), "require (rule 1, " + l.server.config + ":2, \"required\")"},
			{fmt.Sprintf("--listen 127.0.0.1:%d", off), "off (rule 2, " + l.server.config + ":6)"},
			{fmt.Sprintf("--uid 65534 127.0.0.1:%d", users), "off (rule 3, "},
			{fmt.Sprintf("--uid 0 --quic require 127.0.0.1:%d", users), "require (no rule)"},
			{fmt.Sprintf("--uid 0 127.0.0.1:%d", users), "prefer (no rule)"},
		} {
			if said := b.ctl(t, append([]string{"why"}, strings.Fields(tc.args)...)...); !strings.Contains(said, ": "+tc.want) {
				t.Errorf("why %s: %swant %s", tc.args, said, tc.want)
			}
		}
	})
	t.Run("require without QUIC", func(t *testing.T) {
		plain, err := net.Listen("tcp", hostPort(l.server.v4, required))
		if err != nil {
			t.Fatal(err)
		}
		defer plain.Close()
		l.client.policy = "prefer" // the rule stands above it
		client := l.client.start(t, input{}, program("gopeer"), "connect", plain.Addr().String(), "sink", "1000")
		if client.exitCode(t, 20*time.Second) == 0 {
			t.Error("connected over TCP")
		}
		for line := range strings.Lines(b.stderr()) {
			if strings.Contains(line, "connect failed") && strings.Contains(line, `\"required\"`) {
				return
			}
		}
		t.Errorf("no line of the log names the rule:\n%s", b.stderr())
	})
}

// TestOneUDPPort has all of a host's QUIC go over one UDP port.
func TestOneUDPPort(t *testing.T) {
	needPoemq(t)
	l := loopback(t)
	port, shared := freePort(t), freePort(t)
	configure(t, l.server, fmt.Sprintf("[wire]\nudp_port = %d\n[policy]\ndefault = \"require\"\n", shared))
	b := startBroker(t, l.server)
	seen := l.capture(t, shared)
	if got := l.carriedBy(t, b, port); got != "0 UDP packets and 0 TCP segments" {
		t.Errorf("on the TCP port: %s", got)
	}
	seen.onlyUDP(t)
}

// TestReload changes the rules of a running broker: new connections follow, and
// a configuration with faults changes nothing.
func TestReload(t *testing.T) {
	needPoemq(t)
	l := loopback(t)
	port := freePort(t)
	configure(t, l.server, "")
	b := startBroker(t, l.server)
	if got := l.carriedBy(t, b, port); got != "udp" {
		t.Errorf("at first carried by %s", got)
	}
	configure(t, l.server, "[pool]\nidle = \"10s\"\n[policy]\ndefault = \"off\"\n")
	b.reload(t, "configuration read again")
	if got := l.carriedBy(t, b, port); got != "tcp" {
		t.Errorf("with the default off carried by %s", got)
	}
	if !strings.Contains(b.stderr(), "settings wait for a restart") || !strings.Contains(b.stderr(), "pool.idle") {
		t.Errorf("nothing is said of pool.idle:\n%s", b.stderr())
	}
	configure(t, l.server, "[policy]\ndefault = \"requir\"\n")
	b.reload(t, "the configuration has faults")
	if got := l.carriedBy(t, b, port); got != "tcp" {
		t.Errorf("with a configuration that has faults carried by %s", got)
	}
	configure(t, l.server, fmt.Sprintf("[[rule]]\nport = %d\nmode = \"require\"\n", port))
	b.reload(t, "configuration read again")
	if got := l.carriedBy(t, b, port); got != "udp" {
		t.Errorf("with a rule that requires it carried by %s", got)
	}
}

// TestFallbackIsRemembered connects again and again to a plain server whose UDP
// port is silent: only the first time waits for QUIC and sends any of its packets.
func TestFallbackIsRemembered(t *testing.T) {
	needPoemq(t)
	l := loopback(t)
	configure(t, l.server, "")
	b := startBroker(t, l.server)
	l.client.env = append(l.client.env, "no_proxy=*")
	port := freePort(t)
	silent, err := net.ListenPacket("udp4", hostPort(l.server.v4, port))
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	plain, err := net.Listen("tcp4", hostPort(l.server.v4, port))
	if err != nil {
		t.Fatal(err)
	}
	web := &httptest.Server{Listener: plain, Config: &http.Server{Handler: http.NotFoundHandler()}}
	web.Start()
	defer web.Close()

	seen := l.capture(t, port)
	connect := func() (took time.Duration, udp uint32) {
		t.Helper()
		curl := l.client.start(t, input{}, tool("curl"), "-sS", "-o", "/dev/null", "-w", "%{time_connect}", web.URL)
		curl.succeed(t, 20*time.Second)
		s, err := strconv.ParseFloat(curl.stdout(), 64)
		if err != nil {
			t.Fatal(err)
		}
		return time.Duration(s * float64(time.Second)), count(t, seen.udp)
	}
	const headStart = 300 * time.Millisecond
	if took, udp := connect(); took < headStart || udp == 0 {
		t.Errorf("the first connect took %v with %d UDP packets, want QUIC to be tried for %v", took, udp, headStart)
	}
	quickest := time.Hour
	for range 3 { // one may be held up by whatever else runs
		took, udp := connect()
		quickest = min(quickest, took)
		if udp != 0 {
			t.Errorf("%d UDP packets to a destination that is remembered", udp)
		}
	}
	if quickest >= headStart {
		t.Errorf("to a destination that is remembered, connect takes %v", quickest)
	}

	var listing struct {
		Fallback []struct{ Destination, Reason string }
	}
	if err := json.Unmarshal([]byte(b.ctl(t, "--json", "fallback")), &listing); err != nil || len(listing.Fallback) != 1 ||
		listing.Fallback[0].Destination != plain.Addr().String() || listing.Fallback[0].Reason != "UDP unanswered" {
		t.Errorf("%v, %+v", err, listing)
	}
	if said := b.ctl(t, "fallback"); !strings.Contains(said, plain.Addr().String()) || !strings.Contains(said, "UDP unanswered") {
		t.Errorf("poemqctl fallback: %s", said)
	}
	if said := b.ctl(t, "fallback", "forget", "localhost:"+strconv.Itoa(port)); !strings.Contains(said, "forgotten: 1") {
		t.Errorf("poemqctl fallback forget: %s", said)
	}
	if _, udp := connect(); udp == 0 {
		t.Error("after forget, QUIC is not tried")
	}
}

// TestFallbackIsForgotten has a server with QUIC take the place of one without.
func TestFallbackIsForgotten(t *testing.T) {
	needPoemq(t)
	l := loopback(t)
	b := startBroker(t, l.server)
	port := freePort(t)
	addr := hostPort(l.server.v4, port)
	plain, err := net.Listen("tcp4", addr)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		if c, err := plain.Accept(); err == nil {
			c.Close()
		}
	}()
	l.client.start(t, input{}, program("gopeer"), "connect", addr, "sink", "0").exitCode(t, 20*time.Second)
	plain.Close()
	if said := b.ctl(t, "fallback"); !strings.Contains(said, addr) || !strings.Contains(said, "UDP port closed") {
		t.Errorf("poemqctl fallback: %s", said)
	}
	if got := l.carriedBy(t, b, port); got != "udp" {
		t.Errorf("a server that has QUIC now is reached by %s", got)
	}
	if said := b.ctl(t, "fallback"); said != "" {
		t.Errorf("still remembered: %s", said)
	}
}

// ctl runs poemqctl and gives what it prints.
func (b *broker) ctl(t *testing.T, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, filepath.Join(binDir, "poemqctl"), append([]string{"--control", b.control}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("poemqctl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// TestAlwaysOff: where nothing can be carried by QUIC, a program's sockets are the
// kernel's own, not such as the broker would have to carry bytes for.
func TestAlwaysOff(t *testing.T) {
	needPoemq(t)
	const looks = `
import os, socket
s = socket.socket(); s.bind(("127.0.0.1", 0)); s.listen()
c = socket.create_connection(s.getsockname())
a, _ = s.accept()
c.sendall(b"hello"); assert a.recv(9) == b"hello"
inodes = [l.split()[9] for l in open("/proc/self/net/tcp")]
print([os.readlink("/proc/self/fd/%d" % x.fileno())[8:-1] in inodes for x in (s, c, a)])
`
	for _, tc := range []struct{ name, rules, want string }{
		{"no rule", "", "[True, True, True]"},
		{"rules say off as well", "[[rule]]\nport = 80\nmode = \"off\"", "[True, True, True]"},
		{"a rule says more", "[[rule]]\nto = \"192.0.2.1\"\nmode = \"require\"", "[False, False, False]"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := loopback(t)
			configure(t, l.server, "[policy]\ndefault = \"off\"\n"+tc.rules)
			startBroker(t, l.server)
			l.server.policy = ""
			p := l.server.start(t, input{}, tool("python3"), "-c", looks)
			if p.succeed(t, 20*time.Second); strings.TrimSpace(p.stdout()) != tc.want {
				t.Errorf("sockets are TCP to the kernel: %s, want %s", p.stdout(), tc.want)
			}
		})
	}
}
