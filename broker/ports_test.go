package broker

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

func TestPortTable(t *testing.T) {
	var table portTable
	from := netip.MustParseAddr("192.0.2.9")
	a, b := netip.MustParseAddrPort("192.0.2.1:443"), netip.MustParseAddrPort("192.0.2.2:443")
	r := portRange{65000, 65535} // up to the highest: at must not wrap to 0
	size := int(r.hi) - int(r.lo) + 1
	seen := map[uint16]*ephemeral{}
	for range size {
		e, errno := table.take(1, from, a, false, r)
		if errno != 0 {
			t.Fatal(errno)
		}
		if e.port < r.lo || seen[e.port] != nil {
			t.Fatalf("port %d is outside, or given twice", e.port)
		}
		seen[e.port] = e
	}
	if _, errno := table.take(1, from, a, false, r); errno != unix.EADDRNOTAVAIL {
		t.Errorf("none is left: %v, want EADDRNOTAVAIL", errno)
	}
	// Another destination or another network namespace is another name.
	for what, e := range map[string]*ephemeral{"destination": must(t)(table.take(1, from, b, false, r)), "namespace": must(t)(table.take(2, from, a, false, r))} {
		if seen[e.port] == nil {
			t.Errorf("another %s: port %d", what, e.port)
		}
	}
	seen[65123].release()
	if e := must(t)(table.take(1, from, a, false, r)); e.port != 65123 {
		t.Errorf("port %d is given, only 65123 is free", e.port)
	}
	if _, errno := table.claim(1, a, 65123); errno != unix.EADDRNOTAVAIL {
		t.Errorf("claim of what is taken: %v", errno)
	}
	seen[65123].release()
	if e := must(t)(table.claim(1, a, 65123)); e.port != 65123 {
		t.Errorf("claimed %d", e.port)
	}
}

func TestOffsets(t *testing.T) {
	for size := 1; size < 9; size++ {
		for from := range 2 * size {
			seen := map[int]bool{}
			for i := range size {
				at := offset(from, i, size)
				if at < 0 || at >= size || seen[at] || (at%2 == 0) != (i < (size+1)/2) {
					t.Errorf("from %d of %d, try %d: %d", from, size, i, at)
				}
				seen[at] = true
			}
		}
	}
}

func must(t *testing.T) func(*ephemeral, unix.Errno) *ephemeral {
	return func(e *ephemeral, errno unix.Errno) *ephemeral {
		t.Helper()
		if errno != 0 {
			t.Fatal(errno)
		}
		return e
	}
}

// Any order of taking, claiming and releasing gives no name twice and forgets
// none.
func TestPortTableAtRandom(t *testing.T) {
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 1))
	var table portTable
	from := netip.MustParseAddr("192.0.2.9")
	r := portRange{40000, 40015}
	model := map[connName]*ephemeral{}
	for step := range 20_000 {
		ns, remote := rnd.Uint64N(2), netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(rnd.IntN(2))}), 443)
		var e *ephemeral
		var errno unix.Errno
		switch rnd.IntN(3) {
		case 0:
			e, errno = table.take(ns, from, remote, false, r)
			taken := 0
			for k := range model {
				if k.ns == ns && k.remote == remote {
					taken++
				}
			}
			if full := taken == 16; full != (errno == unix.EADDRNOTAVAIL) {
				t.Fatalf("seed %d, step %d: %d taken, %v", seed, step, taken, errno)
			}
		case 1:
			port := r.lo + uint16(rnd.IntN(16))
			e, errno = table.claim(ns, remote, port)
			if taken := model[connName{nsPort{ns, port}, remote}] != nil; taken != (errno == unix.EADDRNOTAVAIL) {
				t.Fatalf("seed %d, step %d: taken %v, %v", seed, step, taken, errno)
			}
		default:
			for k, old := range model {
				old.release()
				delete(model, k)
				break
			}
		}
		if errno == 0 && e != nil {
			if model[e.name] != nil {
				t.Fatalf("seed %d, step %d: %+v is given twice", seed, step, e.name)
			}
			model[e.name] = e
		}
		if len(table.used) != len(model) {
			t.Fatalf("seed %d, step %d: %d in the table, %d taken", seed, step, len(table.used), len(model))
		}
	}
	if len(table.next) > 1 {
		t.Errorf("%d places to go on from are kept for one range", len(table.next))
	}
}

// TestPortTableUsers: a port is shared among sockets of one user only.
func TestPortTableUsers(t *testing.T) {
	var table portTable
	any, one, other := netip.MustParseAddrPort("0.0.0.0:80"), netip.MustParseAddrPort("192.0.2.1:80"), netip.MustParseAddrPort("192.0.2.2:80")
	for range 2 {
		if !table.hold(1, one, false, true, 7) {
			t.Error("a user cannot share a port with itself")
		}
	}
	if table.hold(1, one, false, true, 8) || table.hold(1, any, false, true, 8) {
		t.Error("another user shares the port")
	}
	if !table.hold(1, other, false, true, 8) || !table.hold(2, one, false, true, 8) {
		t.Error("another address or namespace is not free")
	}
	table.unhold(1, one, 7)
	if table.hold(1, one, false, true, 8) {
		t.Error("another user has the port with one holder left")
	}
	table.unhold(1, one, 7)
	if !table.hold(1, one, false, true, 8) {
		t.Error("a port that nobody holds is not free")
	}
}
