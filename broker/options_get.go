package broker

import (
	"encoding/binary"
	"net/netip"
	"sync"

	"github.com/poemq/poemq/notify"
	"github.com/poemq/poemq/quic/netns"
	"golang.org/x/sys/unix"
)

// oracle keeps kernel TCP sockets with nothing set, one for each namespace and
// domain, to ask for defaults.
type oracle struct {
	mu       sync.Mutex
	pristine map[oracleKey]int
}

type oracleKey struct {
	ns     uint64
	domain int
}

const maxPristine = 32

func (o *oracle) get(b *Broker, s *Socket, ns *netns.NS) (int, unix.Errno) {
	o.mu.Lock()
	defer o.mu.Unlock()
	key := oracleKey{ns.ID(), s.domain}
	if fd, ok := o.pristine[key]; ok {
		return fd, 0
	}
	fd, errno := b.bareTCP(s.domain, ns)
	if errno != 0 {
		return -1, errno
	}
	if o.pristine == nil {
		o.pristine = make(map[oracleKey]int)
	}
	for k, old := range o.pristine { // namespaces come and go
		if len(o.pristine) < maxPristine {
			break
		}
		unix.Close(old)
		delete(o.pristine, k)
	}
	o.pristine[key] = fd
	return fd, 0
}

func (o *oracle) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, fd := range o.pristine {
		unix.Close(fd)
	}
	o.pristine = nil
}

// getsockopt answers getsockopt(2).
func (s *Session) getsockopt(r Request, sock *Socket, c *copyFd) {
	level, name := r.Int(1), r.Int(2)
	if level == unix.SOL_SOCKET && name == unix.SO_COOKIE {
		s.carryOn(r) // it is the kernel's, of the program's own socket
		return
	}
	var l [4]byte
	if r.Read(r.Ptr(4), l[:]) != nil {
		s.fail(r, unix.EFAULT)
		return
	}
	room := int(int32(binary.NativeEndian.Uint32(l[:])))
	if room < 0 {
		s.fail(r, unix.EINVAL)
		return
	}
	val := make([]byte, min(room, maxOptionLen))
	n, errno := s.getOption(r, sock, c.fd, level, name, val)
	if errno != 0 {
		s.fail(r, errno)
		return
	}
	binary.NativeEndian.PutUint32(l[:], uint32(n))
	if r.Write(notify.Piece{Addr: r.Ptr(3), Data: val[:min(n, len(val))]}, notify.Piece{Addr: r.Ptr(4), Data: l[:]}) != nil {
		s.fail(r, unix.EFAULT)
		return
	}
	s.done(r)
}

// getOption puts the option's value into val and tells its length.
func (s *Session) getOption(r Request, sock *Socket, fd, level, name int, val []byte) (int, unix.Errno) {
	if level == unix.SOL_SOCKET {
		switch name {
		case unix.SO_ERROR:
			return putInt(val, int(sock.takeError(fd))), 0
		case unix.SO_PROTOCOL:
			return putInt(val, sock.proto), 0
		case unix.SO_ACCEPTCONN:
			sock.mu.Lock()
			on := sock.state == listening
			sock.mu.Unlock()
			return putInt(val, map[bool]int{true: 1}[on]), 0
		}
	}
	if isNetfilter(level, name) {
		if !mayAdminister(r, sock) {
			return 0, unix.EPERM
		}
	}
	ns, err := sock.netNS(r)
	if err != nil {
		s.log.Error("getsockopt", "error", err)
		return 0, unix.ENOBUFS
	}
	n, errno := s.b.askKernel(sock, ns, level, name, val)
	sock.mu.Lock()
	connected, accepted, remote := sock.state == connected, sock.accepted, sock.remote
	sock.mu.Unlock()
	if level == unix.IPPROTO_TCP && name == unix.TCP_INFO && errno == 0 {
		sock.tcpInfo(val[:n])
	}
	if !connected {
		return n, errno
	}
	switch {
	case level == unix.SOL_SOCKET && name == unix.SO_INCOMING_CPU:
		return putInt(val, 0), 0
	case level == unix.IPPROTO_IP && name == unix.IP_MTU, level == unix.IPPROTO_IPV6 && name == unix.IPV6_MTU:
		return askPath(sock.domain, ns, remote, level, name, val)
	case errno == 0 && n > 0 && accepted && sock.hopsOfPeer(level, name, remote):
		val[0] = peerHops
	}
	return n, errno
}

// peerHops is the TTL that the peer's first packet is taken to have come with:
// an accepted socket has it for multicast (tcp_v4_syn_recv_sock).
const peerHops = 64

func (s *Socket) hopsOfPeer(level, name int, remote netip.AddrPort) bool {
	switch level {
	case unix.IPPROTO_IP:
		return name == unix.IP_MULTICAST_TTL && remote.Addr().Unmap().Is4()
	case unix.IPPROTO_IPV6:
		return name == unix.IPV6_MULTICAST_HOPS && s.domain == unix.AF_INET6
	}
	return false
}

// askKernel asks a TCP socket with the options of sock.
func (b *Broker) askKernel(sock *Socket, ns *netns.NS, level, name int, val []byte) (int, unix.Errno) {
	sock.mu.Lock()
	hold, plain := sock.hold, len(sock.opts) == 0
	sock.mu.Unlock()
	asked := option{level: level, name: name}
	switch {
	case hold != nil:
		return rawGetsockopt(hold.fd, level, name, val)
	case asked.byItself():
		if o, ok := sock.set(level, name); ok {
			return putInt(val, o.asTold()), 0
		}
		plain = true
	}
	if plain {
		pristine, errno := b.oracle.get(b, sock, ns)
		if errno != 0 {
			return 0, errno
		}
		return rawGetsockopt(pristine, level, name, val)
	}
	fd, errno := b.tcpSocket(sock, ns)
	if errno != 0 {
		return 0, errno
	}
	defer unix.Close(fd)
	return rawGetsockopt(fd, level, name, val)
}

// askPath asks a UDP socket with the same way to go.
func askPath(domain int, ns *netns.NS, remote netip.AddrPort, level, name int, val []byte) (n int, errno unix.Errno) {
	err := ns.Do(func() error {
		fd, err := unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if e := rawConnect(fd, encodeSockaddr(remote, domain)); e != 0 {
			return e
		}
		n, errno = rawGetsockopt(fd, level, name, val)
		return nil
	})
	if err != nil {
		return 0, asErrno(err, unix.ENOTCONN)
	}
	return n, errno
}

// putInt gives v as the kernel gives an int: cut to the room there is.
func putInt(val []byte, v int) int {
	var b [4]byte
	binary.NativeEndian.PutUint32(b[:], uint32(v))
	return copy(val, b[:])
}

// takeError is SO_ERROR: the pending error, cleared by reading it. fd is a
// copy of the program's descriptor.
func (s *Socket) takeError(fd int) unix.Errno {
	s.mu.Lock()
	defer s.mu.Unlock()
	pending, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	switch {
	case s.soError != 0: // the socket itself only knows of a reset
		errno := s.soError
		s.soError = 0
		return errno
	case err != nil:
		return 0
	}
	return unix.Errno(pending)
}
