package e2e

import (
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// plain starts a program on h without poemq.
func (h *host) plain(t *testing.T, argv ...string) *process {
	t.Helper()
	name := filepath.Base(argv[0])
	if h.netns != "" {
		argv = append([]string{tool("ip"), "netns", "exec", h.netns}, argv...)
	}
	p := startProcess(t, programLimit, input{}, nil, nil, argv...)
	p.name = name
	return p
}

// servesFile has a plain HTTP server on h hand a file out at port.
func (h *host) servesFile(t *testing.T, port int, file string) {
	t.Helper()
	var l net.Listener
	inNetns(t, h.netns, func() (err error) {
		l, err = net.Listen("tcp", hostPort("127.0.0.1", port))
		return err
	})
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, file) })}
	t.Cleanup(func() { s.Close() })
	go s.Serve(l)
}

// TestFronts has two programs talk over QUIC of which none, or one, runs under
// poemq.
func TestFronts(t *testing.T) {
	needPoemq(t)
	l := twoHosts(t)
	plain, exposed, closed, forward, dead := freePort(t), freePort(t), freePort(t), freePort(t), freePort(t)
	file, sum := randomFile(t, 20<<20)
	l.server.servesFile(t, plain, file)
	configure(t, l.server, fmt.Sprintf(`
		[[expose]]
		listen = "udp/0.0.0.0:%d"
		to = "127.0.0.1:%d"
		[[expose]]
		listen = "udp/0.0.0.0:%d"
		to = "127.0.0.1:9"
	`, exposed, plain, closed))
	forwards := fmt.Sprintf(`
		[[forward]]
		listen = "tcp/127.0.0.1:%d"
		to = "%s"
	`, forward, hostPort(l.server.v4, exposed))
	// With fast_open, connect succeeds before the server behind was asked.
	forwards = "[pool]\nfast_open = false\n" + forwards
	configure(t, l.client, forwards)
	seen := l.capture(t, exposed)
	there, here := startBroker(t, l.server), startBroker(t, l.client)
	for _, b := range []*broker{there, here} {
		eventually(t, 10*time.Second, "poemqd serves", func() bool { return strings.Contains(b.stderr(), "poemqd serves") })
	}
	fetch := func(start func(...string) *process, addr string) {
		t.Helper()
		out := filepath.Join(shortDir(t), "out")
		start(tool("curl"), "-sS", "--noproxy", "*", "--max-time", "60", "-o", out, "http://"+addr+"/").succeed(t, time.Minute)
		wantSum(t, addr, out, sum)
	}
	t.Run("expose", func(t *testing.T) {
		l.client.policy = "require"
		fetch(func(argv ...string) *process { return l.client.start(t, input{}, argv...) }, hostPort(l.server.v4, exposed))
	})
	t.Run("forward to expose", func(t *testing.T) {
		fetch(func(argv ...string) *process { return l.client.plain(t, argv...) }, hostPort("127.0.0.1", forward))
	})
	t.Run("nobody behind expose", func(t *testing.T) {
		curl := l.client.start(t, input{}, tool("curl"), "-sS", "--noproxy", "*", "-v", "http://"+hostPort(l.server.v4, closed)+"/")
		if curl.exitCode(t, 20*time.Second) != 7 || !strings.Contains(curl.stderr(), "refused") {
			t.Errorf("curl is told: %s", curl.stderr())
		}
	})
	t.Run("status", func(t *testing.T) {
		said := here.ctl(t, "status")
		if want := fmt.Sprintf("forward 127.0.0.1:%d to %s, require: connections 0, total 1, failed 0", forward, hostPort(l.server.v4, exposed)); !strings.Contains(said, want) {
			t.Errorf("no %q in\n%s", want, said)
		}
		eventually(t, 10*time.Second, "the server's broker has carried two connections and refused one", func() bool {
			said := there.ctl(t, "status")
			return strings.Contains(said, "connections 0, total 2, failed 0") && strings.Contains(said, "connections 0, total 0, failed 1")
		})
	})
	t.Run("reload", func(t *testing.T) {
		configure(t, l.client, forwards+fmt.Sprintf(`
			[[forward]]
			listen = "tcp/127.0.0.1:%d"
			to = "%s"
		`, dead, hostPort(l.server.v4, closed)))
		here.reload(t, "configuration read again")
		if n := strings.Count(here.stderr(), "front serves"); n != 2 || strings.Contains(here.stderr(), `msg="front ends"`) {
			t.Errorf("%d fronts were opened:\n%s", n, here.stderr())
		}
		curl := l.client.plain(t, tool("curl"), "-sS", "--noproxy", "*", "http://"+hostPort("127.0.0.1", dead)+"/")
		// Reset by peer: 7 when that comes before curl has looked whether it is connected.
		if code := curl.exitCode(t, 20*time.Second); code != 56 && code != 7 {
			t.Errorf("curl is told: %s", curl.stderr())
		}
		eventually(t, 10*time.Second, "the new front was asked", func() bool { return strings.Contains(here.stderr(), "connection of a front failed") })
		configure(t, l.client, forwards)
		here.reload(t, "configuration read again")
		curl = l.client.plain(t, tool("curl"), "-sS", "--noproxy", "*", "http://"+hostPort("127.0.0.1", dead)+"/")
		if curl.exitCode(t, 20*time.Second) != 7 {
			t.Errorf("the front that was taken away answers: %s", curl.stderr())
		}
		fetch(func(argv ...string) *process { return l.client.plain(t, argv...) }, hostPort("127.0.0.1", forward))
	})
	seen.onlyUDP(t)
	for _, b := range []*broker{here, there} {
		b.signal(t, syscall.SIGTERM)
		b.succeed(t, 20*time.Second)
	}
}
