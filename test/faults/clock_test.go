package faults

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/poemq/poemq/broker/api"
	"github.com/poemq/poemq/test/rig"
)

// clock is a Place whose wall clock is set, and jumps, apart from the machine's
// (test/programs/clockjump.c).
type clock struct {
	*rig.Rig
	program, file string
	off           time.Duration
}

func newClock(r *rig.Rig, program, name string) *clock {
	r.Helper()
	c := &clock{Rig: r, program: program, file: r.Path("clock-" + name)}
	c.set(0)
	return c
}

// set has the clock jump to the machine's and that much.
func (c *clock) set(off time.Duration) {
	c.Helper()
	c.off = off
	next := c.Write(filepath.Base(c.file)+".next", fmt.Sprintln(int64(off/time.Second)))
	if err := os.Rename(next, c.file); err != nil {
		c.Fatal(err)
	}
}

// Start starts cmd there. A QUIC connection that nobody uses ends soon, for the
// next one to need a handshake.
func (c *clock) Start(cmd *exec.Cmd) error {
	cmd.Args = append([]string{c.program, c.file, cmd.Path}, cmd.Args[1:]...)
	cmd.Path = c.program
	cmd.Env = append(cmd.Env, "POEMQ_POOL_IDLE=1s", "POEMQ_LOG=debug")
	return cmd.Start()
}

var stamp = regexp.MustCompile(`(?m)^time=(\S+) `)

// shows waits until a broker's log is of the clock's time.
func (c *clock) shows(b *rig.Broker) {
	c.Helper()
	c.Eventually(soon, fmt.Sprintf("a broker that sees its clock %v off", c.off), func() bool {
		lines := stamp.FindAllStringSubmatch(b.Stderr(), -1)
		if len(lines) == 0 {
			return false
		}
		seen, err := time.Parse(time.RFC3339Nano, lines[len(lines)-1][1])
		return err == nil && time.Until(seen.Add(-c.off)).Abs() < time.Minute
	})
}

// connections lists a broker's to one port of the other.
func connections(b *rig.Broker, port int) (found []api.Connection) {
	out, err := exec.Command(filepath.Join(rig.BinDir(), "poemqctl"), "--json", "--control", b.Control(), "conns").Output()
	var all api.Connections
	if err != nil || json.Unmarshal(out, &all) != nil {
		return nil
	}
	for _, c := range all.Connections {
		if int(c.Peer.Port()) == port {
			found = append(found, c)
		}
	}
	return found
}

// TestClockJumps: two brokers, one of which has its clock jump by days, then the
// other. What is connected goes on over the same QUIC connection, and new ones
// come about, with sessions that were made at a time that is to come.
func TestClockJumps(t *testing.T) {
	if rig.Native() {
		t.Skip("there is no broker in a native run")
	}
	r := rig.New(t, "python3", "gcc")
	program := r.Build("clockjump.c")
	there, here := newClock(r, program, "server"), newClock(r, program, "client")
	servers, clients := &host{Rig: r, broker: r.StartBrokerOn(there, "server")}, &host{Rig: r, broker: r.StartBrokerOn(here, "client")}
	_, port := servers.server("epoll")
	_, other := servers.server("blocking")
	c := clients.client()
	c.must("ok", "socket open")
	c.must("ok", "connect open %d", port)
	c.must("hello", "echo open hello")
	before := connections(clients.broker, port)
	if len(before) != 1 {
		t.Fatalf("there are %d connections to the server, want 1", len(before))
	}

	const day = 24 * time.Hour
	for i, jump := range []struct {
		what       string
		there      time.Duration // how much the clocks are off
		here       time.Duration
		handshakes string // whether the session that is kept can be resumed; "": it depends
	}{
		{"none", 0, 0, "full"},
		{"none again", 0, 0, "resumed"},
		{"the server's to the next day", day, 0, ""},
		{"the client's to the next day", day, day, ""},
		{"the server's back by two days", -day, day, "full"},
		{"the client's back by two days", -day, -day, ""},
		{"the server's on by ten days", 9 * day, -day, "full"},
		{"both as they were", 0, 0, "full"},
	} {
		talk := r.Command("python3", script("talk.py"), port, 100) // while it jumps
		talk.Broker, talk.Flags = clients.broker, clients.flags()
		talking := talk.Start()
		there.set(jump.there)
		here.set(jump.here)
		c.must("still", "echo open still")
		c.must("ok", "socket new%d", i)
		c.must("ok", "connect new%d %d", i, port)
		c.must("hello", "echo new%d hello", i)

		begin := time.Now()
		c.must("ok", "socket fresh")
		c.must("ok", "connect fresh %d", other)
		c.must("hello", "echo fresh hello")
		made := connections(clients.broker, other)
		if len(made) != 1 {
			t.Fatalf("%s: %d connections to the other server, want 1", jump.what, len(made))
		}
		how := map[bool]string{true: "resumed", false: "full"}[made[0].Resumed]
		t.Logf("%s: a new connection after %v, handshake %s", jump.what, time.Since(begin).Round(time.Millisecond), how)
		if jump.handshakes != "" && how != jump.handshakes {
			t.Errorf("%s: the handshake is %s, want %s", jump.what, how, jump.handshakes)
		}
		c.must("ok", "close fresh")
		there.shows(servers.broker)
		here.shows(clients.broker)
		r.Eventually(soon, jump.what+": the connection that nobody uses ends", func() bool {
			return len(connections(clients.broker, other)) == 0
		})
		talking.Wait(soon)
		if talking.ExitCode() != 0 {
			t.Errorf("%s: a conversation: %s%s", jump.what, talking.Stdout(), talking.Stderr())
		}
	}
	for i := range 8 {
		c.must("still", "echo new%d still", i)
	}
	after := connections(clients.broker, port)
	if len(after) != 1 || after[0].ID != before[0].ID {
		t.Errorf("the connection to the server was %d, now there are %+v", before[0].ID, after)
	}
	c.Stop()
	soundLog(t, "client", clients.broker)
	soundLog(t, "server", servers.broker)
}

var duration = regexp.MustCompile(` duration=(\S+)`)

// soundLog: nothing in a broker's log is amiss, and no connection lasted for days.
func soundLog(t *testing.T, name string, b *rig.Broker) {
	t.Helper()
	b.Signal(syscall.SIGTERM)
	b.Wait(soon)
	ended := 0
	for line := range strings.Lines(b.Stderr()) {
		if strings.Contains(line, "panic") || strings.Contains(line, " level=WARN ") || strings.Contains(line, " level=ERROR ") {
			t.Errorf("the %s's broker says: %s", name, line)
		}
		if m := duration.FindStringSubmatch(line); m != nil {
			ended++
			if d, err := time.ParseDuration(m[1]); err != nil || d < 0 || d > time.Hour {
				t.Errorf("the %s's broker says that a connection lasted %s: %s", name, m[1], line)
			}
		}
	}
	if ended < 8 {
		t.Errorf("the %s's broker tells of %d connections that ended, want 8 and more", name, ended)
	}
}
