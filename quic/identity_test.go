package quic

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

func mustIdentity(t *testing.T, dir string) *Identity {
	t.Helper()
	id, err := LoadIdentity(dir)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestIdentityOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	var wg sync.WaitGroup
	keys := make([]string, 20)
	for i := range keys {
		c := startChild(t, "identity", dir)
		wg.Go(func() {
			c.out.Scan()
			keys[i] = c.out.Text()
		})
	}
	wg.Wait()
	want := mustIdentity(t, dir).Fingerprint()
	for i, k := range keys {
		if k != want {
			t.Errorf("process %d has %q, want %q", i, k, want)
		}
	}
	left, _ := filepath.Glob(filepath.Join(dir, ".*"))
	if len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	for path, mode := range map[string]os.FileMode{dir: 0o700, filepath.Join(dir, identityFile): 0o600} {
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", path, st.Mode(), err)
		}
	}
}

func TestIdentityRefused(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, identityFile)
	mustIdentity(t, dir)
	os.Chmod(path, 0o640)
	if _, err := LoadIdentity(dir); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("group-readable key: %v", err)
	}
	os.Chmod(path, 0o600)
	if os.Geteuid() == 0 {
		os.Chown(path, 12345, 0)
		if _, err := LoadIdentity(dir); err == nil {
			t.Error("another user's key is taken")
		}
		os.Chown(path, 0, 0)
	}
	os.WriteFile(path, []byte("garbage"), 0o600)
	if _, err := LoadIdentity(dir); err == nil {
		t.Error("garbage is taken")
	}
}

// TestPinned: first use, the same key after a restart, a changed key, and the
// line removed.
func TestPinned(t *testing.T) {
	known, keyA := t.TempDir(), t.TempDir()
	serve := func(dir, addr string) (*Host, netip.AddrPort) {
		h := testHost(t, func(c *Config) { c.Identity = mustIdentity(t, dir) })
		e, _ := listen(t, h, addr, ListenOptions{})
		return h, e.Addr()
	}
	client := testHost(t, func(c *Config) { c.Identity = mustIdentity(t, known) })
	try := func(addr netip.AddrPort) error {
		_, err := client.Dial(testContext(t), Peer{Remote: addr}, 1, nil)
		return err
	}
	path := filepath.Join(known, pinsFile)
	os.WriteFile(path, []byte("# known peers\n192.0.2.1:80 sha256:AAAA 2026-01-01"), 0o600) // no newline

	h, addr := serve(keyA, "127.0.0.1:0")
	if err := try(addr); err != nil {
		t.Fatalf("first use: %v", err)
	}
	b, _ := os.ReadFile(path)
	if want := fmt.Sprintf("\n%v %s 2", addr, mustIdentity(t, keyA).Fingerprint()); !strings.Contains(string(b), want) {
		t.Fatalf("known_peers is %q, want %q in it", b, want)
	}
	h.Close()
	h, _ = serve(keyA, addr.String())
	if err := try(addr); err != nil {
		t.Fatalf("same key: %v", err)
	}
	h.Close()
	serve(t.TempDir(), addr.String())
	err := try(addr)
	wantErrno(t, err, unix.ECONNREFUSED)
	if !errors.Is(err, ErrIdentity) || !strings.Contains(err.Error(), "line 3 of "+path) {
		t.Fatalf("changed key: %v", err)
	}
	os.WriteFile(path, nil, 0o600)
	if err := try(addr); err != nil {
		t.Fatalf("after the line was removed: %v", err)
	}
	os.WriteFile(path, []byte("nonsense\n"), 0o600)
	other, _ := listen(t, testHost(t, nil), "127.0.0.1:0", ListenOptions{})
	if err := try(other.Addr()); err == nil {
		t.Error("a damaged known_peers lets a peer pass unverified")
	}
}

func TestPinsInMemory(t *testing.T) {
	p := newPins("/proc/1/no/such") // cannot be written, by root neither
	peer := Place{Peer: addrPort("192.0.2.1:80")}
	first, warning, err := p.confirm(peer, "sha256:a")
	if !first || warning == nil || err != nil {
		t.Fatalf("first: %v, %v, %v", first, warning, err)
	}
	if err := p.check(peer, "sha256:a"); err != nil {
		t.Error(err)
	}
	if err := p.check(peer, "sha256:b"); !errors.Is(err, ErrIdentity) {
		t.Error(err)
	}
}

// The same address in two network namespaces that have names is two peers; those
// without a name are one.
func TestPinsOfNamespaces(t *testing.T) {
	dir := t.TempDir()
	addr := addrPort("[2001:db8::1]:80")
	for ns, key := range map[string]string{"": "sha256:a", "blue": "sha256:b", "red": "sha256:c"} {
		if first, warning, err := newPins(dir).confirm(Place{addr, ns}, key); !first || warning != nil || err != nil {
			t.Errorf("first use in %q: %v, %v, %v", ns, first, warning, err)
		}
	}
	p := newPins(dir)
	if err := p.check(Place{addr, "blue"}, "sha256:b"); err != nil {
		t.Error(err)
	}
	if err := p.check(Place{addr, "blue"}, "sha256:a"); !errors.Is(err, ErrIdentity) || !strings.Contains(err.Error(), "[2001:db8::1]:80@blue") {
		t.Errorf("another namespace's key: %v", err)
	}
	if p.has(Place{addr, "green"}, "sha256:a") {
		t.Error("a namespace has the pin of others")
	}
	for _, bad := range []string{"192.0.2.1:80@ sha256:AAAA", "192.0.2.1@blue sha256:AAAA"} {
		if _, err := parsePins([]byte(bad)); err == nil {
			t.Errorf("%q is taken for a pin", bad)
		}
	}
}

// TestPinRace: of many first uses with different keys one wins.
func TestPinRace(t *testing.T) {
	dir := t.TempDir()
	peer := Place{Peer: addrPort("192.0.2.1:80")}
	var wg sync.WaitGroup
	var won sync.Map
	for i := range 20 {
		wg.Go(func() {
			first, _, err := newPins(dir).confirm(peer, fmt.Sprint("sha256:", i))
			if first && err == nil {
				won.Store(i, true)
			} else if !errors.Is(err, ErrIdentity) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	n := 0
	won.Range(func(_, _ any) bool { n++; return true })
	if n != 1 {
		t.Errorf("%d keys were pinned", n)
	}
}
