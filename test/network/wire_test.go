package network

import (
	"bytes"
	"fmt"
	"net/netip"
	"sync"

	"github.com/poemq/poemq/test/link"
	"golang.org/x/sys/unix"
)

// wire sees every packet on the path and decides whether it goes on.
type wire struct {
	mu     sync.Mutex // guards what follows
	counts counts
	flows  map[flow]int
	secret []byte // looked for in every packet; nil: nothing
	clear  int    // packets with it
	refuse func(link.Direction, link.Packet) bool
	change func(link.Direction, link.Packet)
}

// counts of packets, before any is refused.
type counts struct{ udp, tcp, syn int }

// flow is UDP's both ends, the client's first.
type flow struct{ client, server netip.AddrPort }

func newWire() *wire { return &wire{flows: make(map[flow]int)} }

// see is the path's middlebox.
func (w *wire) see(d link.Direction, p link.Packet) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch p.Protocol() {
	case unix.IPPROTO_UDP:
		w.counts.udp++
		f := flow{p.Source(), p.Destination()}
		if d == link.BtoA {
			f = flow{f.server, f.client}
		}
		w.flows[f]++
	case unix.IPPROTO_TCP:
		w.counts.tcp++
		if p.SYN() {
			w.counts.syn++
		}
	}
	if w.secret != nil && bytes.Contains(p, w.secret) {
		w.clear++
	}
	if w.refuse != nil && w.refuse(d, p) {
		return false
	}
	if w.change != nil {
		w.change(d, p)
	}
	return true
}

// refuses has the wire drop packets from now on; nil: none.
func (w *wire) refuses(f func(link.Direction, link.Packet) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refuse = f
}

// changes has the wire change packets from now on; nil: none.
func (w *wire) changes(f func(link.Direction, link.Packet)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.change = f
}

// looksFor counts packets with the text in clear from now on.
func (w *wire) looksFor(secret string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.secret, w.clear = []byte(secret), 0
}

// take returns what was seen since the last time.
func (w *wire) take() (c counts, flows map[flow]int, clear int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	c, flows, clear = w.counts, w.flows, w.clear
	w.counts, w.flows, w.clear = counts{}, make(map[flow]int), 0
	return c, flows, clear
}

// isUDP is for refuses.
func isUDP(_ link.Direction, p link.Packet) bool { return p.Protocol() == unix.IPPROTO_UDP }

func (c counts) String() string {
	return fmt.Sprintf("%d UDP datagrams, %d TCP segments, %d of them SYN", c.udp, c.tcp, c.syn)
}
