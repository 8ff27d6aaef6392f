package broker

import (
	"bytes"
	"net/netip"
	"os"
	"strconv"
	"time"

	"github.com/poemq/poemq/addfd"
	"golang.org/x/sys/unix"
)

// renew makes old, which r is about, a socket without a connection again, with
// pending as its SO_ERROR. An AF_UNIX socket that was connected or listened
// cannot be that, so the program's descriptor gets another file, and that a
// Socket with what stays: options, and the port that the program asked for. So
// do the descriptor's duplicates in the process, and epoll registrations. Other
// processes keep the old file, which is why this is for connect(2) with
// AF_UNSPEC and for trying again after a failure, where the alternative is an
// error. It reports false when that was not possible.
func (s *Session) renew(r Request, old *Socket, pending unix.Errno) bool {
	n := r.Int(0)
	// While the old file is open, nobody takes this for the program's close.
	was, err := r.File(n)
	if err != nil {
		return false
	}
	defer unix.Close(was)
	fd, cookie, err := addfd.New(addfd.Nonblocking(was))
	if err != nil {
		s.log.Error("a socket cannot be made", "error", err)
		return false
	}
	sock := old.successor(fd, cookie)
	sock.soError = pending
	// The kernel lets go of an address that was not bound, and goes on to tell
	// the port.
	sock.local = netip.AddrPortFrom(unspecified(old.domain), sock.local.Port())
	old.mu.Lock()
	if old.hold != nil {
		sock.local = netip.AddrPortFrom(old.hold.local.Addr(), sock.local.Port())
	}
	old.mu.Unlock()
	sock.setOnPair(fd)
	if err := s.exchange(r, old, sock, was, fd); err != nil {
		unix.Close(fd)
		s.answered(r, err)
		return false
	}
	s.b.moveName(old, sock)
	old.mu.Lock()
	relay := old.relay
	old.mu.Unlock()
	old.closedByProgram()
	if relay != nil {
		relay.trip(was)
		relay.abort()
	}
	if sock.holdsPort() {
		s.b.watchClose(sock, fd)
		unix.Close(fd)
	} else {
		s.b.young.add(s.b, sock, fd)
	}
	return true
}

// successor is what takes s's place in the program, of which fd is a copy.
func (s *Socket) successor(fd int, cookie uint64) *Socket {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &Socket{
		b: s.b, sess: s.sess, cookie: cookie, ino: addfd.Inode(fd), domain: s.domain, proto: s.proto, created: time.Now(),
		ns: s.ns, opts: s.opts, local: s.local,
	}
}

// setOnPair sets on fd what the program set of options that act on its own
// socket.
func (s *Socket) setOnPair(fd int) {
	s.mu.Lock()
	opts := s.opts
	s.mu.Unlock()
	for _, o := range opts {
		if o.onPair() {
			rawSetsockopt(fd, o.level, o.name, o.value)
		}
	}
}

// exchange puts sock, of which to is a copy, in place of old, of which from is
// one, at the descriptor that r is about and at its duplicates.
func (s *Session) exchange(r Request, old, sock *Socket, from, to int) error {
	n := r.Int(0)
	sock.seenAt(r.TID(), n)
	s.b.add(sock)
	if err := s.replace(r, n, from, to); err != nil {
		s.b.remove(sock)
		return err
	}
	for dup := range old.numbersIn(strconv.Itoa(r.TID())) {
		if err := s.replace(r, dup, from, to); err != nil {
			s.log.Warn("a duplicate of a socket stays what it was", "descriptor", dup, "error", opError("replace", sock, err))
		}
	}
	return nil
}

// replace puts the file to in place of the program's descriptor n, which is the
// file from, and has epoll tell of it.
func (s *Session) replace(r Request, n, from, to int) error {
	if err := r.Replace(to, n, closesOnExec(r.TID(), n)); err != nil {
		return err
	}
	if err := r.MoveRegistrations(n, from, to); err != nil {
		s.log.Warn("epoll may not tell of a socket any more", "descriptor", n, "error", err)
	}
	return nil
}

// moveName gives to the port that the program asked for from has; one that the
// kernel chose is lost.
func (b *Broker) moveName(from, to *Socket) {
	from.mu.Lock()
	hold := from.hold
	if hold == nil || hold.chosen {
		from.mu.Unlock()
		return
	}
	from.hold = nil
	from.jotLocked()
	listen := from.listen
	from.mu.Unlock()
	if listen != nil {
		listen.close()
	}
	hold.mu.Lock()
	hold.unlisten()
	dialed := hold.dialed
	hold.dialed = false
	hold.mu.Unlock()
	if dialed && !from.sess.kept.frozen() {
		defer hold.keptBy(to.sess.kept) // it was not while there was a connection
	}
	if dialed {
		rawConnect(hold.fd, make([]byte, unix.SizeofSockaddrInet4)) // AF_UNSPEC
	}
	to.mu.Lock()
	defer to.mu.Unlock()
	to.become(bound)
	to.hold, to.local = hold, hold.local
	to.jotLocked()
}

func unspecified(domain int) netip.Addr {
	if domain == unix.AF_INET {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// closesOnExec is the close-on-exec flag of a descriptor (proc(5), fdinfo).
func closesOnExec(tid, n int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(tid) + "/fdinfo/" + strconv.Itoa(n))
	if err != nil {
		return false
	}
	_, rest, ok := bytes.Cut(b, []byte("flags:"))
	f := bytes.Fields(rest)
	if !ok || len(f) == 0 {
		return false
	}
	flags, err := strconv.ParseUint(string(f[0]), 8, 32)
	return err == nil && flags&unix.O_CLOEXEC != 0
}
