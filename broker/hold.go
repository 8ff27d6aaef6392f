package broker

import (
	"encoding/binary"
	"net/netip"
	"sync"
	"time"

	"github.com/poemq/poemq/addfd"
	"github.com/poemq/poemq/quic/netns"
	"golang.org/x/sys/unix"
)

// portHold is a TCP socket of the kernel's that is bound to what the program
// bound. It judges addresses and conflicts as only the kernel can, keeps
// others from the port, and under prefer serves or makes plain TCP
// connections.
//
// As TCP's port is, it is held by the socket that bound it and by every
// connection that was accepted from that, and for a while by what is left of a
// connection that was closed on this side first.
type portHold struct {
	b  *Broker
	fd int
	// cookie is the socket's own (SO_COOKIE).
	cookie uint64
	// kept is by whom it is kept, under name; nil for nobody.
	kept  *kept
	name  string
	local netip.AddrPort
	ns    uint64
	// heldAs is what the table of ports knows it by, and uid whose it is.
	heldAs netip.AddrPort
	uid    uint32
	// chosen is that the kernel chose the port: the program did not ask for it.
	chosen bool

	mu     sync.Mutex // guards what follows
	users  int
	dialed bool      // fd is a TCP connection: the kernel's to look after
	until  time.Time // when TIME_WAIT is over
}

// timeWait is TCP_TIMEWAIT_LEN, how long the side that closes first keeps the
// port from those without SO_REUSEADDR.
const timeWait = 60 * time.Second

// holdPort binds a TCP socket with sock's options to sa in ns, for a program
// of uid: SO_REUSEPORT is for sockets of one user (socket(7)).
func (b *Broker) holdPort(sock *Socket, ns *netns.NS, sa []byte, uid uint32) (*portHold, unix.Errno) {
	reuse := sock.reuseAddr()
	for try := 0; ; try++ {
		h, errno := b.tryHold(sock, ns, sa, uid)
		if errno != 0 || h.local.Port() == 0 {
			return h, errno
		}
		// The kernel knows neither what QUIC needs nor our connections.
		free := !h.chosen || try == bindTries || udpFree(ns, h.local)
		if free && b.ports.hold(h.ns, h.local, reuse, sock.reusePort(), uid) {
			return h, 0
		}
		unix.Close(h.fd)
		if requestedPort(sa) != 0 || try == bindTries {
			return nil, unix.EADDRINUSE
		}
	}
}

// udpFree reports that a port which the kernel chose for TCP is nobody's in UDP:
// a program that asks for any port means one that can be served.
func udpFree(ns *netns.NS, local netip.AddrPort) bool {
	domain := unix.AF_INET
	if local.Addr().Is6() {
		domain = unix.AF_INET6
	}
	return ns.Do(func() error {
		fd, err := unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return nil // not what is asked here
		}
		defer unix.Close(fd)
		if errno := rawBind(fd, encodeSockaddr(local, domain)); errno == unix.EADDRINUSE {
			return errno
		}
		return nil
	}) == nil
}

// bindTries is how often the kernel is asked for another port.
const bindTries = 64

func (b *Broker) tryHold(sock *Socket, ns *netns.NS, sa []byte, uid uint32) (*portHold, unix.Errno) {
	fd, errno := b.tcpSocket(sock, ns)
	if errno != 0 {
		return nil, errno
	}
	// The kernel compares the owners of the sockets' files. Without the right
	// to give it away (CAP_CHOWN), the table of ports compares them.
	_ = unix.Fchown(fd, int(uid), -1)
	b.rebinding.RLock()
	errno = rawBind(fd, sa)
	b.rebinding.RUnlock()
	if errno != 0 {
		unix.Close(fd)
		return nil, errno
	}
	local, err := localAddr(fd)
	if err != nil {
		unix.Close(fd)
		return nil, asErrno(err, unix.ENOBUFS)
	}
	cookie, _ := addfd.Cookie(fd) // every socket has one
	return &portHold{b: b, fd: fd, cookie: cookie, local: local, heldAs: local, uid: uid, ns: ns.ID(), chosen: requestedPort(sa) == 0, users: 1}, 0
}

// share counts one more user. nil stays nil.
func (h *portHold) share() *portHold {
	if h == nil {
		return nil
	}
	h.mu.Lock()
	h.users++
	h.mu.Unlock()
	return h
}

// leftBy ends the use by a socket that its program closed; r still carries what
// that wrote, if there is one.
func (h *portHold) leftBy(r *relay) {
	if h == nil {
		return
	}
	h.mu.Lock()
	dialed := h.dialed
	h.mu.Unlock()
	switch {
	case dialed || r == nil:
		h.release()
	case r.closesFirst():
		r.whenDone(func() {
			h.mu.Lock()
			h.until = time.Now().Add(timeWait)
			h.mu.Unlock()
			h.release()
		})
	default:
		r.whenDone(h.release)
	}
}

// closesFirst reports that the peer has not ended its side.
func (r *relay) closesFirst() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.downDone && !r.aborted && !r.done
}

// release ends one use. The last frees the port, at once or when TIME_WAIT is
// over.
func (h *portHold) release() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.users--
	wait := time.Until(h.until)
	switch {
	case h.users > 0:
	case wait > 0:
		time.AfterFunc(wait, h.free)
	default:
		h.free()
	}
}

func (h *portHold) free() {
	h.kept.drop(h.name)
	unix.Close(h.fd)
	h.b.ports.unhold(h.ns, h.heldAs, h.uid)
}

// unlisten has the port held, but not served: its listening socket has ended,
// while accepted connections may go on. h.mu is held.
func (h *portHold) unlisten() {
	if on, err := unix.GetsockoptInt(h.fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err != nil || on == 0 {
		return
	}
	h.b.rebinding.Lock()
	defer h.b.rebinding.Unlock()
	unix.Shutdown(h.fd, unix.SHUT_RD)
	// The kernel has let go of the port if it chose that itself; EINVAL if not.
	domain, _ := unix.GetsockoptInt(h.fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	rawBind(h.fd, encodeSockaddr(h.local, domain))
}

// reuseAddr is SO_REUSEADDR.
func (s *Socket) reuseAddr() bool {
	o, ok := s.set(unix.SOL_SOCKET, unix.SO_REUSEADDR)
	return ok && o.int() != 0
}

// requestedPort is the port in a bind's address.
func requestedPort(sa []byte) uint16 {
	if len(sa) < 4 {
		return 0
	}
	return binary.BigEndian.Uint16(sa[2:])
}
