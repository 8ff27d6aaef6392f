package broker

import (
	"container/list"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/poemq/poemq/broker/api"
	"github.com/poemq/poemq/quic"
	"golang.org/x/sys/unix"
)

// Fallback is how TCP is fallen back to under prefer.
type Fallback struct {
	HeadStart time.Duration // how long QUIC has for itself when nothing is heard
	Remember  time.Duration // how long what was learnt counts; 0: nothing is kept
	Entries   int           // how many destinations are remembered
}

// DefaultFallback is what a broker has that is told nothing else.
var DefaultFallback = Fallback{HeadStart: 300 * time.Millisecond, Remember: 10 * time.Minute, Entries: 4096}

// SetFallback changes it for the connections to come.
func (b *Broker) SetFallback(f Fallback) {
	b.fallback.Store(&f)
	b.memory.shrink(f)
}

// place is a destination as its own users see it: another network namespace may
// have another host there, and a rule of the firewall may be about one user.
type place struct {
	ns     uint64
	uid    uint32
	remote netip.AddrPort
}

func (d *dialState) place() place { return place{d.ns.ID(), d.uid, d.remote} }

// Remembered is a destination that is reached by TCP at once.
type Remembered struct {
	Remote  netip.AddrPort
	UID     uint32
	NetNS   uint64 // inode
	Reason  string // why not by QUIC
	Since   time.Time
	Expires time.Time

	trust time.Duration // from Since to Expires
}

// A closed UDP port may be that of a server which is being restarted, and TCP
// an answer of the moment after. So it counts for firstTrust, and twice as long
// each time that it is found again. To find out costs a round trip.
const (
	portClosed = "UDP port closed"
	firstTrust = 5 * time.Second
)

// memory is which destinations answered TCP and not QUIC. The zero memory is
// empty and ready.
type memory struct {
	mu    sync.Mutex // guards what follows
	m     map[place]*list.Element
	order list.List // of *Remembered, the oldest first
}

func (r *Remembered) place() place { return place{r.NetNS, r.UID, r.Remote} }

// has reports that p is to be reached by TCP.
func (m *memory) has(p place) bool {
	_, ok := m.reason(p)
	return ok
}

// reason tells why p is to be reached by TCP, if so.
func (m *memory) reason(p place) (reason string, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.m[p]
	if e == nil {
		return "", false
	}
	r := e.Value.(*Remembered)
	return r.Reason, time.Now().Before(r.Expires)
}

func (m *memory) remove(e *list.Element) {
	delete(m.m, m.order.Remove(e).(*Remembered).place())
}

// learn has p reached by TCP for as long as f says, or less.
func (m *memory) learn(p place, reason string, f Fallback) {
	if f.Remember <= 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	trust := f.Remember
	if reason == portClosed {
		trust = min(firstTrust, trust)
	}
	if e := m.m[p]; e != nil {
		if r := e.Value.(*Remembered); r.Reason == portClosed && reason == portClosed {
			trust = min(2*r.trust, f.Remember)
		}
		m.remove(e)
	}
	if m.m == nil {
		m.m = make(map[place]*list.Element)
	}
	now := time.Now()
	m.m[p] = m.order.PushBack(&Remembered{
		Remote: p.remote, UID: p.uid, NetNS: p.ns, Reason: reason, Since: now, Expires: now.Add(trust), trust: trust,
	})
	m.bound(f.Entries)
}

// bound drops the oldest; m.mu is held.
func (m *memory) bound(entries int) {
	for m.order.Len() > entries {
		m.remove(m.order.Front())
	}
}

func (m *memory) forget(p place) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e := m.m[p]; e != nil {
		m.remove(e)
	}
}

// forgetIf forgets what drop chooses, and counts it.
func (m *memory) forgetIf(drop func(*Remembered) bool) (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for e := m.order.Front(); e != nil; {
		next := e.Next()
		if drop(e.Value.(*Remembered)) {
			m.remove(e)
			n++
		}
		e = next
	}
	return n
}

// shrink fits what there is to f.
func (m *memory) shrink(f Fallback) {
	if f.Remember <= 0 {
		m.forgetIf(func(*Remembered) bool { return true })
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.bound(f.Entries)
}

// Remembered lists the destinations that are reached by TCP at once, the one
// learnt last at the end.
func (b *Broker) Remembered() []Remembered {
	now := time.Now()
	b.memory.mu.Lock()
	defer b.memory.mu.Unlock()
	all := make([]Remembered, 0, b.memory.order.Len())
	for e := b.memory.order.Front(); e != nil; e = e.Next() {
		if r := e.Value.(*Remembered); now.Before(r.Expires) {
			all = append(all, *r)
		}
	}
	return all
}

func (r *Remembered) plain() api.Fallback {
	return api.Fallback{Remote: r.Remote, UID: r.UID, NetNS: r.NetNS, Answer: "tcp", Reason: r.Reason, Since: r.Since, Expires: r.Expires}
}

// Fallbacks lists what is remembered for users that see allows.
func (b *Broker) Fallbacks(see func(uid uint32) bool) []api.Fallback {
	all := []api.Fallback{}
	for _, r := range b.Remembered() {
		if see(r.UID) {
			all = append(all, r.plain())
		}
	}
	return all
}

// ForgetFor is Forget for the users that see allows.
func (b *Broker) ForgetFor(remote netip.AddrPort, see func(uid uint32) bool) int {
	return b.memory.forgetIf(func(r *Remembered) bool { return see(r.UID) && (!remote.IsValid() || r.Remote == remote) })
}

// Forget has connections to remote try QUIC again, in every network namespace
// and for every user; those to anywhere when remote is the zero AddrPort. It
// tells how many entries there were.
func (b *Broker) Forget(remote netip.AddrPort) int {
	return b.memory.forgetIf(func(r *Remembered) bool { return !remote.IsValid() || r.Remote == remote })
}

// notQUIC tells why a destination has no QUIC, from the error of the dial, nil
// while it goes on, and from whether anything was heard of the peer. false: it
// may have, for it is only slow, or its poemq has answered, or the trouble is
// here.
func notQUIC(err error, heard bool) (reason string, ok bool) {
	if err == nil {
		return "UDP unanswered", !heard
	}
	var e *quic.DialError
	if !errors.As(err, &e) || e.Op != "socket" && e.Op != "handshake" ||
		errors.Is(err, quic.ErrHostClosed) || errors.Is(err, quic.ErrIdentity) {
		return "", false
	}
	if errors.Is(err, quic.ErrNotPoemq) {
		return "another protocol over QUIC", true
	}
	switch e.Errno {
	case unix.ECONNREFUSED:
		return portClosed, true
	case unix.EACCES, unix.EHOSTUNREACH, unix.ENETUNREACH:
		return fmt.Sprintf("UDP filtered (%s)", unix.ErrnoName(e.Errno)), true
	case unix.ETIMEDOUT:
		return "UDP unanswered", true
	}
	return "", false
}
