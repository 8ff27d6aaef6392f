package quic

import (
	"cmp"
	"fmt"
	"math"
	"net/netip"
	"os"
	"runtime"
	"runtime/metrics"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	quicgo "github.com/quic-go/quic-go"
)

// What peers send and programs do not read has no bound of its own that is
// worth one: QUIC's credit is given in advance, 256 MiB a connection. So the
// heap is looked at, and when there is too much of it, the peer address that
// holds most of it loses its connections, the largest first. Others go on.

const (
	// memoryEvery is how often the heap is looked at.
	memoryEvery = 100 * time.Millisecond
	// memorySettle is how long what ended connections held may take to be freed:
	// the programs' sockets have to be told first.
	memorySettle = 2 * time.Second
	// What a connection and a stream hold without any data, to reckon with.
	// Tests measure it: TestLimitHandshakes and TestManyStreams.
	connOctets   = 64 << 10
	streamOctets = 8 << 10
	// leastPacket is what of a packet is not a stream's: header and tag.
	leastPacket = 28
)

// memoryOf is how much memory this process may use: the machine's, or less if a
// cgroup says so.
func memoryOf() int64 {
	var si unix.Sysinfo_t
	all := int64(4 << 30)
	if unix.Sysinfo(&si) == nil {
		all = int64(si.Totalram) * int64(si.Unit)
	}
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return all
	}
	for line := range strings.Lines(string(b)) {
		dir, ok := strings.CutPrefix(strings.TrimSpace(line), "0::") // cgroup v2
		for ok && dir != "/" && dir != "" {
			if b, err := os.ReadFile("/sys/fs/cgroup" + dir + "/memory.max"); err == nil {
				if n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64); err == nil && n > 0 {
					all = min(all, n)
				}
			}
			dir = dir[:strings.LastIndexByte(dir, '/')]
		}
	}
	return all
}

// heapOctets is what the process's objects and goroutines' stacks take, those
// that are garbage already included.
func heapOctets() int64 {
	s := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/stacks:bytes"}}
	metrics.Read(s)
	return int64(min(s[0].Value.Uint64()+s[1].Value.Uint64(), math.MaxInt64))
}

// guardMemory has the heap looked at as long as there are connections.
func (h *Host) guardMemory() {
	if h.cfg.Limits.Memory < 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.guard == nil && !h.closed {
		h.guard = time.AfterFunc(memoryEvery, h.checkMemory)
	}
}

// checkMemory is guard's function.
func (h *Host) checkMemory() {
	limit, heap := h.cfg.Limits.Memory, heapOctets()
	if heap > max(limit, h.endured) {
		runtime.GC()
		heap = heapOctets()
	}
	switch {
	case heap <= limit:
		h.endured = 0
	case heap <= h.endured:
	case h.relieve(heap - limit + limit/8):
		h.relieved = time.Now()
	case time.Since(h.relieved) > memorySettle:
		h.endured = heap + limit/8
		h.log.Warn("memory is short, but not because of what peers hold (limits.memory)",
			"heap_octets", heap, "limit_octets", limit)
	}
	conns := h.connections()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.guard == nil {
		return // closed
	}
	if len(conns) == 0 {
		h.guard = nil
		return
	}
	h.guard.Reset(memoryEvery)
}

// connections are all of them, dialed and accepted.
func (h *Host) connections() (all []*conn) {
	h.mu.Lock()
	links, ports := h.snapshot()
	h.mu.Unlock()
	for _, l := range links {
		if c := l.c.Load(); c != nil {
			all = append(all, c)
		}
	}
	for _, p := range ports {
		all = append(all, p.connections()...)
	}
	return all
}

// holding is a connection and about how many octets it holds.
type holding struct {
	qc            *quicgo.Conn
	local, remote netip.AddrPort
	octets        int64
}

// holdings are those of all connections by address, the largest first. Those
// whose address is not proved yet are together under the zero Prefix.
func (h *Host) holdings() map[netip.Prefix][]holding {
	all := map[netip.Prefix][]holding{}
	add := func(qc *quicgo.Conn, octets int64) {
		remote := udpAddrPort(qc.RemoteAddr())
		var key netip.Prefix
		if handshakeOver(qc) {
			key = guestKey(remote.Addr())
		}
		all[key] = append(all[key], holding{qc, udpAddrPort(qc.LocalAddr()), remote, octets})
	}
	for _, c := range h.connections() {
		add(c.qc, c.holds())
	}
	h.mu.Lock()
	_, ports := h.snapshot()
	h.mu.Unlock()
	for _, p := range ports {
		for _, qc := range p.early.waiting() {
			add(qc, connOctets+int64(qc.ConnectionStats().BytesReceived))
		}
	}
	for _, held := range all {
		slices.SortFunc(held, func(a, b holding) int { return cmp.Compare(b.octets, a.octets) })
	}
	return all
}

const (
	// worthwhile is the part of what is wanted that all peers together have to
	// hold for any of them to lose something.
	worthwhile = 8
	// modest is the part of what the largest address held that another may hold
	// in peace.
	modest = 8
)

// relieve ends connections that hold about so many octets together: of the
// address that holds most, the largest first. What holds little beside those is
// left alone, even if not enough was found: this is an estimate, and the next look
// knows more. It returns false if nothing is held that would be worth it.
func (h *Host) relieve(octets int64) bool {
	held, sums, total := h.holdings(), map[netip.Prefix]int64{}, int64(0)
	for key, all := range held {
		for _, one := range all {
			sums[key] += one.octets
			total += one.octets
		}
	}
	some, first, worth := false, int64(0), octets/worthwhile
	for octets > 0 && total >= worth {
		var most netip.Prefix
		for key, sum := range sums {
			if sum > sums[most] {
				most = key
			}
		}
		first = max(first, sums[most])
		if len(held[most]) == 0 || sums[most] < first/modest {
			break
		}
		top := held[most][0]
		held[most] = held[most][1:]
		sums[most] -= top.octets
		octets -= top.octets
		total -= top.octets
		some = true
		h.shed.Add(1)
		h.limited.note(time.Now(), top.remote, "connection ended", fmt.Errorf(
			"%w: memory is short and this peer holds most: here some %d octets, the heap is %d and may be %d (limits.memory)",
			errLimit, top.octets, heapOctets(), h.cfg.Limits.Memory))
		go top.qc.CloseWithError(connLimit, "memory is short here") // ends with the connection
	}
	return some
}

// holds estimates the octets that the connection takes here: mostly what has
// come for its streams and was not read. QUIC does not tell that; what has come
// less what was read counts headers and repetitions too, so it is cut to what
// the windows allow, and begins anew whenever no stream is left.
func (c *conn) holds() int64 {
	q := c.qc.ConnectionStats()
	come := int64(q.BytesReceived) - leastPacket*int64(q.PacketsReceived) - c.octets.Load()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.live == 0 {
		c.settled = come
	}
	window := max(int64(c.h.cfg.StreamWindow), maxStreamWindow)
	unread := min(max(come-c.settled, 0), int64(c.live)*window, int64(c.h.cfg.ConnWindow))
	return connOctets + max(c.unended.Load(), int64(c.live))*streamOctets + unread
}
