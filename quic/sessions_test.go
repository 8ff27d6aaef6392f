package quic

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// waitFor polls for what nobody tells of.
func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no %s for 30 s", what)
		}
	}
}

// echoServer answers what it reads, on addr, with the key in dir.
func echoServer(t *testing.T, dir, addr string, o ListenOptions, change func(*Config)) (*Host, netip.AddrPort) {
	t.Helper()
	h := testHost(t, func(c *Config) {
		c.Identity = mustIdentity(t, dir)
		if change != nil {
			change(c)
		}
	})
	e, err := h.Listen(nil, addrPort(addr), o, func(in *Incoming) {
		st, err := in.Accept()
		if err != nil {
			return
		}
		io.Copy(st, st)
		st.CloseWrite()
	})
	if err != nil {
		t.Fatal(err)
	}
	return h, e.Addr()
}

// ask opens a stream, has "ping" echoed and returns what its connection is.
func ask(t *testing.T, h *Host, p Peer) ConnInfo {
	t.Helper()
	st, err := h.Dial(testContext(t), p, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	st.Write([]byte("ping"))
	st.CloseWrite()
	if b, err := io.ReadAll(st); string(b) != "ping" || err != nil {
		t.Fatalf("echo of %q, %v", b, err)
	}
	for _, i := range h.Snapshot() {
		if i.Client && i.Peer == p.Remote && i.UID == p.UID {
			return i
		}
	}
	t.Fatal("the connection is not in the snapshot")
	return ConnInfo{}
}

func (s *sessions) len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.order.Len()
}

// kept waits for n sessions: tickets come after the handshake.
func kept(t *testing.T, h *Host, n int) {
	t.Helper()
	waitFor(t, fmt.Sprintf("%d sessions", n), func() bool { return h.sessions.len() == n })
}

// Sessions are resumed after a restart of either side, by the same user only.
func TestResumed(t *testing.T) {
	mine, theirs := t.TempDir(), t.TempDir()
	srv, addr := echoServer(t, theirs, "127.0.0.1:0", ListenOptions{}, nil)
	start := func() *Host { return testHost(t, func(c *Config) { c.Identity = mustIdentity(t, mine) }) }
	c := start()
	if i := ask(t, c, Peer{Remote: addr}); i.Resumed || i.ZeroRTT || i.Version == "" || i.Total != 1 {
		t.Errorf("first connection: %+v", i)
	}
	kept(t, c, 1)
	c.Close()
	path := filepath.Join(mine, sessionsName)
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", fi, err)
	}
	if b, _ := os.ReadFile(path); bytes.Contains(b, mustIdentity(t, theirs).cert.Certificate[0]) || bytes.Contains(b, []byte("ticket")) {
		t.Error("the file is not encrypted")
	}

	c = start()
	if i := ask(t, c, Peer{Remote: addr, UID: 7}); i.Resumed {
		t.Error("another uid resumes the session")
	}
	if i := ask(t, c, Peer{Remote: addr}); !i.Resumed || i.ZeroRTT {
		t.Errorf("after a restart of the client: %+v", i)
	}
	kept(t, c, 2)
	c.Close()
	srv.Close()
	echoServer(t, theirs, addr.String(), ListenOptions{}, nil)
	c = start()
	if i := ask(t, c, Peer{Remote: addr}); !i.Resumed {
		t.Error("not resumed after a restart of the server")
	}
	if left, _ := filepath.Glob(filepath.Join(mine, ".*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// Pins hold for resumed connections, with and without 0-RTT.
func TestResumedPins(t *testing.T) {
	for _, zero := range []bool{false, true} {
		mine := t.TempDir()
		_, addr := echoServer(t, t.TempDir(), "127.0.0.1:0", ListenOptions{}, nil)
		peer := Peer{Remote: addr, ZeroRTT: zero}
		pins := filepath.Join(mine, pinsFile)
		dial := func() (ConnInfo, error) {
			h := testHost(t, func(c *Config) { c.Identity = mustIdentity(t, mine) })
			defer h.Close()
			st, err := h.Dial(testContext(t), peer, 1, nil)
			if err != nil {
				return ConnInfo{}, err
			}
			st.Reset()
			i := ask(t, h, peer)
			kept(t, h, 1)
			return i, nil
		}
		if _, err := dial(); err != nil {
			t.Fatal(err)
		}
		if i, err := dial(); err != nil || !i.Resumed || i.ZeroRTT != zero {
			t.Fatalf("0-RTT %v: %+v, %v", zero, i, err)
		}
		line, _ := os.ReadFile(pins)
		os.WriteFile(pins, nil, 0o600)
		if i, err := dial(); err != nil || i.Resumed {
			t.Errorf("0-RTT %v: pin removed, and resumed is %v, %v", zero, i.Resumed, err)
		}
		if now, _ := os.ReadFile(pins); string(now) != string(line) {
			t.Errorf("pinned again is %q, want %q", now, line)
		}
		other := fmt.Sprintf("%v sha256:AAAA 2026-01-01\n", addr)
		os.WriteFile(pins, []byte(other), 0o600)
		_, err := dial()
		wantErrno(t, err, unix.ECONNREFUSED)
	}
}

// logged is a log that can be looked at.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logged) lines(of string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), of)
}

// A file that is not ours, or damaged, costs one line in the log.
func TestSessionsFileIgnored(t *testing.T) {
	_, addr := echoServer(t, t.TempDir(), "127.0.0.1:0", ListenOptions{}, nil)
	stranger, err := newSessionsFile(mustIdentity(t, ""))
	if err != nil {
		t.Fatal(err)
	}
	foreign, _ := encodeSessions(stranger.aead, nil)
	for name, c := range map[string]struct {
		b    []byte
		mode os.FileMode
	}{
		"empty":       {nil, 0o600},
		"garbage":     {[]byte("garbage"), 0o600},
		"foreign key": {foreign, 0o600},
		"mode":        {foreign, 0o644},
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, sessionsName)
		os.WriteFile(path, c.b, 0o600)
		os.Chmod(path, c.mode)
		var log logged
		h := testHost(t, func(cfg *Config) {
			cfg.Identity = mustIdentity(t, dir)
			cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
		})
		ask(t, h, Peer{Remote: addr})
		ask(t, h, Peer{Remote: addr, UID: 1})
		if n := log.lines("kept sessions are not read"); n != 1 {
			t.Errorf("%s: %d lines in the log: %s", name, n, log.b.String())
		}
		kept(t, h, 2)
		h.Close()
		f, _ := newSessionsFile(mustIdentity(t, dir))
		if all, err := f.read(); len(all) != 2 || err != nil {
			t.Errorf("%s: afterwards %d sessions, %v", name, len(all), err)
		}
	}
}

// Sessions are bounded in number and size; the least recently used goes first.
func TestSessionsBounded(t *testing.T) {
	s, err := newSessions(mustIdentity(t, ""), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	made := func(i, size int) *session {
		return &session{
			Key: fmt.Sprint(i), Ticket: make([]byte, size), State: []byte{1}, Chain: [][]byte{{1}}, Made: time.Now(),
		}
	}
	for i := range maxSessions + 10 {
		s.put(made(i, 100))
	}
	s.put(made(5000, maxSessionSize))
	if n := s.len(); n != maxSessions {
		t.Errorf("%d are kept", n)
	}
	for key, want := range map[string]bool{"9": false, "10": true, "1033": true, "5000": false} {
		if got := s.take(key) != nil; got != want {
			t.Errorf("%s is there: %v", key, got)
		}
	}
	if s.take("10") != nil {
		t.Error("a session is given twice")
	}
	old := made(6000, 1)
	old.Made = time.Now().Add(-sessionLife)
	if s.put(old); s.take("6000") != nil {
		t.Error("an expired session is kept")
	}
}

// TestSessionsShared: processes that share the directory leave a whole file.
func TestSessionsShared(t *testing.T) {
	dir := t.TempDir()
	id := mustIdentity(t, dir)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for range 10 {
				s, err := newSessions(id, slog.New(slog.DiscardHandler))
				if err != nil {
					t.Error(err)
					return
				}
				for k := range 10 {
					s.put(&session{Key: fmt.Sprint(i, k), Ticket: make([]byte, 1000), State: []byte{1}, Chain: [][]byte{{1}}, Made: time.Now()})
				}
				s.close()
				if _, err := s.file.read(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if left, _ := filepath.Glob(filepath.Join(dir, ".*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// FuzzSessions: what is in the file, encrypted and not, and what is made of it.
func FuzzSessions(f *testing.F) {
	id, err := LoadIdentity("")
	if err != nil {
		f.Fatal(err)
	}
	file, err := newSessionsFile(id)
	if err != nil {
		f.Fatal(err)
	}
	whole, _ := encodeSessions(file.aead, []*session{{Key: "k", Ticket: []byte{1}, State: []byte{2}, Chain: [][]byte{id.cert.Certificate[0]}}})
	f.Add(whole)
	f.Add([]byte(sessionsMagic))
	f.Add([]byte(`[{"key":"k","ticket":"AQ==","state":"AwQCEwE=","chain":["MA=="],"made":"2026-01-01T00:00:00Z"},null]`))
	r := &resumption{verify: func(tls.ConnectionState) error { return nil }, pinned: func(*x509.Certificate) bool { return true }}
	f.Fuzz(func(t *testing.T, b []byte) {
		decodeSessions(file.aead, b)
		all, err := parseSessions(b)
		if err == nil && len(all) > maxSessions {
			t.Errorf("%d sessions", len(all))
		}
		for _, n := range all {
			n.fit(time.Now())
			r.restore(n)
		}
		r.restore(&session{State: b, Chain: [][]byte{id.cert.Certificate[0]}})
	})
}
