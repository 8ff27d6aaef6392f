package faults

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/poemq/poemq/test/rig"
)

// soakFor is how long TestSoak goes on: POEMQ_SOAK, as "30m".
func soakFor(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("POEMQ_SOAK")
	if text == "" {
		return 10 * time.Second
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("POEMQ_SOAK: %v", err)
	}
	return d
}

// load is programs that come and go, and are killed now and then.
type load struct {
	h            *host
	echo         int // its port
	web          int // nginx's; 0: it is not installed
	redis        int // redis-server's; 0: it is not installed
	ssh          *sshd
	mu           sync.Mutex
	done, failed int
	by           map[string]int // conversations that went well, by program
}

// talker is a client in a conversation.
type talker struct {
	*rig.Proc
	right func(stdout string) bool // what it says after all went well; nil: whatever
}

// well: the conversation came to its end, and that was the right one.
func (t *talker) well() bool {
	return t.ExitCode() == 0 && (t.right == nil || t.right(t.Stdout()))
}

// TestSoak mixes real servers, short clients, kills of programs and of the
// broker itself. What the broker has at the end is what it had at the beginning.
func TestSoak(t *testing.T) {
	h := newHost(t, "python3")
	l := &load{h: h, by: map[string]int{}}
	_, l.echo = h.server("epoll")
	if rig.Find("nginx") != "" && rig.Find("curl") != "" {
		l.web = l.nginx()
	}
	if rig.Find("redis-server") != "" && rig.Find("redis-cli") != "" {
		l.redis = l.redisServer()
	}
	l.ssh = l.sshServer()
	t.Logf("nginx: %v, redis: %v, ssh: %v", l.web != 0, l.redis != 0, l.ssh != nil)
	l.round(nil) // everything has been used once
	sessions := h.broker.Status().Sessions
	h.quiet(sessions)
	fds, goroutines, memory := h.settled(), h.broker.Status().Goroutines, h.broker.Memory()

	end := time.Now().Add(soakFor(t))
	kills := 0
	for n := 1; time.Now().Before(end); n++ {
		switch n % 6 {
		case 3:
			h.kill()
			kills++
			l.round(nil)
		case 0: // in the middle of it all
			l.round(h.kill)
			kills++
		default:
			l.round(nil)
		}
	}
	for range 4 { // the last broker has done as much as the first before it is compared
		l.round(nil)
	}
	h.quiet(sessions)
	t.Logf("%d conversations went well, %d met a kill; the broker was killed %d times; well went: %v", l.done, l.failed, kills, l.by)
	t.Logf("descriptors %d, then %d; goroutines %d, then %d; memory %d KiB, then %d KiB",
		fds, h.settled(), goroutines, h.broker.Status().Goroutines, memory>>10, h.broker.Memory()>>10)
	if l.ssh != nil && l.by["ssh"] == 0 {
		t.Error("no session of ssh went well")
	}
	if l.done < 10 {
		t.Errorf("only %d conversations went well", l.done)
	}
	h.Eventually(soon, "descriptors as at the beginning", func() bool { return h.broker.FDs() <= fds+24 })
	h.Eventually(soon, "goroutines as at the beginning", func() bool { return h.broker.Status().Goroutines <= goroutines+24 })
	if now := h.broker.Memory(); now > memory+48<<20 {
		t.Errorf("the broker's memory was %d KiB and is %d KiB", memory>>10, now>>10)
	}
}

// quiet waits until only the servers are left.
func (h *host) quiet(sessions int) {
	h.Helper()
	h.Eventually(time.Minute, "only the servers are left", func() bool {
		s := h.broker.Status()
		return s.Sessions <= sessions && s.Relays == 0
	})
}

// settled counts the broker's descriptors when it has let go of those that it
// keeps for tasks that were just there (notify.Targets, for up to two seconds).
func (h *host) settled() (fds int) {
	h.Helper()
	const still = 3 * time.Second
	fds = h.broker.FDs()
	since := time.Now()
	h.Eventually(soon, "descriptors that stay the same", func() bool {
		if now := h.broker.FDs(); now != fds {
			fds, since = now, time.Now()
		}
		return time.Since(since) > still
	})
	return fds
}

func (l *load) nginx() int {
	h, port := l.h, l.h.FreePort()
	h.Random("www/file", 256<<10)
	h.Mkdir("logs", "")
	conf := h.Write("nginx.conf", fmt.Sprintf(`daemon off; pid %[1]s/nginx.pid; error_log stderr; worker_processes 2;
events {} http { access_log off; client_body_temp_path %[1]s/t1; proxy_temp_path %[1]s/t2; fastcgi_temp_path %[1]s/t3; uwsgi_temp_path %[1]s/t4; scgi_temp_path %[1]s/t5;
server { listen 127.0.0.1:%[2]d; root %[1]s/www; } }`, h.Dir, port))
	c := h.Command("nginx", "-c", conf, "-p", h.Dir)
	c.Broker, c.Flags = h.broker, []string{"--on-broker-missing", "fail"}
	c.Start().Listens(port)
	return port
}

func (l *load) redisServer() int {
	h, port := l.h, l.h.FreePort()
	c := h.Command("redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", h.Dir)
	c.Broker, c.Flags = h.broker, []string{"--on-broker-missing", "fail"}
	c.Start().Says("eady to accept connections")
	return port
}

// round is some clients at a time, one of which may be killed. With during, all
// of them may fail, but not hang.
func (l *load) round(during func()) {
	h := l.h
	h.Helper()
	var clients []*talker
	start := func(args ...any) {
		c := h.Command(args...)
		c.Broker, c.Flags = h.broker, []string{"--quic", "require", "--on-broker-missing", "fail"}
		clients = append(clients, &talker{Proc: c.Start()})
	}
	start("python3", script("talk.py"), l.echo, 20)
	if l.web != 0 {
		start("curl", "-sS", "--fail", "--max-time", "20", "-o", "/dev/null", fmt.Sprintf("http://127.0.0.1:%d/file", l.web))
	}
	if l.redis != 0 {
		start("redis-cli", "-p", l.redis, "-r", 50, "incr", "n")
	}
	if l.ssh != nil {
		clients = append(clients, l.ssh.start())
	}
	victim := rand.IntN(3 * len(clients))
	for i, c := range clients {
		if i == victim {
			c.Signal(syscall.SIGKILL)
		}
	}
	if during != nil {
		during()
	}
	for i, c := range clients {
		c.Wait(soon) // nothing hangs
		l.mu.Lock()
		if c.well() {
			l.done++
			name, _, _ := strings.Cut(c.String(), " ")
			l.by[name]++
		} else {
			l.failed++
		}
		l.mu.Unlock()
		if c.ExitCode() == 0 && !c.well() { // a kill is no excuse
			h.Errorf("%s ended well with what is wrong:\n%s", c, c.Stdout())
		}
		if c.ExitCode() != 0 && i != victim && c.Stderr() == "" {
			h.Errorf("%s failed (%d) and does not say why:\n%s", c, c.ExitCode(), c.Stdout())
		}
		if c.ExitCode() != 0 && i != victim && during == nil {
			h.Errorf("%s failed though nobody killed it:\n%s%s", c, strings.TrimSpace(c.Stdout()), c.Stderr())
		}
	}
}
