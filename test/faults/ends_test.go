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

// idle waits until the broker has nothing of programs any more.
func (h *host) idle(limit time.Duration) {
	h.Helper()
	h.Eventually(limit, "the broker has nothing of programs that ended", func() bool {
		s := h.broker.Status()
		return s.Sessions+s.Sockets+s.Relays == 0
	})
}

// TestProgramKilled: what a killed program had is free, and its peer hears of it.
func TestProgramKilled(t *testing.T) {
	h := newHost(t, "python3")
	server, port := h.server("blocking")
	c := h.client()
	c.must("ok", "socket s")
	c.must("ok", "connect s %d", port)
	c.must("hello", "echo s hello")
	server.Signal(syscall.SIGKILL)
	if got := c.do("recv s"); got != "eof" && got != "ECONNRESET" {
		t.Errorf("the client of a killed server reads %s", got)
	}
	// The port is free at once for a program under poemq.
	again := h.Command("python3", script("server.py"), "epoll", port)
	again.Broker, again.Flags = h.broker, []string{"--quic", "require", "--on-broker-missing", "fail"}
	p := again.Start()
	p.Says("listening")
	c.must("ok", "socket s")
	c.must("ok", "connect s %d", port)
	c.must("hello", "echo s hello")
	c.Signal(syscall.SIGKILL)
	p.Says("ended")
	p.Stop()
	h.idle(soon)
}

// TestLauncherKilledDuringHandover: a launcher that is killed while its broker
// does not answer leaves nothing behind.
func TestLauncherKilledDuringHandover(t *testing.T) {
	h := newHost(t, "python3")
	h.broker.Signal(syscall.SIGSTOP)
	var launchers []*rig.Proc
	for range 5 {
		c := h.Command("sleep", "100")
		c.Broker, c.Flags = h.broker, []string{"--on-broker-missing", "fail"}
		launchers = append(launchers, c.Start())
	}
	for _, l := range launchers { // under its filter, waiting for the answer
		h.Eventually(soon, "the launcher has loaded its filter", func() bool {
			tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", l.Pid()))
			for _, f := range tasks {
				b, _ := os.ReadFile(f)
				if strings.Contains(string(b), "Seccomp:\t2") {
					return true
				}
			}
			return false
		})
		l.Signal(syscall.SIGKILL)
		l.Wait(soon)
	}
	h.broker.Signal(syscall.SIGCONT)
	c := h.client()
	c.must("ok", "socket s")
	c.Stop()
	h.idle(soon)
	h.Eventually(soon, "nothing is kept of launchers that were killed", func() bool { return len(h.store.Names()) == 0 })
}

// TestBrokerFrozen: what a broker that stands still is asked, it answers later;
// connections go on.
func TestBrokerFrozen(t *testing.T) {
	h := newHost(t, "python3")
	_, port := h.server("epoll")
	c := h.client()
	c.must("ok", "socket s")
	c.must("ok", "connect s %d", port)
	c.must("hello", "echo s hello")
	const frozen = 10 * time.Second
	h.broker.Signal(syscall.SIGSTOP)
	time.Sleep(frozen / 2) // the fault itself
	c.tell("socket late")  // waits
	time.Sleep(frozen / 2)
	h.broker.Signal(syscall.SIGCONT)
	if got := c.heard(); got != "ok" {
		t.Errorf("a call that a frozen broker was asked: %s", got)
	}
	c.must("ok", "connect late %d", port)
	c.must("hello", "echo late hello")
	c.must("still", "echo s still")
}

// TestManyListenersEnd: 24 listening programs that are killed at one time free
// their ports, which their successors have at once.
func TestManyListenersEnd(t *testing.T) {
	const many = 24
	h := newHost(t, "python3")
	ports := make([]int, many)
	for i := range ports {
		ports[i] = h.FreePort()
	}
	var before []*rig.Proc
	for round := range 2 {
		var now []*rig.Proc
		for i := range ports {
			c := h.Command("python3", script("server.py"), []string{"blocking", "epoll"}[i%2], ports[i])
			c.Broker, c.Flags = h.broker, []string{"--quic", "require", "--on-broker-missing", "fail"}
			now = append(now, c.Start())
		}
		for i, p := range now {
			h.Eventually(soon, fmt.Sprintf("round %d: server %d listens", round, i), func() bool {
				if !p.Running() {
					t.Fatalf("round %d: server %d has ended:\n%s", round, i, p.Stderr())
				}
				return strings.Contains(p.Stdout(), "listening")
			})
		}
		before = now
		for _, p := range now {
			p.Signal(syscall.SIGKILL)
		}
	}
	for _, p := range before {
		p.Wait(soon)
	}
	h.idle(soon)
	h.Eventually(soon, "nothing is kept of servers that were killed", func() bool { return len(h.store.Names()) == 0 })
}

// TestManySessions: a thousand at once, which all go on under the next broker.
func TestManySessions(t *testing.T) {
	const many = 1000
	h := newHost(t, "python3")
	fds := h.broker.FDs()
	group := h.Command("sh", "-c", `
		launch=$1 broker=$2 n=$3
		while [ "$n" -gt 0 ]; do "$launch" --broker "$broker" --on-broker-missing fail -- sleep 300 & n=$((n - 1)); done
		echo started; wait`, "sh", filepath.Join(rig.BinDir(), "poemq-launch"), filepath.Join(h.broker.Dir(), "broker.sock"), many)
	group.Outside = true
	g := group.Start()
	begin := time.Now()
	h.Eventually(2*time.Minute, fmt.Sprintf("%d sessions", many), func() bool { return h.broker.Status().Sessions == many })
	t.Logf("%d sessions after %v, %d descriptors, %d KiB of memory", many, time.Since(begin).Round(time.Millisecond), h.broker.FDs(), h.broker.Memory()>>10)
	begin = time.Now()
	h.kill()
	if n := h.broker.Status().Sessions; n != many {
		t.Errorf("%d sessions go on, want %d", n, many)
	}
	t.Logf("the next broker goes on with them after %v", time.Since(begin).Round(time.Millisecond))
	_, port := h.server("epoll")
	c := h.client()
	c.must("ok", "socket s")
	c.must("ok", "connect s %d", port)
	if err := syscall.Kill(-g.Pid(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	g.Wait(soon)
	h.Eventually(time.Minute, "the sessions end", func() bool { return h.broker.Status().Sessions == 2 })
	h.Eventually(time.Minute, "their descriptors are closed", func() bool { return h.broker.FDs() < fds+100 })
}
