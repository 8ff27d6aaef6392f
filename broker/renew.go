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
// Socket with what stays: options, and the port that the program asked for.
// Duplicates and epoll registrations keep the old one, which is why this is for
// connect(2) with AF_UNSPEC and for trying again after a failure, where the
// alternative is an error. It reports false when that was not possible.
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
	old.mu.Lock()
	sock := &Socket{
		b: s.b, sess: s, cookie: cookie, ino: inode(fd), domain: old.domain, proto: old.proto, created: time.Now(),
		ns: old.ns, opts: old.opts, soError: pending,
	}
	// The kernel lets go of an address that was not bound, and goes on to tell
	// the port.
	sock.local = netip.AddrPortFrom(unspecified(old.domain), old.local.Port())
	if old.hold != nil {
		sock.local = netip.AddrPortFrom(old.hold.local.Addr(), old.local.Port())
	}
	old.mu.Unlock()
	for _, o := range sock.opts {
		if o.onPair() {
			rawSetsockopt(fd, o.level, o.name, o.value)
		}
	}
	sock.seenAt(r.TID(), n)
	s.b.add(sock)
	if err := r.Replace(fd, n, closesOnExec(r.TID(), n)); err != nil {
		s.b.remove(sock)
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
	if dialed {
		rawConnect(hold.fd, make([]byte, unix.SizeofSockaddrInet4)) // AF_UNSPEC
	}
	to.mu.Lock()
	defer to.mu.Unlock()
	to.become(bound)
	to.hold, to.local = hold, hold.local
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
