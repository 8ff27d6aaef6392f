package broker

import (
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/poemq/poemq/broker/policy"
	"github.com/poemq/poemq/notify"
	"github.com/poemq/poemq/notify/handover"
	"github.com/poemq/poemq/notify/hook"
	"golang.org/x/sys/unix"
)

// Session is one launched process tree or container.
type Session struct {
	ID    uint64
	b     *Broker
	log   *slog.Logger
	name  string      // of its program or container
	asked policy.Mode // what it wants where no rule says otherwise
	match [][3]int
	// seesSetns is that the filter traps what changes the network namespace.
	seesSetns bool
	uid       uint32       // of who handed it over
	pid       atomic.Int32 // of its first process; 0: not known
	begun     time.Time
	calls     [callKinds]atomic.Uint64 // that were answered

	// Of connections that have ended; the ledger's mu guards them.
	past        octets
	connections uint64
	settled     bool // calls are in the ledger, too

	source source
	alone  bool          // its programs have ended, as far as is known; guarded by b.mu
	ended  chan struct{} // closed when it is served no more
	keptBy *storing      // nil: nobody keeps it
	kept   *kept         // nil: it ends with this broker
	// caught are calls that another broker received and did not answer.
	caught []notify.Caught

	// stale finds the waiter a thread left behind when a signal took it out of
	// its call: a thread has one call at a time. Used in the session's turns.
	stale     map[int]*waiter
	staleMost int // how many are kept before the answered ones are dropped
	// again is that the call being handled is one that a signal interrupted.
	// Used in the session's turns.
	again bool
}

// source is where a session's calls come from.
type source interface {
	// serve has s answer calls until the last task has ended, or Stop.
	serve(s *Session) error
	// Post has f run in a turn of the session; false when serve has ended.
	Post(f func()) bool
	// Stop ends serve from any goroutine.
	Stop()
}

// filtered is the source of a seccomp filter.
type filtered struct{ *notify.Listener }

func (f filtered) serve(s *Session) error { return f.Serve(s.notified) }

// defaultMatch is every TCP socket. MPTCP is TCP to who asks for it: Go
// programs listen with it.
var defaultMatch = [][3]int{
	{unix.AF_INET, unix.SOCK_STREAM, 0},
	{unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_TCP},
	{unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP},
	{unix.AF_INET6, unix.SOCK_STREAM, 0},
	{unix.AF_INET6, unix.SOCK_STREAM, unix.IPPROTO_TCP},
	{unix.AF_INET6, unix.SOCK_STREAM, unix.IPPROTO_MPTCP},
}

// NewSession takes over h and its listener fd; uid is who handed it over.
func (b *Broker) NewSession(h *handover.Handover, uid uint32) (*Session, error) {
	asked, err := policy.ParseMode(h.Meta.Quic)
	if err != nil {
		unix.Close(h.Listener)
		return nil, fmt.Errorf("policy: %w", err)
	}
	l, err := notify.NewListener(h.Listener)
	if err != nil {
		return nil, err
	}
	s := &Session{name: h.Meta.Cmd, asked: asked, match: h.Meta.Match, seesSetns: h.Meta.NetNS, uid: uid, source: filtered{l}}
	if s.name == "" {
		s.name = h.State.State.ID
	}
	b.register(s)
	return s, nil
}

// register makes s one of the broker's sessions.
func (b *Broker) register(s *Session) {
	s.ID, s.b, s.stale, s.ended = b.nextSession.Add(1), b, make(map[int]*waiter), make(chan struct{})
	s.begun = time.Now()
	if len(s.match) == 0 {
		s.match = defaultMatch
	}
	s.log = b.log.With("session", s.ID, "program", s.name)
	if s.keptBy == nil {
		s.keptBy = b.storing
	}
	if from, ok := s.source.(filtered); ok && s.keptBy != nil && s.kept == nil {
		if err := s.keep(from, s.keptBy); err != nil {
			s.log.Warn("a restart will end this session", "error", err)
		}
	}
	b.mu.Lock()
	b.sessions[s.ID] = s
	b.mu.Unlock()
}

// Serve answers the session's calls until its last task has ended.
func (s *Session) Serve() error {
	s.log.Info("session begins", "asks", s.asked, "uid", s.uid, "pid", s.pid.Load())
	s.release()
	err := s.source.serve(s)
	s.settle(err)
	close(s.ended)
	s.dropWaiters()
	s.kept.end()
	s.b.mu.Lock()
	delete(s.b.sessions, s.ID)
	s.b.changed.Broadcast()
	s.b.mu.Unlock()
	s.b.targets.Sweep()
	return err
}

// dropWaiters is for calls of tasks that are gone: whoever waited in accept keeps
// its port no longer. After a Close the next broker sees to them.
func (s *Session) dropWaiters() {
	if s.kept.frozen() {
		return
	}
	for _, w := range s.stale {
		w.drop()
	}
}

// notified handles a call that came by seccomp.
func (s *Session) notified(n *notify.Notification) {
	r := notification{n}
	s.again = false
	s.kept.received(n)
	if w := s.stale[n.TID]; w != nil {
		delete(s.stale, n.TID)
		w.alive()
		s.again = w.gone.Load() && w.isFor(r)
	}
	if err := n.Unpack(); err != nil {
		s.fail(r, unix.EFAULT)
		return
	}
	s.handle(r)
}

// handle has a call answered, wherever it came from.
func (s *Session) handle(r Request) {
	s.calls[r.Call()%callKinds].Add(1)
	switch r.Call() {
	case notify.Socket:
		s.socket(r)
	case notify.Connect:
		s.onSocket(r, s.connect)
	case notify.Bind:
		s.onSocketElse(r, s.bind, s.bindForeign)
	case notify.Listen:
		s.onSocket(r, s.listen)
	case notify.Accept, notify.Accept4:
		s.onSocket(r, s.accept)
	case notify.GetSockName:
		s.onSocket(r, s.getsockname)
	case notify.GetPeerName:
		s.onSocket(r, s.getpeername)
	case notify.SetSockOpt:
		s.onSocket(r, s.setsockopt)
	case notify.GetSockOpt:
		s.onSocket(r, s.getsockopt)
	case notify.Shutdown:
		s.onSocket(r, s.shutdown)
	case notify.Ioctl:
		s.onSocket(r, s.ioctl)
	case notify.ChangeNetNS:
		s.changeNetNS(r)
	default:
		s.carryOn(r)
	}
}

// onSocket looks argument 0 up and has h answer. h borrows the copy of the
// program's descriptor: it is closed when h returns, unless h keeps it.
func (s *Session) onSocket(r Request, h func(Request, *Socket, *copyFd)) {
	s.onSocketElse(r, h, s.carryOn)
}

// onSocketElse has foreign answer for a file that is not ours.
func (s *Session) onSocketElse(r Request, h func(Request, *Socket, *copyFd), foreign func(Request)) {
	sock, fd := s.b.find(r, r.Int(0))
	if sock == nil {
		foreign(r)
		return
	}
	c := copyFd{fd: fd}
	h(r, sock, &c)
	c.close()
}

// copyFd is a copy of a program's descriptor. While it is open, the program's
// closing of its own is not seen.
type copyFd struct{ fd int }

// keep gives the copy to the caller.
func (c *copyFd) keep() int {
	fd := c.fd
	c.fd = -1
	return fd
}

func (c *copyFd) close() {
	if c.fd >= 0 {
		unix.Close(c.fd)
		c.fd = -1
	}
}

// park leaves w to be answered later. Threads that ended, or call nothing any
// more, are forgotten when there are many.
func (s *Session) park(w *waiter) {
	if c, ok := w.req.(*hook.Call); ok { // it says when it leaves
		c.Cancelled = func() { w.alive() }
		return
	}
	if len(s.stale) >= s.staleMost {
		for tid, old := range s.stale {
			if old.answered.Load() {
				delete(s.stale, tid)
			}
		}
		s.staleMost = 2*len(s.stale) + 64
	}
	s.stale[w.req.TID()] = w
	s.kept.late(w.req)
}

func (s *Session) carryOn(r Request) { s.answered(r, r.Continue()) }

func (s *Session) fail(r Request, errno unix.Errno) error {
	err := r.Fail(errno)
	s.answered(r, err)
	return err
}

func (s *Session) done(r Request) error {
	err := r.Return(0)
	s.answered(r, err)
	return err
}

// result answers with errno, or 0 for success.
func (s *Session) result(r Request, errno unix.Errno) error {
	if errno != 0 {
		return s.fail(r, errno)
	}
	return s.done(r)
}

// answered looks at what became of an answer. That the program no longer
// waited for it is nothing to tell.
func (s *Session) answered(r Request, err error) {
	if err != nil && !errors.Is(err, notify.ErrGone) {
		s.log.Error("a call could not be answered", "call", r.Call(), "tid", r.TID(), "error", err)
	}
}
