package broker

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// portTable gives out the local ports of connections whose program did not
// bind. As with TCP a port may serve several connections, to different
// destinations. Ports that programs bind are the kernel's to give (portHold).
type portTable struct {
	mu    sync.Mutex
	used  map[connName]*ephemeral
	ports map[nsPort]*portUse
	next  map[portRange]int // offset to go on from
}

// connName is what must be unique of a connection.
type connName struct {
	nsPort
	remote netip.AddrPort
}

type nsPort struct {
	ns   uint64 // network namespace
	port uint16
}

// portUse is who has a port.
type portUse struct {
	held  []holder
	conns map[*ephemeral]struct{}
}

// holder is a portHold's address and user.
type holder struct {
	addr netip.Addr
	uid  uint32
}

// ephemeral is one name of a connection's local side.
type ephemeral struct {
	table *portTable
	name  connName
	port  uint16
	local netip.Addr
	reuse bool // SO_REUSEADDR
}

type portRange struct{ lo, hi uint16 }

// take finds a free port for a connection from local to remote. EADDRNOTAVAIL:
// none is left (connect(2)).
func (t *portTable) take(ns uint64, local netip.Addr, remote netip.AddrPort, reuse bool, r portRange) (*ephemeral, unix.Errno) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.init()
	size := int(r.hi) - int(r.lo) + 1
	from, ok := t.next[r]
	if !ok {
		// Brokers of one host do not know of each other's ports.
		from = rand.IntN(size)
	}
	for i := range size {
		at := offset(from, i, size)
		key := nsPort{ns, r.lo + uint16(at)}
		use := t.ports[key]
		if use != nil && len(use.held) > 0 {
			continue // somebody bound it
		}
		if e := t.add(connName{key, remote}); e != nil {
			e.local, e.reuse = local.Unmap(), reuse
			if use == nil {
				use = &portUse{conns: make(map[*ephemeral]struct{})}
				t.ports[key] = use
			}
			use.conns[e] = struct{}{}
			t.next[r] = at + 2
			return e, 0
		}
	}
	return nil, unix.EADDRNOTAVAIL
}

// offset is the i-th of a range's offsets to try, beginning near from: first
// all even ones, then all odd ones. connect(2) does so too, and bind(2) to port
// 0 the other way round, so that a port which a program was given, closed and
// binds again is seldom taken meanwhile.
func offset(from, i, size int) int {
	even := (size + 1) / 2
	if i < even {
		return (from/2 + i) % even * 2
	}
	return (from/2+i)%(size/2)*2 + 1
}

// init is called with t.mu held.
func (t *portTable) init() {
	if t.used == nil {
		t.used, t.ports, t.next = make(map[connName]*ephemeral), make(map[nsPort]*portUse), make(map[portRange]int)
	}
}

// add is called with t.mu held; nil when there is such a connection.
func (t *portTable) add(n connName) *ephemeral {
	if t.used[n] != nil {
		return nil
	}
	e := &ephemeral{table: t, name: n, port: n.port}
	t.used[n] = e
	return e
}

// claim is for a port that the program bound: EADDRNOTAVAIL when it has a
// connection to remote from there already.
func (t *portTable) claim(ns uint64, remote netip.AddrPort, port uint16) (*ephemeral, unix.Errno) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.init()
	if e := t.add(connName{nsPort{ns, port}, remote}); e != nil {
		return e, 0
	}
	return nil, unix.EADDRNOTAVAIL
}

func (e *ephemeral) release() {
	t := e.table
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.used, e.name)
	if use := t.ports[e.name.nsPort]; use != nil {
		delete(use.conns, e)
		t.dropUnused(e.name.nsPort)
	}
}

// hold notes that a program of uid has bound local. It reports false when a
// connection has the port and is not shared with (SO_REUSEADDR, socket(7)), or
// another user's socket with which it would be shared (SO_REUSEPORT): to the
// kernel both may be sockets of the broker's user.
func (t *portTable) hold(ns uint64, local netip.AddrPort, reuse, sharing bool, uid uint32) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.init()
	key := nsPort{ns, local.Port()}
	use := t.ports[key]
	if use == nil {
		use = &portUse{conns: make(map[*ephemeral]struct{})}
		t.ports[key] = use
	}
	a := local.Addr().Unmap().WithZone("")
	for e := range use.conns {
		if !(reuse && e.reuse) && (a.IsUnspecified() || a == e.local.WithZone("")) {
			return false
		}
	}
	for _, h := range use.held {
		if sharing && h.uid != uid && overlap(h.addr, a) {
			return false
		}
	}
	use.held = append(use.held, holder{a, uid})
	return true
}

func (t *portTable) unhold(ns uint64, local netip.AddrPort, uid uint32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	key := nsPort{ns, local.Port()}
	if use := t.ports[key]; use != nil {
		gone := holder{local.Addr().Unmap().WithZone(""), uid}
		if i := slices.Index(use.held, gone); i >= 0 {
			use.held = slices.Delete(use.held, i, i+1)
		}
		t.dropUnused(key)
	}
}

func (t *portTable) dropUnused(key nsPort) {
	if use := t.ports[key]; len(use.held) == 0 && len(use.conns) == 0 {
		delete(t.ports, key)
	}
}
