package broker

import (
	"encoding/binary"
	"sync"

	"github.com/poemq/poemq/quic/netns"
	"golang.org/x/sys/unix"
)

// Options are judged and answered by a kernel TCP socket that has the same
// ones set: defaults, limits, rounding and errors are then the kernel's own.
// What an AF_UNIX socket has too (timeouts, linger…) is set on the program's
// socket as well, where it takes effect.

// option is one that the program set.
type option struct {
	level, name int
	value       []byte
}

const maxOptionLen = 4096

// onPair lists the options of socket(7) that act on the program's own socket.
func (o option) onPair() bool {
	if o.level != unix.SOL_SOCKET {
		return false
	}
	switch o.name {
	case unix.SO_REUSEADDR, unix.SO_DONTROUTE, unix.SO_BROADCAST, unix.SO_SNDBUF, unix.SO_RCVBUF,
		unix.SO_KEEPALIVE, unix.SO_OOBINLINE, unix.SO_PRIORITY, unix.SO_LINGER, unix.SO_RCVLOWAT,
		unix.SO_RCVTIMEO, unix.SO_SNDTIMEO, unix.SO_RCVTIMEO_NEW, unix.SO_SNDTIMEO_NEW,
		unix.SO_SNDBUFFORCE, unix.SO_RCVBUFFORCE, unix.SO_MARK:
		return true
	}
	return false
}

// privileged lists what needs CAP_NET_ADMIN (capabilities(7)), which the
// broker may have where the program has not.
func (o option) privileged() bool {
	switch o.level {
	case unix.SOL_SOCKET:
		switch o.name {
		case unix.SO_MARK, unix.SO_SNDBUFFORCE, unix.SO_RCVBUFFORCE, unix.SO_BUSY_POLL, unix.SO_TXTIME:
			return true
		case unix.SO_PRIORITY:
			return o.int() < 0 || o.int() > 6
		}
	case unix.IPPROTO_IP:
		return o.name == unix.IP_TRANSPARENT
	case unix.IPPROTO_IPV6:
		return o.name == unix.IPV6_TRANSPARENT
	case unix.IPPROTO_TCP:
		return o.name == unix.TCP_REPAIR
	}
	return false
}

// refused lists what would take the connection out of our hands, with the
// errno of a kernel that lacks it.
func (o option) refused() unix.Errno {
	if o.level != unix.IPPROTO_TCP {
		return 0
	}
	switch o.name {
	case unix.TCP_ULP: // kernel TLS
		return unix.ENOENT
	case unix.TCP_REPAIR, unix.TCP_MD5SIG, unix.TCP_MD5SIG_EXT, unix.TCP_ZEROCOPY_RECEIVE:
		return unix.ENOPROTOOPT
	}
	return 0
}

func (o option) int() int {
	if len(o.value) < 4 {
		return 0
	}
	return int(int32(binary.NativeEndian.Uint32(o.value)))
}

// inherited are the options that an accepted socket has from the listening
// one.
func inherited(opts []option) []option { return append([]option(nil), opts...) }

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

// setsockopt answers setsockopt(2).
func (s *Session) setsockopt(r Request, sock *Socket, c *copyFd) {
	n := r.Int(4)
	if n < 0 {
		s.fail(r, unix.EINVAL)
		return
	}
	o := option{level: r.Int(1), name: r.Int(2), value: make([]byte, min(n, maxOptionLen))}
	if r.Read(r.Ptr(3), o.value) != nil {
		s.fail(r, unix.EFAULT)
		return
	}
	if !r.Valid() {
		return
	}
	s.result(r, s.setOption(r, sock, c.fd, o))
}

func (s *Session) setOption(r Request, sock *Socket, fd int, o option) unix.Errno {
	if errno := o.refused(); errno != 0 {
		return errno
	}
	if o.privileged() {
		if creds, err := r.Creds(); err != nil || !creds.CapNetAdmin {
			return unix.EPERM
		}
	}
	ns, err := sock.netNS(r)
	if err != nil {
		s.log.Error("setsockopt", "error", err)
		return unix.ENOBUFS
	}
	if errno := s.b.tryOption(sock, ns, o); errno != 0 {
		return errno
	}
	if o.onPair() && !sock.fillsNow(o) {
		rawSetsockopt(fd, o.level, o.name, o.value)
	}
	sock.remember(o)
	return 0
}

// tryOption has the kernel judge o on a TCP socket as sock would be, and sets
// it on the one that holds sock's port.
func (b *Broker) tryOption(sock *Socket, ns *netns.NS, o option) unix.Errno {
	sock.mu.Lock()
	hold := sock.hold
	sock.mu.Unlock()
	if hold != nil {
		return rawSetsockopt(hold.fd, o.level, o.name, o.value)
	}
	fd, errno := b.tcpSocket(sock, ns)
	if errno != 0 {
		return errno
	}
	defer unix.Close(fd)
	return rawSetsockopt(fd, o.level, o.name, o.value)
}

// fillsNow reports that o would make a socket writable whose connection is not
// there yet; it is set when it is.
func (s *Socket) fillsNow(o option) bool {
	if o.name != unix.SO_SNDBUF && o.name != unix.SO_SNDBUFFORCE {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dial == nil || !s.dial.docked() {
		return false
	}
	s.dial.sndbuf = o.int()
	return true
}

func (s *Socket) remember(o option) {
	s.mu.Lock()
	defer s.mu.Unlock()
	opts := make([]option, 0, len(s.opts)+1) // readers hold the old slice
	for _, p := range s.opts {
		if p.level != o.level || p.name != o.name {
			opts = append(opts, p)
		}
	}
	s.opts = append(opts, o)
}

// set finds an option that the program set.
func (s *Socket) set(level, name int) (option, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range s.opts {
		if o.level == level && o.name == name {
			return o, true
		}
	}
	return option{}, false
}

func (s *Socket) reusePort() bool {
	o, ok := s.set(unix.SOL_SOCKET, unix.SO_REUSEPORT)
	return ok && o.int() != 0
}

func (s *Socket) v6only() bool {
	if s.domain != unix.AF_INET6 {
		return false
	}
	if o, ok := s.set(unix.IPPROTO_IPV6, unix.IPV6_V6ONLY); ok {
		return o.int() != 0
	}
	return false
}

// lingerZero is SO_LINGER with a timeout of 0: close(2) is a reset.
func (s *Socket) lingerZero() bool {
	o, ok := s.set(unix.SOL_SOCKET, unix.SO_LINGER)
	return ok && len(o.value) >= 8 && o.int() != 0 && binary.NativeEndian.Uint32(o.value[4:]) == 0
}

// getsockopt answers getsockopt(2).
func (s *Session) getsockopt(r Request, sock *Socket, c *copyFd) {
	level, name := r.Int(1), r.Int(2)
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
	if r.Write(r.Ptr(3), val[:min(n, len(val))]) != nil || r.Write(r.Ptr(4), l[:]) != nil {
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
		}
	}
	if level == unix.IPPROTO_TCP && name == unix.TCP_INFO {
		return sock.tcpInfo(val), 0
	}
	ns, err := sock.netNS(r)
	if err != nil {
		s.log.Error("getsockopt", "error", err)
		return 0, unix.ENOBUFS
	}
	sock.mu.Lock()
	hold, plain := sock.hold, len(sock.opts) == 0
	sock.mu.Unlock()
	switch {
	case hold != nil:
		return rawGetsockopt(hold.fd, level, name, val)
	case plain:
		ask, errno := s.b.oracle.get(s.b, sock, ns)
		if errno != 0 {
			return 0, errno
		}
		return rawGetsockopt(ask, level, name, val)
	}
	ask, errno := s.b.tcpSocket(sock, ns)
	if errno != 0 {
		return 0, errno
	}
	defer unix.Close(ask)
	return rawGetsockopt(ask, level, name, val)
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

// TCP states of <netinet/tcp.h>.
const (
	tcpEstablished = 1
	tcpSynSent     = 2
	tcpClose       = 7
	tcpListen      = 10
)

// tcpInfo is TCP_INFO (tcp(7)).
func (s *Socket) tcpInfo(val []byte) int {
	s.mu.Lock()
	st := s.state
	s.mu.Unlock()
	info := make([]byte, unix.SizeofTCPInfo)
	switch st {
	case connected:
		info[0] = tcpEstablished
	case connecting:
		info[0] = tcpSynSent
	case listening:
		info[0] = tcpListen
	default:
		info[0] = tcpClose
	}
	return copy(val, info)
}
