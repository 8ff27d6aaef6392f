package broker

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/poemq/poemq/addfd"
	"github.com/poemq/poemq/broker/policy"
	"github.com/poemq/poemq/notify"
	"github.com/poemq/poemq/quic/netns"
	"golang.org/x/sys/unix"
)

// Socket is the broker's state of one program socket.
type Socket struct {
	b       *Broker
	sess    *Session // that made it
	cookie  uint64
	ino     uint64 // as /proc/PID/fd shows it; 0 when not known
	domain  int
	proto   int
	created time.Time
	// accepted is that it came from accept, not from socket.
	accepted bool
	// direct is that the kernel carries the bytes: the other end is a program's,
	// too. Guarded by mu.
	direct bool

	// shutdown is that a program has called, or may have called, shutdown(2) on it.
	// If none has, an end without a living other end says that it is closed.
	shutdown atomic.Bool
	// narrow: the program has chosen a send buffer, which what stays unread at our
	// end could fill.
	narrow atomic.Bool

	mu    sync.Mutex // guards what follows
	state state
	ns    *netns.NS
	// hint is where the program's descriptor was last seen.
	hint struct{ tid, fd int }

	opts   []option       // what was set, in order
	hold   *portHold      // the bound port
	shared *portHold      // the port of the listening socket that it was accepted from
	local  netip.AddrPort // as getsockname tells it
	remote netip.AddrPort // as getpeername tells it
	port   *ephemeral     // a port of the broker's choosing

	anchor *addfd.Anchor
	// crowded is Lost's word for a socket that young had no room for, or 0.
	crowded int32
	listen  *listenState
	dial    *dialState
	relay   *relay

	// soError is what SO_ERROR and a second connect tell of a failed attempt.
	soError unix.Errno
	// told is that a connect has returned 0 since the connection came about.
	told bool
	// undelivered is the address of a bind whose success the program has not
	// heard of; the call may come again.
	undelivered []byte
	// ended is closed when all that a closed socket had is free.
	ended chan struct{}

	inJournal
}

// inJournal is about what the next broker is told of a socket; its mu guards it.
type inJournal struct {
	slot       int32
	jotted     bool   // slot is s's
	forgotten  bool   // it is written down no more
	anchorName string // that its anchor is kept under
	// backlog and mode are those of a listening socket.
	backlog int
	mode    policy.Mode
}

// socket answers socket(2).
func (s *Session) socket(r Request) {
	domain, proto := r.Int(0), r.Int(2)
	typ, nonblock, cloexec := notify.SocketFlags(r.Int(1))
	if !s.matches(domain, typ&0xf, proto) || kernelHas(proto) && s.b.policy.Load().AlwaysOff(s.asked) {
		s.carryOn(r) // the socket is the kernel's, and stays so
		return
	}
	if typ&^0xf != 0 {
		s.fail(r, unix.EINVAL) // flags that socket(2) does not know
		return
	}
	fd, cookie, ino, err := s.b.stock.Take(nonblock)
	if err != nil {
		s.log.Error("a socket cannot be made", "error", err)
		s.fail(r, unix.ENFILE)
		return
	}
	sock := &Socket{b: s.b, sess: s, cookie: cookie, ino: ino, domain: domain, proto: proto, created: time.Now()}
	if proto == 0 {
		sock.proto = unix.IPPROTO_TCP
	}
	if _, err := sock.netNS(r); err != nil {
		s.log.Warn("a socket's network namespace is not known yet", "error", err)
	}
	s.b.add(sock)
	r.Install(fd, cloexec, func(at int, err error) {
		if err != nil {
			s.b.remove(sock)
			unix.Close(fd)
			s.installFailed(r, err)
			return
		}
		sock.seenAt(r.TID(), at)
		s.b.young.add(s.b, sock, fd)
	})
}

// installFailed answers a call whose descriptor could not be installed.
func (s *Session) installFailed(r Request, err error) {
	var errno unix.Errno
	switch {
	case errors.Is(err, notify.ErrGone):
	case errors.As(err, &errno):
		s.fail(r, errno)
	default:
		s.answered(r, err)
	}
}

// kernelHas reports that proto is TCP to the kernel, in one form or another.
func kernelHas(proto int) bool {
	return proto == 0 || proto == unix.IPPROTO_TCP || proto == unix.IPPROTO_MPTCP
}

func (s *Session) matches(domain, typ, proto int) bool {
	for _, m := range s.match {
		if m == [3]int{domain, typ, proto} {
			return true
		}
	}
	return false
}

func (s *Socket) seenAt(tid, fd int) {
	s.mu.Lock()
	s.hint.tid, s.hint.fd = tid, fd
	s.mu.Unlock()
}

func (s *Socket) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return fmt.Sprintf("socket %d, %v, %v > %v", s.cookie, s.state, s.local, s.remote)
}

// netNS is the network namespace that s was made in, where it stays: that of
// the caller of r at the first use, in socket.
func (s *Socket) netNS(r Request) (*netns.NS, error) {
	s.mu.Lock()
	ns := s.ns
	s.mu.Unlock()
	if ns != nil {
		return ns, nil
	}
	ns, err := s.sess.netNS(r)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.ns = ns
	s.mu.Unlock()
	return ns, nil
}

// closedByProgram is the end of a socket: the program has no descriptor of it
// any more. What a relay still has to carry goes on without it. When it
// returns, what the socket had is free.
func (s *Socket) closedByProgram() {
	s.mu.Lock()
	if s.state == closed {
		ended := s.ended
		s.mu.Unlock()
		<-ended
		return
	}
	s.become(closed)
	s.ended = make(chan struct{})
	defer close(s.ended)
	anchor, listen, dial, hold, port := s.anchor, s.listen, s.dial, s.hold, s.port
	relay, shared := s.relay, s.shared
	s.anchor, s.listen, s.dial, s.hold, s.shared, s.port = nil, nil, nil, nil, nil, nil
	s.mu.Unlock()

	defer s.b.remove(s) // last: who looks for what is closing finds it
	if dial != nil {
		dial.cancel()
	}
	if listen != nil {
		listen.close()
		if !s.sess.kept.frozen() {
			hold.mu.Lock()
			hold.unlisten()
			hold.mu.Unlock()
		}
	}
	if anchor != nil {
		anchor.Release()
		s.mu.Lock()
		s.dropAnchor()
		s.mu.Unlock()
	}
	hold.leftBy(relay)
	shared.leftBy(relay)
	if port != nil {
		if relay == nil {
			port.release()
		} else {
			relay.whenDone(port.release) // the name is in use until the last byte is carried
		}
	}
}

// abandon is the broker's end: whatever s is, it becomes an error to the
// program.
func (s *Socket) abandon() {
	s.mu.Lock()
	relay := s.relay
	s.mu.Unlock()
	if relay != nil {
		relay.fails(endBroker)
		relay.abort()
	}
	s.closedByProgram()
}
