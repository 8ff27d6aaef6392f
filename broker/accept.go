package broker

import (
	"errors"
	"slices"
	"time"

	"github.com/poemq/poemq/addfd"
	"github.com/poemq/poemq/notify"
	"golang.org/x/sys/unix"
)

// accept answers accept(2) and accept4(2).
func (s *Session) accept(r Request, sock *Socket, c *copyFd) {
	flags := 0
	if r.Call() == notify.Accept4 {
		flags = r.Int(3)
	}
	rest, _, _ := notify.SocketFlags(flags)
	if rest != 0 {
		s.fail(r, unix.EINVAL)
		return
	}
	sock.mu.Lock()
	l := sock.listen
	sock.mu.Unlock()
	if l == nil {
		s.fail(r, unix.EINVAL)
		return
	}
	if s.acceptNow(r, l, c.fd, flags) {
		return
	}
	if addfd.Nonblocking(c.fd) {
		s.fail(r, unix.EAGAIN)
		return
	}
	s.acceptLater(r, l, c, flags)
}

// acceptNow answers r with a connection that waits, or with an error; false
// when there is neither. fd is for take.
func (s *Session) acceptNow(r Request, l *listenState, fd, flags int) bool {
	t, err := l.take(fd)
	if err == unix.EAGAIN {
		return false
	}
	if err != nil {
		s.fail(r, asErrno(err, unix.EINVAL))
		return true
	}
	if r.Ptr(1) != 0 {
		if errno := writeSockaddr(r, r.Ptr(1), r.Ptr(2), scoped(t.remote, l.scope()), l.sock.domain); errno != 0 {
			s.lose(l, t) // as the kernel does
			s.fail(r, errno)
			return true
		}
	}
	s.give(r, l, t, flags)
	return true
}

// lose closes t as its program would.
func (s *Session) lose(l *listenState, t taken) {
	defer unix.Close(t.fd)
	sock, err := s.acceptedSocket(l.sock, t)
	if err != nil {
		s.log.Error("accept", "error", err)
		return
	}
	s.b.add(sock)
	t.accepted(sock)
}

// give makes t the program's.
func (s *Session) give(r Request, l *listenState, t taken, flags int) {
	_, nonblock, cloexec := notify.SocketFlags(flags)
	if err := unix.SetNonblock(t.fd, nonblock); err != nil {
		s.log.Error("accept", "error", err)
	}
	sock, err := s.acceptedSocket(l.sock, t)
	if err != nil {
		s.log.Error("accept", "error", err)
		unix.Close(t.fd)
		s.fail(r, unix.ENOBUFS)
		return
	}
	s.b.add(sock)
	r.Install(t.fd, cloexec, func(at int, err error) {
		switch {
		case err == nil:
			sock.seenAt(r.TID(), at)
		case errors.Is(err, unix.EFAULT): // the address could not be written: the kernel loses it, too
		default:
			s.b.remove(sock)
			sock.shared.leftBy(nil)
			l.giveBack(t)
			s.installFailed(r, err)
			return
		}
		t.accepted(sock)
		unix.Close(t.fd)
	})
}

// acceptedSocket is the Socket of a connection that arrived at from.
func (s *Session) acceptedSocket(from *Socket, t taken) (*Socket, error) {
	cookie, err := addfd.Cookie(t.fd)
	if err != nil {
		return nil, err
	}
	from.mu.Lock()
	defer from.mu.Unlock()
	sock := &Socket{
		b: s.b, sess: s, cookie: cookie, ino: addfd.Inode(t.fd), domain: from.domain, proto: from.proto, created: time.Now(),
		ns: from.ns, state: connected, told: true,
		local: scoped(t.local, from.local.Addr()), remote: scoped(t.remote, from.local.Addr()),
		opts: inherited(from.opts, from.domain, from.local), relay: t.relay, direct: t.direct != "", accepted: true, shared: from.hold.share(),
	}
	sock.narrow.Store(slices.ContainsFunc(sock.opts, option.sizesSending))
	sock.setOnPair(t.fd)
	return sock, nil
}

// accepted gives the program's end of t to sock.
func (t taken) accepted(sock *Socket) {
	if t.relay != nil {
		t.relay.accepted(sock)
	} else {
		sock.b.directs.add(sock.b, sock)
	}
}

// take gets the first connection out of the kernel's queue. fd is a copy of
// the program's listening descriptor, -1 for the one that is kept while
// somebody waits. EAGAIN: none. EINVAL: it was shut down.
func (l *listenState) take(fd int) (taken, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if fd < 0 {
		fd = l.copy
	}
	if fd < 0 {
		return taken{}, unix.EAGAIN // nobody waits any more
	}
	for {
		if l.owed > 0 && len(l.back) > 0 {
			l.owed--
			return l.first(), nil
		}
		a, err := l.pull(fd)
		if err != nil {
			return taken{}, err
		}
		l.hasRoom()
		if a != nil && len(l.back) > 0 {
			return l.first(), nil
		}
	}
}

// pull takes one out of the kernel's queue; a connection is the last of back
// then. nil: it was nobody's. EAGAIN: the queue is empty. l.mu is held.
func (l *listenState) pull(fd int) (*arrival, error) {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	if n, err := unix.Poll(p, 0); err != nil || n == 0 {
		return nil, unix.EAGAIN
	}
	// Readable, and only we accept: this does not block.
	c, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
	if err != nil {
		return nil, err
	}
	a := l.match(c)
	if a == nil || a.relay == nil && a.direct == "" { // a stand-in
		unix.Close(c)
		return a, nil
	}
	l.anchor.Probe()
	l.back = append(l.back, taken{a, c})
	return a, nil
}

// forget takes a, whose peer gave up before it had our answer, out of the
// queue: TCP does not put one there before its third packet.
func (l *listenState) forget(a *arrival) {
	fd, err := l.sock.copyOf()
	if err != nil {
		return // closed, and the queue with it
	}
	defer unix.Close(fd)
	l.mu.Lock()
	if l.closed || !slices.Contains(l.queue, a) {
		l.mu.Unlock()
		return
	}
	for err == nil {
		_, err = l.pull(fd)
	}
	if i := slices.IndexFunc(l.back, func(t taken) bool { return t.arrival == a }); i >= 0 {
		unix.Close(l.back[i].fd)
		a.relay.end.Close()
		l.back = slices.Delete(l.back, i, i+1)
		l.hasRoom()
	}
	l.owed = 0
	for range l.back {
		l.standIn()
	}
	if w := l.nextWaiter(); w != nil && len(l.back) > 0 {
		go l.serveWaiter(w) // not under the lock
	}
	l.mu.Unlock()
}

// standIn shows in the kernel's queue that there is one in back; l.mu is held.
func (l *listenState) standIn() {
	end, err := l.anchor.Connect()
	if err != nil {
		l.owed++ // the queue is full, so it shows anyway
		return
	}
	unix.Close(end)
	l.queue = append(l.queue, &arrival{})
}

func (l *listenState) first() taken {
	t := l.back[0]
	l.back = without(l.back, 1)
	return t
}

// without is queue without its first n. The array goes on holding those otherwise.
func without[T any](queue []T, n int) []T {
	clear(queue[:n])
	return queue[n:]
}

// hasRoom lets one of those in that wait; l.mu is held.
func (l *listenState) hasRoom() {
	if len(l.room) >= l.full {
		return
	}
	select {
	case l.room <- struct{}{}:
	default:
	}
}

// match finds which arrival c, fresh from the kernel's queue, is. That is the
// first one, unless somebody who shares the listening socket accepted without
// us. A byte sent on c tells.
func (l *listenState) match(c int) *arrival {
	if len(l.queue) == 0 {
		return nil
	}
	if name := addfd.PeerName(c); name != "" { // ends of ours have none
		for i, a := range l.queue {
			if a.direct == name {
				l.queue = without(l.queue, i+1)
				return a
			}
		}
		return nil
	}
	tripped := addfd.Trip(c) == nil
	for i, a := range l.queue {
		if a.direct != "" || a.relay == nil && tripped || a.relay != nil && tripped != a.relay.countMarker() {
			continue
		}
		l.queue = without(l.queue, i+1)
		return a
	}
	l.queue = without(l.queue, 1)
	return nil
}

// countMarker reports that a byte of ours came that was not known, and knows
// it from now on.
func (r *relay) countMarker() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.done {
		return false
	}
	n, err := addfd.Unread(r.end.FD())
	if err != nil || n <= r.armed+r.seen {
		return false
	}
	r.armed = n - r.seen
	return true
}

// giveBack puts a connection that the program did not get at the head of the
// line, with a stand-in in the kernel's queue so that it shows.
func (l *listenState) giveBack(t taken) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		unix.Close(t.fd)
		return
	}
	l.back = append([]taken{t}, l.back...)
	l.standIn()
	if w := l.nextWaiter(); w != nil {
		go l.serveWaiter(w) // not under the lock
	}
}

// acceptLater leaves r waiting.
func (s *Session) acceptLater(r Request, l *listenState, c *copyFd, flags int) {
	timeout := timeoutOf(c.fd, unix.SO_RCVTIMEO)
	if timeout > 0 && s.again {
		s.fail(r, unix.EINTR) // SA_RESTART or not (signal(7))
		return
	}
	w := &waiter{req: r, checks: &s.b.checks}
	w.dropped = func() { l.removeWaiter(w) }
	w.look = func(r Request) bool {
		if !s.acceptNow(r, l, -1, flags) {
			return false
		}
		l.removeWaiter(w)
		return true
	}
	w.start(timeout, func(r Request) {
		l.removeWaiter(w)
		s.fail(r, unix.EAGAIN)
	})
	l.mu.Lock()
	l.waiters = append(l.waiters, w)
	if l.copy < 0 {
		l.copy = c.keep()
	}
	again := len(l.queue) > 0 || l.owed > 0 // it came in between
	l.mu.Unlock()
	s.park(w)
	if again {
		l.mu.Lock()
		next := l.nextWaiter()
		l.mu.Unlock()
		l.serveWaiter(next)
	}
}

// nextWaiter is the one that waits longest; l.mu is held.
func (l *listenState) nextWaiter() *waiter {
	for len(l.waiters) > 0 {
		w := l.waiters[0]
		if !w.answered.Load() {
			return w
		}
		l.waiters = without(l.waiters, 1)
	}
	return nil
}

// serveWaiter has w look for a connection in a turn of its session.
func (l *listenState) serveWaiter(w *waiter) {
	if w == nil {
		return
	}
	w.req.Post(func() {
		if w.answered.Load() {
			return
		}
		w.alive()
		l.mu.Lock()
		more := len(l.queue) > 0 || l.owed > 0
		next := l.nextWaiter()
		l.mu.Unlock()
		if more && next != nil && next != w {
			l.serveWaiter(next)
		}
	})
}

func (l *listenState) removeWaiter(w *waiter) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, o := range l.waiters {
		if o == w {
			l.waiters = append(l.waiters[:i:i], l.waiters[i+1:]...)
			break
		}
	}
	if len(l.waiters) == 0 && l.copy >= 0 {
		unix.Close(l.copy)
		l.copy = -1
	}
}

// dropStale lets go of the program's descriptor when nobody waits any more.
func (l *listenState) dropStale() {
	l.mu.Lock()
	waiters := append([]*waiter{}, l.waiters...)
	l.mu.Unlock()
	for _, w := range waiters {
		if !w.req.Valid() {
			w.drop()
			l.removeWaiter(w) // somebody else may be dropping it at this moment
		}
	}
}
