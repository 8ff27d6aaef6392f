package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestIdentity connects to a server for the first time, again, and after its
// key has changed: the key is private, the pin is kept, and a changed key is
// refused in the program and in words.
func TestIdentity(t *testing.T) {
	needPoemq(t)
	l := loopback(t)
	l.client = newHost(t) // a state directory of its own
	port := freePort(t)
	addr := hostPort(l.server.v4, port)

	talk := func() *process {
		server := l.server.serve(t, port, input{}, program("gopeer"), "listen", addr, "blast", "1000")
		client := l.client.start(t, input{}, program("gopeer"), "connect", addr, "sink", "1000")
		client.exitCode(t, 20*time.Second)
		if strings.Contains(client.stdout(), "received ") {
			server.succeed(t, 20*time.Second)
		} else {
			server.signal(t, 9)
		}
		// Its broker may stay a moment for last bytes; the next server must not
		// be taken for listening because of that.
		eventually(t, 15*time.Second, "the server's broker has left the port", func() bool {
			return !inTable(thisTask, "udp", port, "")
		})
		return client
	}
	for range 2 {
		if c := talk(); !strings.Contains(c.stdout(), "ended eof") {
			t.Fatalf("no transfer: %s%s", c.stdout(), c.stderr())
		}
	}
	for _, h := range []*host{l.client, l.server} {
		wantMode(t, h.state, 0o700)
		for _, f := range glob(t, filepath.Join(h.state, "identity.pem")) {
			wantMode(t, f, 0o600)
		}
	}
	pins, err := os.ReadFile(filepath.Join(l.client.state, "known_peers"))
	if err != nil || strings.Count(string(pins), addr+" ") != 1 {
		t.Errorf("known_peers: %v, %q, want one line of %s", err, pins, addr)
	}

	l.server = newHost(t) // another key on the same port
	c := talk()
	if strings.Contains(c.stdout(), "received ") || !strings.Contains(c.stdout()+c.stderr(), "ECONNREFUSED") && !strings.Contains(c.stdout()+c.stderr(), "refused") {
		t.Errorf("a changed key: %s%s, want a refused connection", c.stdout(), c.stderr())
	}
	if lines := strings.Count(c.stderr(), "known_peers"); lines != 1 {
		t.Errorf("%d lines name the pin to remove, want 1:\n%s", lines, c.stderr())
	}
}

// TestKeyLog writes the secrets down when SSLKEYLOGFILE says so.
func TestKeyLog(t *testing.T) {
	needPoemq(t)
	l := loopback(t)
	l.client = newHost(t)
	file := filepath.Join(t.TempDir(), "keys")
	l.client.env = append(l.client.env, "SSLKEYLOGFILE="+file)
	port := freePort(t)
	addr := hostPort(l.server.v4, port)
	server := l.server.serve(t, port, input{}, program("gopeer"), "listen", addr, "blast", "1000")
	l.client.start(t, input{}, program("gopeer"), "connect", addr, "sink", "1000").succeed(t, 20*time.Second)
	server.succeed(t, 20*time.Second)
	keys, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, label := range []string{"CLIENT_HANDSHAKE_TRAFFIC_SECRET ", "CLIENT_TRAFFIC_SECRET_0 ", "SERVER_TRAFFIC_SECRET_0 "} {
		if !strings.Contains(string(keys), label) {
			t.Errorf("no %sin the key log:\n%s", label, keys)
		}
	}
	wantMode(t, file, 0o600)
}

func wantMode(t *testing.T, path string, want os.FileMode) {
	t.Helper()
	st, err := os.Stat(path)
	if err != nil {
		t.Error(err)
	} else if st.Mode().Perm() != want {
		t.Errorf("%s has mode %o, want %o", path, st.Mode().Perm(), want)
	}
}

func glob(t *testing.T, pattern string) []string {
	t.Helper()
	found, err := filepath.Glob(pattern)
	if err != nil || len(found) == 0 {
		t.Errorf("nothing is %s: %v", pattern, err)
	}
	return found
}
