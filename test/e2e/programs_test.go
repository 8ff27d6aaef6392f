package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// runtimes are the echo servers and clients in the ways that programs of
// different runtimes ask for sockets.
var runtimes = []struct {
	name           string
	listen, talkTo func(addr string, port int, n string) []string
}{
	{
		"static Go",
		func(addr string, port int, _ string) []string {
			return []string{program("gopeer"), "listen", hostPort(addr, port), "echo"}
		},
		func(addr string, port int, n string) []string {
			return []string{program("gopeer"), "connect", hostPort(addr, port), "talk", n}
		},
	},
	{"Python", python("listen-blocking"), python("connect-blocking")},
	{"Python asyncio", python("listen-asyncio"), python("connect-asyncio")},
}

func python(action string) func(addr string, port int, n string) []string {
	return func(addr string, port int, n string) []string {
		argv := []string{tool("python3"), program("pypeer.py"), action, addr, strconv.Itoa(port)}
		if strings.HasPrefix(action, "connect") {
			argv = append(argv, n)
		}
		return argv
	}
}

// TestRuntimes lets every kind of client talk to every kind of server.
func TestRuntimes(t *testing.T) {
	for _, server := range runtimes {
		for _, client := range runtimes {
			t.Run(client.name+" to "+server.name, func(t *testing.T) {
				l := loopback(t)
				talk(t, l, l.server.v4, server.listen, client.talkTo)
			})
		}
	}
	t.Run("two hosts, IPv6", func(t *testing.T) {
		l := twoHosts(t)
		for _, r := range runtimes {
			t.Run(r.name, func(t *testing.T) { talk(t, l, l.server.v6, r.listen, r.talkTo) })
		}
	})
	t.Run("QUIC or nothing", func(t *testing.T) {
		l := loopback(t)
		l.client.policy = "require"
		talk(t, l, l.server.v4, runtimes[0].listen, runtimes[1].talkTo)
	})
}

// A program that connects once and then again is accepted in that order, as many
// servers take for granted that tell apart what a client's connections are for.
func TestAcceptOrder(t *testing.T) {
	onEveryLink(t, func(t *testing.T, l *link) {
		port := freePort(t)
		peer := func(action string) []string {
			return []string{tool("python3"), program("pypeer.py"), action, l.server.v4, strconv.Itoa(port), "200"}
		}
		seen := l.capture(t, port)
		server := l.server.serve(t, port, input{}, peer("listen-order")...)
		l.client.start(t, input{}, peer("connect-order")...).succeed(t, time.Minute)
		server.succeed(t, 20*time.Second)
		if got := strings.TrimSpace(server.stdout()); got != "in order" {
			t.Errorf("accepted %s", got)
		}
		seen.onlyUDP(t)
	})
}

// talk sends 4 MB to an echo server and back.
func talk(t *testing.T, l *link, addr string, listen, talkTo func(string, int, string) []string) {
	t.Helper()
	n := strconv.Itoa(4 << 20)
	port := freePort(t)
	seen := l.capture(t, port)
	l.server.serve(t, port, input{}, listen(addr, port, n)...)
	client := l.client.start(t, input{}, talkTo(addr, port, n)...)
	client.succeed(t, 30*time.Second)
	if want := "echoed " + n; !strings.Contains(client.stdout(), want) {
		t.Errorf("the client says %q, want %q", client.stdout(), want)
	}
	seen.onlyUDP(t)
}

// TestOrdinaryUser shows that private brokers need no privilege, whichever way
// they come to read their programs' memory.
func TestOrdinaryUser(t *testing.T) {
	needRoot(t, "programs of another user")
	const nobody = 65534
	ways := []string{"as the machine demands", "chain"}
	if !yamaRestricts() {
		ways = append(ways, "inplace")
	}
	for _, way := range ways {
		t.Run(way, func(t *testing.T) {
			l := loopback(t)
			l.client.cred = &syscall.Credential{Uid: nobody, Gid: nobody}
			if way != ways[0] {
				l.client.env = []string{"POEMQ_EMBEDDED_MODE=" + way}
			}
			for _, dir := range []string{l.client.state, filepath.Dir(l.client.state)} {
				if err := os.Chown(dir, nobody, nobody); err != nil {
					t.Fatal(err)
				}
			}
			talk(t, l, l.server.v4, runtimes[0].listen, runtimes[0].talkTo)
		})
	}
}

// yamaRestricts tells whether only an ancestor may read a program's memory.
func yamaRestricts() bool {
	scope := strings.TrimSpace(readAll("/proc/sys/kernel/yama/ptrace_scope"))
	return scope != "" && scope != "0"
}

// TestEpollBeforeConnect runs a C program that registers with epoll before a
// non-blocking connect, dups, forks, and reads in the child.
func TestEpollBeforeConnect(t *testing.T) {
	onEveryLink(t, func(t *testing.T, l *link) {
		for _, addr := range []string{l.server.v4, l.server.v6} {
			port := freePort(t)
			seen := l.capture(t, port)
			l.server.serve(t, port, input{}, program("gopeer"), "listen", hostPort(addr, port), "echo")
			// The second finds the QUIC connection open, if the broker is shared.
			for range 2 {
				c := l.client.start(t, input{}, program("epoll_first"), addr, strconv.Itoa(port))
				c.succeed(t, 40*time.Second)
				c.says(t, time.Second, "ok")
				if note := c.stderr(); strings.Contains(note, "note:") {
					t.Errorf("%s", note)
				}
			}
			seen.onlyUDP(t)
		}
	})
}

// TestBadArguments runs a C program that calls the socket functions with bad
// pointers and lengths: each returns what the kernel's own would.
func TestBadArguments(t *testing.T) {
	needPoemq(t)
	l := loopback(t)
	plain := startProcess(t, programLimit, input{}, nil, nil, program("bad_args"))
	plain.succeed(t, 30*time.Second)
	through := l.client.start(t, input{}, program("bad_args"))
	through.succeed(t, 60*time.Second)
	want, got := strings.Split(plain.stdout(), "\n"), strings.Split(through.stdout(), "\n")
	if len(want) < 100 {
		t.Fatalf("only %d lines natively", len(want))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("not as the kernel answers (-kernel +poemq):\n%s", diff)
	}
}

// TestRefused wants ECONNREFUSED within a second, from a blocking connect and
// through SO_ERROR, whatever the policy.
func TestRefused(t *testing.T) {
	for _, policy := range []string{"prefer", "require", "off"} {
		t.Run(policy, func(t *testing.T) {
			l := loopback(t)
			l.client.policy = policy
			for _, addr := range []string{l.server.v4, l.server.v6} {
				wantRefused(t, l, addr)
			}
		})
	}
	t.Run("two hosts", func(t *testing.T) {
		l := twoHosts(t)
		wantRefused(t, l, l.server.v4)
		wantRefused(t, l, l.server.v6)
	})
}

func wantRefused(t *testing.T, l *link, addr string) {
	t.Helper()
	client := l.client.start(t, input{}, tool("python3"), program("pypeer.py"), "refused", addr, strconv.Itoa(freePort(t)))
	client.succeed(t, 30*time.Second)
	for _, way := range []string{"blocking", "nonblocking"} {
		var name, errno string
		var took int
		for line := range strings.Lines(client.stdout()) {
			if strings.HasPrefix(line, way+" ") {
				if _, err := fmt.Sscan(line, &name, &errno, &took); err != nil {
					t.Fatal(err)
				}
			}
		}
		if errno != "ECONNREFUSED" {
			t.Errorf("%s, %s connect: %q, want ECONNREFUSED", addr, way, errno)
		}
		if took >= 1000 {
			t.Errorf("%s, %s connect: refused after %d ms, want less than 1000", addr, way, took)
		}
	}
}
