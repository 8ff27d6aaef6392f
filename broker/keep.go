package broker

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"github.com/poemq/poemq/addfd"
	"github.com/poemq/poemq/notify"
	"golang.org/x/sys/unix"
)

// What outlives a broker. Descriptors are kept by somebody else (systemd's
// store, or a keeper that poemq-launch left), each under a name of its own:
//
//	SESSION.listener            the seccomp listener
//	SESSION.journal             journal.go
//	SESSION.anchor.COOKIE       the way to the program's socket
//	SESSION.port.NETNS.COOKIE   the TCP socket that has a bound port
//	SESSION.udp.NETNS.NUMBER    the UDP socket that QUIC is served on
//
// adopt.go makes of them what they were.

// Keeper keeps copies of descriptors for the broker after this one. Its methods
// may block, and are called one at a time.
type Keeper interface {
	// Store keeps a copy of fd under name, which has no other.
	Store(name string, fd int) error
	// Remove lets go of it, soon.
	Remove(name string) error
	// Sync returns when everything asked before is done.
	Sync() error
}

// storing has a Keeper do its work away from the threads that answer calls.
type storing struct {
	k   Keeper
	log *slog.Logger

	mu     sync.Mutex     // guards what follows
	want   []storeOp      // not done yet
	at     map[string]int // where in want a name is stored
	soon   *time.Timer    // does it; nil when there is nothing to do
	frozen bool           // nothing changes any more
	failed bool           // was told
	// unsynced is that something was removed which may be there still: a port
	// is not free as long.
	unsynced bool

	working sync.Mutex // held while the Keeper is called; taken before mu
}

type storeOp struct {
	name string
	fd   int // to be stored, and closed then; -1: to be removed
	done bool
}

// storeSoon is how long descriptors wait to be stored together. What is gone
// by then never is.
const storeSoon = 20 * time.Millisecond

func newStoring(k Keeper, log *slog.Logger) *storing {
	return &storing{k: k, log: log, at: make(map[string]int)}
}

// store has a copy of fd kept soon.
func (s *storing) store(name string, fd int) {
	copied, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		s.log.Warn("a restart will lose something", "what", name, "error", err)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.frozen {
		unix.Close(copied)
		return
	}
	s.at[name] = len(s.want)
	s.add(storeOp{name: name, fd: copied})
}

func (s *storing) remove(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.frozen {
		return
	}
	if i, waits := s.at[name]; waits {
		unix.Close(s.want[i].fd)
		s.want[i].done = true
		delete(s.at, name)
		return
	}
	s.unsynced = true
	s.add(storeOp{name: name, fd: -1})
	s.soon.Reset(0) // somebody may want the port
}

// settle returns when what was removed is gone.
func (b *Broker) settle() {
	for s := range b.storings() {
		s.settle()
	}
}

// storings are all that keep something: that of all sessions, and sessions' own.
func (b *Broker) storings() map[*storing]struct{} {
	all := make(map[*storing]struct{})
	if b.storing != nil {
		all[b.storing] = struct{}{}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.sessions {
		if s.keptBy != nil {
			all[s.keptBy] = struct{}{}
		}
	}
	return all
}

func (s *storing) settle() {
	s.mu.Lock()
	unsynced := s.unsynced
	s.unsynced = false
	s.mu.Unlock()
	if !unsynced {
		return
	}
	s.flush()
	s.working.Lock()
	defer s.working.Unlock()
	if err := s.k.Sync(); err != nil {
		s.log.Warn("a port may stay in use for a while", "error", err)
	}
}

// frozen tells that the next broker takes over: what it needs stays as it is.
func (k *kept) frozen() bool { return k != nil && k.store.isFrozen() }

// add is called with s.mu held.
func (s *storing) add(op storeOp) {
	s.want = append(s.want, op)
	if s.soon == nil {
		s.soon = time.AfterFunc(storeSoon, s.flush)
	}
}

// hurry has what is to be done be done now.
func (s *storing) hurry() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.soon != nil {
		s.soon.Reset(0)
	}
}

// flush does what is to be done, and returns when it is.
func (s *storing) flush() {
	s.working.Lock()
	defer s.working.Unlock()
	s.mu.Lock()
	want := s.want
	s.want, s.soon = nil, nil
	clear(s.at)
	s.mu.Unlock()
	for _, op := range want {
		var err error
		switch {
		case op.done:
		case op.fd < 0:
			err = s.k.Remove(op.name)
		default:
			err = s.k.Store(op.name, op.fd)
			unix.Close(op.fd)
		}
		if err != nil && !s.failed {
			s.failed = true
			s.log.Error("descriptors cannot be kept for the next broker: a restart will break programs", "what", op.name, "error", err)
		}
	}
}

// freeze has everything stay as it is.
func (s *storing) freeze() {
	s.flush()
	s.mu.Lock()
	s.frozen = true
	s.mu.Unlock()
	s.flush() // what came in between
}

func (s *storing) isFrozen() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.frozen
}

// kept is what a session keeps for the next broker. All methods of a nil kept
// do nothing: the session ends with this broker.
type kept struct {
	id      string // of the session, in names
	store   *storing
	journal *journal
	log     *slog.Logger

	mu    sync.Mutex // guards names
	names map[string]struct{}

	// calls are the places of those that wait for a late answer, by thread.
	// Used on the session's thread, as free is.
	calls map[int]int
	free  []int
}

// keep begins to keep s for the next broker.
func (s *Session) keep(from filtered, store *storing) error {
	j, err := newJournal(journalHead{Name: s.name, Asked: s.asked.String(), Match: s.match, SeesSetns: s.seesSetns, UID: s.uid})
	if err != nil {
		return err
	}
	s.kept = newKept(fmt.Sprintf("%016x", rand.Uint64()), store, j, s.log)
	s.kept.put("listener", from.FD())
	s.kept.put("journal", j.fd)
	store.flush()
	return nil
}

func newKept(id string, store *storing, j *journal, log *slog.Logger) *kept {
	return &kept{id: id, store: store, journal: j, log: log, names: make(map[string]struct{}), calls: make(map[int]int)}
}

// put stores a copy of fd and gives its whole name.
func (k *kept) put(what string, fd int) string {
	if k == nil {
		return ""
	}
	name := k.id + "." + what
	k.mu.Lock()
	k.names[name] = struct{}{}
	k.mu.Unlock()
	k.store.store(name, fd)
	return name
}

// drop removes what put, or adoption, named.
func (k *kept) drop(name string) {
	if k == nil || name == "" || k.store.isFrozen() {
		return
	}
	k.mu.Lock()
	_, has := k.names[name]
	delete(k.names, name)
	k.mu.Unlock()
	if has {
		k.store.remove(name)
	}
}

// end lets go of everything, unless the next broker shall have it.
func (k *kept) end() {
	if k == nil {
		return
	}
	k.mu.Lock()
	names := k.names
	k.names = make(map[string]struct{})
	k.mu.Unlock()
	for name := range names {
		k.store.remove(name)
	}
	k.journal.close()
	if c, own := k.store.k.(*connKeeper); own {
		k.store.freeze() // all is said
		c.close()
	}
}

// received notes the call that is handled now.
func (k *kept) received(n *notify.Notification) {
	if k == nil {
		return
	}
	c := n.Caught()
	k.journal.putCall(0, c)
	// A thread has one call at a time.
	if at, late := k.calls[c.TID]; late {
		k.journal.callID(at).Store(0)
		delete(k.calls, c.TID)
		k.free = append(k.free, at)
	}
}

// late notes that r will be answered later.
func (k *kept) late(r Request) {
	n, ok := r.(notification)
	if k == nil || !ok {
		return
	}
	at := len(k.calls) + len(k.free) + 1
	if last := len(k.free) - 1; last >= 0 {
		at = k.free[last]
		k.free = k.free[:last]
	}
	if at >= maxCalls {
		k.log.Warn("too many calls wait: a restart would leave some without an answer", "most", maxCalls)
		return
	}
	c := n.n.Caught()
	k.journal.putCall(at, c)
	k.calls[c.TID] = at
}

// jot writes down what s is. To be called after each change that matters.
func (s *Socket) jot() {
	if s.sess == nil || s.sess.kept == nil {
		return
	}
	s.mu.Lock()
	s.jotLocked()
	s.mu.Unlock()
}

// jotLocked is jot with s.mu held.
func (s *Socket) jotLocked() {
	if s.sess == nil || s.sess.kept == nil || s.state == closed || s.forgotten {
		return
	}
	k := s.sess.kept
	if !s.jotted {
		slot, full := k.journal.take()
		if full {
			k.log.Warn("too many sockets: a restart will lose some", "most", maxSlots)
		}
		if slot == noSlot {
			return
		}
		s.jotted, s.slot = true, slot
	}
	r := record{
		cookie: s.cookie, ino: s.ino, domain: s.domain, proto: s.proto, tid: s.hint.tid, fd: s.hint.fd,
		state: s.state, accepted: s.accepted, backlog: s.backlog, mode: s.mode,
		soError: s.soError, local: s.local, remote: s.remote, opts: s.opts,
	}
	if s.ns != nil {
		r.ns = s.ns.ID()
	}
	if s.hold != nil {
		r.hold, r.chosen, r.uid = s.hold.cookie, s.hold.chosen, s.hold.uid
	}
	if s.listen != nil {
		r.zeroRTT = s.listen.zeroRTT
	}
	var buf [halfSize]byte
	k.journal.put(s.slot, r.append(buf[:0]))
}

// forget ends s's record.
func (s *Socket) forget() {
	if s.sess == nil || s.sess.kept == nil || s.sess.kept.store.isFrozen() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forgotten = true
	if s.jotted {
		s.sess.kept.journal.release(s.slot)
		s.jotted = false
	}
}

// keepAnchor has a copy of what leads to s kept; s.mu is held.
func (s *Socket) keepAnchor(a *addfd.Anchor) {
	if s.sess == nil || s.sess.kept == nil {
		return
	}
	fd, ok := a.File()
	if !ok {
		s.sess.kept.log.Warn("a restart will lose a socket: there is no inotify, no /proc, or no descriptor left", "socket", s.cookie)
		return
	}
	s.anchorName = s.sess.kept.put("anchor."+strconv.FormatUint(s.cookie, 10), fd)
}

// dropAnchor is for an anchor that is released; s.mu is held.
func (s *Socket) dropAnchor() {
	if s.sess != nil {
		s.sess.kept.drop(s.anchorName)
	}
	s.anchorName = ""
}

// keptBy has the port kept with k's session.
func (h *portHold) keptBy(k *kept) {
	if k != nil {
		h.kept, h.name = k, k.put(fmt.Sprintf("port.%d.%d", h.ns, h.cookie), h.fd)
		k.store.hurry()
	}
}

// keptBy has p's UDP socket kept with k's session.
func (p *listenPoint) keptBy(k *kept) {
	if k == nil {
		return
	}
	fd, err := p.ep.Socket()
	if err != nil {
		k.log.Warn("a restart will lose a UDP port for a moment", "port", p.key.local, "error", err)
		return
	}
	defer unix.Close(fd)
	p.kept, p.name = k, k.put(fmt.Sprintf("udp.%d.%d", p.key.ns, p.b.pointNumber.Add(1)), fd)
}
