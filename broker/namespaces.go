package broker

import (
	"fmt"
	"runtime"
	"sync"
	"weak"

	"github.com/poemq/poemq/quic/netns"
)

// namespaces shares one handle of each network namespace among the sockets in
// it. A handle is closed when the last socket that has it is forgotten, so that
// a namespace does not outlive its container.
type namespaces struct {
	mu sync.Mutex
	m  map[uint64]weak.Pointer[netns.NS]
}

// netNS is the network namespace of r's caller. Asking the kernel is slow, so it
// is noted, where setns(2) and unshare(2) are trapped.
func (s *Session) netNS(r Request) (*netns.NS, error) {
	note := r.Note()
	if note == nil || !s.seesSetns {
		return s.b.namespaces.of(r)
	}
	if ns, ok := (*note).(*netns.NS); ok {
		return ns, nil
	}
	ns, err := s.b.namespaces.of(r)
	if err == nil {
		*note = ns
	}
	return ns, err
}

// changeNetNS lets the caller go to another network namespace.
func (s *Session) changeNetNS(r Request) {
	if note := r.Note(); note != nil {
		*note = nil
	}
	s.carryOn(r)
}

// of is the network namespace of r's caller.
func (t *namespaces) of(r Request) (*netns.NS, error) {
	fd, err := r.NetNS()
	if err != nil {
		return nil, fmt.Errorf("network namespace of task %d: %w", r.TID(), err)
	}
	return t.share(fd)
}

// share is the handle of the namespace that fd is, which is taken over.
func (t *namespaces) share(fd int) (*netns.NS, error) {
	ns, err := netns.FromFd(fd)
	if err != nil || ns.IsSelf() {
		return ns, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if known := t.m[ns.ID()].Value(); known != nil {
		ns.Close()
		return known, nil
	}
	for id, p := range t.m {
		if p.Value() == nil {
			delete(t.m, id)
		}
	}
	if t.m == nil {
		t.m = make(map[uint64]weak.Pointer[netns.NS])
	}
	runtime.SetFinalizer(ns, func(n *netns.NS) { go n.Close() })
	t.m[ns.ID()] = weak.Make(ns)
	return ns, nil
}
