package broker

import (
	"github.com/poemq/poemq/addfd"
	"golang.org/x/sys/unix"
)

// shutdown answers shutdown(2) as inet_shutdown does.
func (s *Session) shutdown(r Request, sock *Socket, c *copyFd) {
	how := r.Int(1)
	if how < unix.SHUT_RD || how > unix.SHUT_RDWR {
		s.fail(r, unix.EINVAL)
		return
	}
	sock.shutdown.Store(true) // before it shows at the other end
	sock.mu.Lock()
	state, relay := sock.state, sock.relay
	sock.mu.Unlock()
	switch {
	case state == listening && how == unix.SHUT_WR:
		s.done(r)
	case state == listening:
		s.stopListening(sock, c.fd)
		s.done(r)
	case state == connecting:
		sock.giveUp()
		s.done(r)
	case state == connected && (relay == nil || !relay.over()):
		s.result(r, asErrno(unix.Shutdown(c.fd, how), unix.ENOTCONN))
	default:
		s.fail(r, unix.ENOTCONN)
	}
}

// stopListening makes sock, of which fd is a copy, a bound socket again.
// Blocked accepts end; what waits is reset. The kernel's socket goes on
// listening, for it could not be made to listen anew: a stand-in in its queue
// wakes who polls it, where TCP shows POLLHUP.
func (s *Session) stopListening(sock *Socket, fd int) {
	sock.mu.Lock()
	l := sock.listen
	if sock.state != listening {
		sock.mu.Unlock()
		return
	}
	sock.become(bound)
	sock.listen = nil
	hold := sock.hold
	sock.jotLocked()
	sock.mu.Unlock()
	l.close()
	if hold != nil {
		unix.Shutdown(hold.fd, unix.SHUT_RDWR) // a port that the kernel chose is free now
	}
	l.mu.Lock()
	waiters := l.waiters
	l.waiters = nil
	l.mu.Unlock()
	for _, w := range waiters {
		w.answer(func(r Request) { s.fail(r, unix.EINVAL) })
	}
	emptyQueue(fd)
	if end, err := l.anchor.Connect(); err == nil {
		unix.Close(end)
	}
}

// emptyQueue resets what waits in the queue of a listening socket, of which fd
// is a copy.
func emptyQueue(fd int) {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		p[0].Revents = 0
		if n, err := unix.Poll(p, 0); err != nil || n == 0 || p[0].Revents&unix.POLLIN == 0 {
			return
		}
		c, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
		if err != nil {
			return
		}
		unix.Close(c)
	}
}

// giveUp ends a connection attempt as a reset.
func (s *Socket) giveUp() {
	s.mu.Lock()
	d := s.dial
	if s.state != connecting || d == nil {
		s.mu.Unlock()
		return
	}
	s.dial = nil
	waiters := d.waiters
	d.fail(unix.ECONNRESET)
	d.unname()
	s.jotLocked()
	sess := s.sess
	s.mu.Unlock()
	d.cancel() // finish finds that the attempt is not the socket's any more
	for _, w := range waiters {
		w.answer(func(r Request) { sess.fail(r, unix.ECONNRESET) })
	}
}

// ends tells which sides have ended their direction: the program by shutdown,
// all it wrote being taken, and the peer, as the program knows.
func (r *relay) ends() (ours, theirs bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.done {
		return true, true
	}
	n, err := addfd.Unread(r.end.FD())
	return err == nil && n <= r.armed+r.seen && addfd.ReadsEOF(r.end.FD()), r.downDone
}

// over reports that both directions have ended: to TCP there is no connection
// any more.
func (r *relay) over() bool {
	ours, theirs := r.ends()
	return ours && theirs
}
