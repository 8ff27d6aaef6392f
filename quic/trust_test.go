package quic

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func aKey(i int) string { return fmt.Sprintf("sha256:%042dA=", i) }

// TestTrust changes a file that a person has written into.
func TestTrust(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, pinsFile)
	text := "# ours\n192.0.2.1:443 " + aKey(1) + " 2026-01-31\n\n192.0.2.2:443 " + aKey(2) + "\n192.0.2.1:443 " + aKey(3) + " 2026-02-01"
	if err := os.WriteFile(file, []byte(text), 0o640); err != nil {
		t.Fatal(err)
	}
	p := newPins(dir)
	all, err := p.list()
	if err != nil || len(all) != 3 || all[0].Line != 2 || all[0].Date != "2026-01-31" || all[1].Line != 5 || all[2].Key != aKey(2) || all[0].File != file {
		t.Fatalf("%+v, %v", all, err)
	}
	peer := all[0].Peer
	if err := p.set(peer, aKey(4)); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadFile(file)
	if err != nil || !strings.HasPrefix(string(left), "# ours\n\n192.0.2.2:443 "+aKey(2)+"\n192.0.2.1:443 "+aKey(4)+" ") || strings.Count(string(left), "\n") != 4 {
		t.Errorf("%s", left)
	}
	if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o640 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	for _, bad := range []string{"", "sha256:", "sha256:AAAA", "md5:" + aKey(1)[7:], aKey(1) + "A"} {
		if err := p.set(peer, bad); err == nil {
			t.Errorf("%q is taken for a key", bad)
		}
	}
	if n, err := p.forget(peer); n != 1 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if n, err := p.forget(peer); n != 0 || err != nil {
		t.Errorf("again: %d, %v", n, err)
	}
	if all, err := p.list(); err != nil || len(all) != 1 {
		t.Errorf("%+v, %v", all, err)
	}
	if names, err := filepath.Glob(filepath.Join(dir, "*")); err != nil || len(names) != 1 {
		t.Errorf("left over: %q", names)
	}
}

// TestTrustAtOnce has pins made and taken out at the same time, as by several
// processes: none that was not taken out may be lost.
func TestTrustAtOnce(t *testing.T) {
	dir := t.TempDir()
	const n = 50
	at := func(i int) Place {
		return Place{Peer: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), 443)}
	}
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			p := newPins(dir) // as another process
			if _, _, err := p.confirm(at(i), aKey(i)); err != nil {
				t.Error(err)
			}
			if i%2 == 0 {
				if k, err := p.forget(at(i)); k != 1 || err != nil {
					t.Errorf("%d: %d, %v", i, k, err)
				}
			}
		})
	}
	all.Wait()
	left, err := newPins(dir).list()
	if err != nil || len(left) != n/2 {
		t.Errorf("%d pins are left of %d, %v", len(left), n/2, err)
	}
}
