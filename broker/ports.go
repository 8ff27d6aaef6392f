package broker

import (
	"bytes"
	"math/rand/v2"
	"net/netip"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// portTable gives out the local ports of connections whose program did not
// bind. As with TCP a port may serve several connections, to different
// destinations. Ports that programs bind are the kernel's to give (portHold).
type portTable struct {
	mu   sync.Mutex
	used map[ephemeral]struct{}
	next map[portRange]uint16
}

// ephemeral is one name of a connection's local side.
type ephemeral struct {
	table  *portTable
	ns     uint64 // network namespace
	remote netip.AddrPort
	port   uint16
}

type portRange struct{ lo, hi uint16 }

// take finds a free port for a connection to remote. EADDRNOTAVAIL: none is
// left (connect(2)).
func (t *portTable) take(ns uint64, remote netip.AddrPort, r portRange) (*ephemeral, unix.Errno) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.used == nil {
		t.used, t.next = make(map[ephemeral]struct{}), make(map[portRange]uint16)
	}
	size := int(r.hi) - int(r.lo) + 1
	at, ok := t.next[r]
	if !ok {
		// Brokers of one host do not know of each other's ports.
		at = r.lo + uint16(rand.IntN(size))
	}
	for range size {
		e := ephemeral{table: t, ns: ns, remote: remote, port: at}
		if at == r.hi {
			at = r.lo
		} else {
			at++
		}
		if _, taken := t.used[e]; !taken {
			t.used[e] = struct{}{}
			t.next[r] = at
			return &e, 0
		}
	}
	return nil, unix.EADDRNOTAVAIL
}

// claim is for a port that the program bound: EADDRNOTAVAIL when it has a
// connection to remote from there already.
func (t *portTable) claim(ns uint64, remote netip.AddrPort, port uint16) (*ephemeral, unix.Errno) {
	e, errno := t.take(ns, remote, portRange{port, port})
	t.mu.Lock()
	delete(t.next, portRange{port, port})
	t.mu.Unlock()
	return e, errno
}

func (e *ephemeral) release() {
	e.table.mu.Lock()
	delete(e.table.used, *e)
	e.table.mu.Unlock()
}

// localPortRange is net.ipv4.ip_local_port_range of the calling thread's
// network namespace (ip(7)).
func localPortRange() portRange {
	r := portRange{32768, 60999}
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return r
	}
	f := bytes.Fields(b)
	if len(f) != 2 {
		return r
	}
	lo, err1 := strconv.ParseUint(string(f[0]), 10, 16)
	hi, err2 := strconv.ParseUint(string(f[1]), 10, 16)
	if err1 == nil && err2 == nil && 0 < lo && lo <= hi {
		r = portRange{uint16(lo), uint16(hi)}
	}
	return r
}

// unprivilegedPortStart is net.ipv4.ip_unprivileged_port_start of the calling
// thread's network namespace: below it CAP_NET_BIND_SERVICE is needed.
func unprivilegedPortStart() uint16 {
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start")
	if err != nil {
		return 1024
	}
	n, err := strconv.ParseUint(string(bytes.TrimSpace(b)), 10, 16)
	if err != nil {
		return 1024
	}
	return uint16(n)
}
