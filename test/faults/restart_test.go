package faults

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/poemq/poemq/test/rig"
)

// soon is for what is at once on a machine that is not busy.
const soon = 20 * time.Second

func script(name string) string { return filepath.Join(rig.Root(), "test", "faults", "testdata", name) }

// host is a broker with what keeps its descriptors.
type host struct {
	*rig.Rig
	store  *rig.Store
	broker *rig.Broker
	keeper bool   // programs leave one
	user   string // programs are this one's; "": ours
}

// flags are poemq-launch's.
func (h *host) flags() []string {
	f := []string{"--quic", "require", "--on-broker-missing", "fail"}
	if h.keeper {
		f = append(f, "--keeper")
	}
	return f
}

func newHost(t *testing.T, programs ...string) *host {
	t.Helper()
	if rig.Native() {
		t.Skip("there is no broker in a native run")
	}
	r := rig.New(t, programs...)
	h := &host{Rig: r, store: r.NewStore("kept")}
	h.start()
	return h
}

func (h *host) start() {
	h.Helper()
	h.broker = h.StartBrokerOn(h.store, "kept", "--log-level", "debug")
}

// kill is SIGKILL and, at once, the next broker.
func (h *host) kill() {
	h.Helper()
	h.broker.Signal(syscall.SIGKILL)
	h.broker.Wait(soon)
	h.start()
}

// server starts server.py under the broker.
func (h *host) server(how string) (*rig.Proc, int) {
	h.Helper()
	port := h.FreePort()
	c := h.Command("python3", script("server.py"), how, port)
	c.Broker, c.Flags, c.User = h.broker, h.flags(), h.user
	p := c.Start()
	p.Says("listening")
	return p, port
}

// client is client.py.
type client struct {
	*rig.Proc
	h    *host
	told int
}

func (h *host) client() *client {
	h.Helper()
	c := h.Command("python3", "-u", script("client.py"))
	c.Broker, c.Told, c.Flags, c.User = h.broker, true, h.flags(), h.user
	p := c.Start()
	p.Says("ready")
	return &client{Proc: p, h: h}
}

// tell gives a command and does not wait for its end.
func (c *client) tell(format string, args ...any) {
	c.h.Helper()
	c.told++
	c.Tell(fmt.Sprintf(format, args...))
}

// heard is the answer to the last command.
func (c *client) heard() string {
	c.h.Helper()
	var line string
	c.h.Eventually(soon, fmt.Sprintf("answer %d of %s", c.told, c), func() bool {
		lines := strings.Split(c.Stdout(), "\n")
		if len(lines) < c.told+2 { // "ready", and an empty one at the end
			return false
		}
		line = lines[c.told]
		return true
	})
	_, said, _ := strings.Cut(line, " = ")
	return said
}

func (c *client) do(format string, args ...any) string {
	c.h.Helper()
	c.tell(format, args...)
	return c.heard()
}

// must is do with a known answer.
func (c *client) must(want, format string, args ...any) {
	c.h.Helper()
	if got := c.do(format, args...); got != want {
		c.h.Errorf("%s: %s, want %s", fmt.Sprintf(format, args...), got, want)
	}
}

// TestBrokerRestarts: programs go on under the next broker, whether the one
// before was killed or stopped.
func TestBrokerRestarts(t *testing.T) {
	for _, end := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		for _, how := range []string{"blocking", "epoll"} {
			t.Run(end.String()+"/"+how, func(t *testing.T) {
				h := newHost(t, "python3")
				server, port := h.server(how)
				c := h.client()
				c.must("ok", "socket open")
				c.must("ok", "connect open %d", port)
				c.must("hello", "echo open hello")
				c.must("ok", "socket fresh")
				c.must("ok", "socket bound")
				boundPort := h.FreePort()
				c.must("ok", "bind bound %d", boundPort)

				for round := range 3 {
					h.broker.Signal(end)
					h.broker.Wait(soon)
					h.start()
					if got := c.do("recv open"); got != "ECONNRESET" {
						t.Errorf("a connection of the broker before reads %s, want ECONNRESET", got)
					}
					c.must("ENOTCONN", "peer open")
					c.must("ok", "close open")
					c.must("1", "nodelay fresh")
					c.must(fmt.Sprintf("127.0.0.1:%d", boundPort), "name bound")
					c.must("ok", "connect fresh %d", port)
					c.must("again", "echo fresh again")
					c.must("ok", "close fresh")
					c.must("ok", "socket open")
					c.must("ok", "connect open %d", port)
					c.must("hello", "echo open hello")
					c.must("ok", "socket fresh")
					if want := 1 + 2*(round+1); strings.Count(server.Stdout(), "accepted") != want {
						t.Errorf("round %d: the server accepted %d connections, want %d", round, strings.Count(server.Stdout(), "accepted"), want)
					}
				}
				c.must("ok", "connect bound %d", port)
				c.must("bye", "echo bound bye")
				c.must(fmt.Sprintf("127.0.0.1:%d", boundPort), "name bound")
				if !server.Running() || !c.Running() {
					t.Error("a program has ended")
				}
				server.Stop()
				c.Stop()
				h.Eventually(soon, "nothing is kept of programs that ended", func() bool { return len(h.store.Names()) == 0 })
			})
		}
	}
}

// TestKillToFirstConnection: how long nobody gets a connection when the broker
// is killed. The next one is started at once, as Restart=always and
// RestartSec=0 have it.
func TestKillToFirstConnection(t *testing.T) {
	h := newHost(t, "python3")
	server, port := h.server("epoll")
	c := h.client()
	const rounds = 5
	var worst time.Duration
	for i := range rounds {
		c.must("ok", "socket s")
		killed := time.Now()
		h.kill()
		c.must("ok", "connect s %d", port)
		c.must("hello", "echo s hello")
		took := time.Since(killed)
		worst = max(worst, took)
		t.Logf("round %d: %v from SIGKILL to the first answer of the server", i, took.Round(time.Millisecond))
		c.must("ok", "close s")
	}
	if worst > time.Second {
		t.Errorf("it took up to %v, want less than a second", worst)
	}
	if n := strings.Count(server.Stdout(), "accepted"); n != rounds {
		t.Errorf("the server accepted %d connections, want %d", n, rounds)
	}
}

// TestKeeper: without systemd, programs that were launched with --keeper go on
// under the next broker.
func TestKeeper(t *testing.T) {
	if rig.Native() {
		t.Skip("there is no broker in a native run")
	}
	r := rig.New(t, "python3")
	h := &host{Rig: r, broker: r.StartBroker("plain"), keeper: true}
	server, port := h.server("blocking")
	c := h.client()
	c.must("ok", "socket fresh")
	for range 3 {
		c.must("ok", "socket open")
		c.must("ok", "connect open %d", port)
		c.must("hello", "echo open hello")
		h.broker.Signal(syscall.SIGKILL)
		h.broker.Wait(soon)
		c.tell("connect fresh %d", port) // waits for the next
		h.broker = r.StartBroker("plain")
		if got := c.heard(); got != "ok" {
			t.Errorf("a connect while there was no broker: %s", got)
		}
		c.must("again", "echo fresh again")
		if got := c.do("recv open"); got != "ECONNRESET" {
			t.Errorf("a connection of the broker before reads %s", got)
		}
		c.must("ok", "close open")
		c.must("ok", "close fresh")
		c.must("ok", "socket fresh")
	}
	if n := strings.Count(server.Stdout(), "accepted"); n != 6 {
		t.Errorf("the server accepted %d connections, want 6", n)
	}
	server.Stop()
	c.Stop()
	h.idle(soon)
}

// TestKeeperOfAnotherUser: what another user's keeper says of sockets the broker
// does not believe. The programs go on with new ones, and no call hangs.
func TestKeeperOfAnotherUser(t *testing.T) {
	if rig.Native() {
		t.Skip("there is no broker in a native run")
	}
	if rig.Owner("nobody") == "" {
		t.Skip("needs root, and a user nobody")
	}
	r := rig.New(t, "python3")
	start := func() *rig.Broker {
		b := r.StartBroker("plain")
		if err := os.Chown(filepath.Join(b.Dir(), "broker.sock"), 0, rig.Group("nobody")); err != nil {
			t.Fatal(err)
		}
		return b
	}
	h := &host{Rig: r, broker: start(), keeper: true, user: "nobody"}
	_, port := h.server("blocking")
	c := h.client()
	c.must("ok", "socket open")
	c.must("ok", "connect open %d", port)
	c.must("hello", "echo open hello")
	c.must("ok", "socket old")
	h.broker.Signal(syscall.SIGKILL)
	h.broker.Wait(soon)
	c.tell("socket late")
	h.broker = start()
	c.heard() // in whatever way
	if got := c.do("recv open"); got != "ECONNRESET" {
		t.Errorf("a connection of the broker before reads %s", got)
	}
	if got := c.do("connect old %d", port); got == "ok" {
		t.Error("a socket that only its user vouches for was believed in")
	}
	_, other := h.server("epoll")
	c.must("ok", "socket new")
	c.must("ok", "connect new %d", other)
	c.must("hello", "echo new hello")
}
