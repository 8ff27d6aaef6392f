package network

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/poemq/poemq/test/link"
	"github.com/poemq/poemq/test/rig"
)

// secret is in what the programs of these tests say.
const secret = "a-path-that-nobody-else-may-read"

// nginx starts one with a page at secret.
func (h *host) nginx(prepare func(...any) *rig.Cmd) *rig.Proc {
	r := h.stage
	r.Helper()
	dir := r.Mkdir("nginx", "")
	conf := r.Write("nginx/nginx.conf", fmt.Sprintf(`
daemon off;
user root;
worker_processes 1;
pid %[1]s/pid;
error_log stderr info;
events { worker_connections 64; }
http {
	access_log off;
	client_body_temp_path %[1]s/body;
	proxy_temp_path %[1]s/proxy;
	fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi;
	scgi_temp_path %[1]s/scgi;
	server { listen %[2]d; location = /%[3]s { return 200 "hello\n"; } }
}
`, dir, port, secret))
	p := prepare("nginx", "-p", dir, "-e", "stderr", "-c", conf).Start()
	p.Listens(port)
	return p
}

// curl fetches the page.
func (h *host) curl(prepare func(...any) *rig.Cmd) *rig.Cmd {
	return prepare("curl", "-sS", "--max-time", 20, fmt.Sprintf("http://%v/%s", h.stage.server.at(port), secret))
}

// While poemq is switched on here and there, everybody reaches everybody.
func TestRollOut(t *testing.T) {
	for name, c := range map[string]struct {
		client, server bool // under poemq
		udp, tcp       bool // on the wire
	}{
		"neither":    {tcp: true},
		"the server": {server: true, tcp: true},
		"the client": {client: true, udp: true, tcp: true}, // UDP: it asks
		"both":       {client: true, server: true, udp: true},
	} {
		t.Run(name, func(t *testing.T) {
			s := newPoemqStage(t, link.Params{Delay: 5 * time.Millisecond}, "nginx", "curl")
			prepare := func(h *host, under bool) func(...any) *rig.Cmd {
				if under {
					return h.under
				}
				return h.plain
			}
			s.server.nginx(prepare(s.server, c.server))
			s.wire.looksFor(secret)
			for range 3 { // the second finds a path that is known
				if said := s.client.curl(prepare(s.client, c.client)).Output(); said != "hello\n" {
					t.Errorf("curl says %q", said)
				}
			}
			saw, _, clear := s.wire.take()
			if (saw.udp > 0) != c.udp || (saw.tcp > 0) != c.tcp || (clear > 0) != c.tcp {
				t.Errorf("on the wire: %v, %d packets in clear; want UDP: %v, TCP: %v, in clear as TCP", saw, clear, c.udp, c.tcp)
			}
			t.Logf("on the wire: %v, %d packets in clear", saw, clear)
		})
	}
}

// Who requires QUIC of a peer that has none gets an error and a line that says
// why, and sends nothing in clear.
func TestRequireNeverSendsInClear(t *testing.T) {
	for name, refuse := range map[string]func(link.Direction, link.Packet) bool{"closed": nil, "filtered": isUDP} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t, link.Params{Delay: 5 * time.Millisecond}, "nginx", "curl")
			s.client.startBroker()
			s.server.nginx(s.server.plain)
			s.wire.looksFor(secret)
			s.wire.refuses(refuse)
			curl := s.client.curl(s.client.under)
			curl.Args = append(curl.Args, "--connect-timeout", "5")
			curl.Flags = []string{"--quic", "require"}
			p := curl.Run()
			if p.ExitCode() != 7 && p.ExitCode() != 28 { // could not connect, or in time
				t.Errorf("curl ends with %d, want 7 or 28:\n%s%s", p.ExitCode(), p.Stdout(), p.Stderr())
			}
			saw, _, clear := s.wire.take()
			if saw.tcp != 0 || clear != 0 || saw.udp == 0 {
				t.Errorf("on the wire: %v, %d packets in clear; want UDP only", saw, clear)
			}
			s.Eventually(5*time.Second, "the broker's log tells of the failure", func() bool {
				return len(logged(s.client.broker, "connect failed")) > 0
			})
			line := logged(s.client.broker, "connect failed")[0]
			for _, word := range []string{"program=curl", "remote=" + s.server.at(port).String(), "policy=require", "error="} {
				if !strings.Contains(line, word) {
					t.Errorf("the log does not say %q: %s", word, line)
				}
			}
			t.Log(line)
		})
	}
}

// downtime is when the server side is not there, by its own doing.
type downtime struct {
	what     string
	from, to time.Time
}

// Connects go on while the server side is restarted in every way: those that
// begin or are under way in a downtime may fail, others not.
func TestConnectsDuringRestarts(t *testing.T) {
	s := newPoemqStage(t, link.Params{Delay: 5 * time.Millisecond})
	server := s.server.serve(s.server.under, "serve", port)
	all := long(20*time.Second, 100*time.Second)
	client := s.client.under(s.peer, "loop", s.server.at(port), all).Start()

	var down []downtime
	start := time.Now()
	ways := []string{"program", "broker", "broker killed"}
	const rounds = 6
	for i := range rounds {
		what := ways[i%len(ways)]
		at := start.Add(all * time.Duration(i+1) / (rounds + 1))
		s.Eventually(all, "the next restart", func() bool { return time.Now().After(at) })
		from := time.Now()
		if what == "broker killed" {
			s.server.broker.Signal(syscall.SIGKILL)
			s.server.broker.Wait(5 * time.Second)
		}
		server.Stop()
		if what == "broker" {
			s.server.broker.Stop()
		}
		if what != "program" {
			s.server.startBroker()
		}
		server = s.server.serve(s.server.under, "serve", port)
		down = append(down, downtime{what, from, time.Now()})
	}
	client.Wait(all + 30*time.Second)

	tries := 0
	failures := make(map[string]int)
	for line := range strings.Lines(client.Stdout()) {
		if !strings.HasPrefix(line, "at=") {
			continue
		}
		tries++
		result := textOf(t, line, "result")
		if result == "ok" {
			continue
		}
		begin := time.UnixMicro(int64(numberOf(t, line, "at")))
		cause := causeOf(down, begin, begin.Add(timeOf(t, line, "us")))
		failures[fmt.Sprintf("%s: %s at %s", cause, result, textOf(t, line, "step"))]++
		if cause == "" {
			t.Errorf("failed while the server side was there: %s", line)
		}
	}
	if want := int(all / (200 * time.Millisecond)); tries < want {
		t.Errorf("%d connects, want at least %d", tries, want)
	}
	t.Logf("%d connects; failures: %v", tries, failures)
	for _, d := range down {
		t.Logf("%s: not there for %v", d.what, d.to.Sub(d.from).Round(time.Millisecond))
	}
	if line := client.Stdout(); !strings.Contains(line, "done") {
		t.Errorf("the client did not go on to its end: %s", client.Stderr())
	}
	c, _, _ := s.wire.take()
	// A try that met a closed port and then TCP is remembered, for 5 s at first.
	s.Eventually(15*time.Second, "connects go by QUIC again", func() bool {
		s.wire.take()
		s.client.under(s.peer, "first", s.server.at(port), 1).Output()
		saw, _, _ := s.wire.take()
		return saw.udp > 0 && saw.tcp == 0
	})
	t.Logf("on the wire before: %v", c)
}

// causeOf names the downtime that a try met. A try that begins shortly after
// one may go on a connection whose end has not been heard of yet.
func causeOf(down []downtime, from, to time.Time) string {
	const wordOfIt = 300 * time.Millisecond
	for _, d := range down {
		if to.After(d.from) && from.Before(d.to.Add(wordOfIt)) {
			return d.what
		}
	}
	return ""
}
