package broker

import (
	"bytes"
	"encoding/binary"
	"net/netip"

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
		unix.SO_SNDBUFFORCE, unix.SO_RCVBUFFORCE, unix.SO_MARK,
		unix.SO_TIMESTAMPING_OLD, unix.SO_TIMESTAMPING_NEW:
		return true
	}
	return false
}

// refused lists what would take the connection out of our hands, though a
// kernel socket would do it, with the errno of a kernel that lacks it.
func (o option) refused() unix.Errno {
	if o.level != unix.IPPROTO_TCP {
		return 0
	}
	switch o.name {
	case unix.TCP_REPAIR, unix.TCP_MD5SIG, unix.TCP_MD5SIG_EXT, unix.TCP_ZEROCOPY_RECEIVE:
		return unix.ENOPROTOOPT
	}
	return 0
}

// byItself lists the commonest options, of which a kernel socket need not be
// asked: a number that no other option changes and that any state takes.
func (o option) byItself() bool {
	switch o.level {
	case unix.SOL_SOCKET:
		return o.name == unix.SO_KEEPALIVE || o.name == unix.SO_REUSEADDR
	case unix.IPPROTO_TCP:
		switch o.name {
		case unix.TCP_NODELAY, unix.TCP_KEEPIDLE, unix.TCP_KEEPINTVL, unix.TCP_KEEPCNT:
			return true
		}
	}
	return false
}

// always reports that a TCP socket takes o, being byItself with a value in its
// limits.
func (o option) always() bool {
	if !o.byItself() || len(o.value) < 4 {
		return false
	}
	switch {
	case o.isSwitch():
		return true
	case o.name == unix.TCP_KEEPCNT:
		return o.int() >= 1 && o.int() <= 127
	}
	return o.int() >= 1 && o.int() <= 32767
}

// isSwitch tells, of an option byItself, that it is on or off.
func (o option) isSwitch() bool { return o.level == unix.SOL_SOCKET || o.name == unix.TCP_NODELAY }

// asTold is the value of an option byItself as getsockopt tells it.
func (o option) asTold() int {
	if o.isSwitch() && o.int() != 0 {
		return 1
	}
	return o.int()
}

func (o option) int() int {
	if len(o.value) < 4 {
		return 0
	}
	return int(int32(binary.NativeEndian.Uint32(o.value)))
}

// inherited are the options that a socket accepted at local has from the
// listening one.
func inherited(opts []option, domain int, local netip.AddrPort) []option {
	var has []option
	if a := local.Addr(); domain == unix.AF_INET6 && a.Is6() && !a.IsUnspecified() && !a.Is4In6() {
		// bind(2) to one address of IPv6 has done so.
		has = append(has, option{unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, []byte{1, 0, 0, 0}})
	}
	for _, o := range opts {
		if o.inherits() {
			has = append(has, o)
		}
	}
	return has
}

func (o option) inherits() bool {
	switch o.level {
	case unix.SOL_SOCKET:
		switch o.name {
		case unix.SO_PRIORITY, unix.SO_INCOMING_CPU, unix.SO_ATTACH_REUSEPORT_CBPF, unix.SO_ATTACH_REUSEPORT_EBPF:
			return false
		}
	case unix.IPPROTO_TCP:
		return o.name != unix.TCP_DEFER_ACCEPT && o.name != unix.TCP_FASTOPEN && o.name != unix.TCP_QUICKACK
	case unix.IPPROTO_IP:
		return o.name != unix.IP_OPTIONS
	}
	return true
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
	if o.level == unix.IPPROTO_TCP && o.name == unix.TCP_ULP && len(o.value) > 0 {
		return unix.ENOENT // kernel TLS; asking would load modules
	}
	if errno := mayHave(r, sock, o); errno != 0 {
		return errno
	}
	sock.mu.Lock()
	hold := sock.hold
	sock.mu.Unlock()
	if hold != nil || !o.always() {
		ns, err := sock.netNS(r)
		if err != nil {
			s.log.Error("setsockopt", "error", err)
			return unix.ENOBUFS
		}
		if errno := s.b.tryOption(r, sock, ns, o); errno != 0 {
			return errno
		}
	}
	if errno := o.refused(); errno != 0 {
		return errno
	}
	if o.onPair() && !sock.fillsNow(o) {
		rawSetsockopt(fd, o.level, o.name, o.value)
	}
	if !o.borrows() {
		sock.remember(o)
	}
	return 0
}

// borrows reports that the value points to something of the program's, which
// may be gone later. It acts on the socket that holds the port, if there is
// one, and chooses among connections by TCP; those by QUIC are shared out in
// turn.
func (o option) borrows() bool {
	return o.level == unix.SOL_SOCKET && (o.name == unix.SO_ATTACH_REUSEPORT_CBPF || o.name == unix.SO_ATTACH_REUSEPORT_EBPF)
}

// tryOption has the kernel judge o on a TCP socket as sock would be, and sets
// it on the one that holds sock's port.
func (b *Broker) tryOption(r Request, sock *Socket, ns *netns.NS, o option) unix.Errno {
	set := func(fd int) unix.Errno { return rawSetsockopt(fd, o.level, o.name, o.value) }
	if o.borrows() {
		set = func(fd int) unix.Errno { return setSteering(r, fd, o) }
	}
	sock.mu.Lock()
	hold := sock.hold
	sock.mu.Unlock()
	if hold != nil {
		return set(hold.fd)
	}
	fd, errno := b.tcpSocket(sock, ns)
	if errno != 0 {
		return errno
	}
	defer unix.Close(fd)
	return set(fd)
}

// setSteering sets a program of SO_ATTACH_REUSEPORT_* (socket(7)) on fd: a
// descriptor of the caller's, or a struct sock_fprog that points to its memory.
func setSteering(r Request, fd int, o option) unix.Errno {
	if o.name == unix.SO_ATTACH_REUSEPORT_EBPF {
		if len(o.value) != 4 {
			return unix.EINVAL
		}
		prog, err := r.File(o.int())
		if err != nil {
			return unix.EBADF
		}
		defer unix.Close(prog)
		return rawSetsockopt(fd, o.level, o.name, binary.NativeEndian.AppendUint32(nil, uint32(prog)))
	}
	if len(o.value) != int(unix.SizeofSockFprog) {
		return unix.EINVAL
	}
	n := int(binary.NativeEndian.Uint16(o.value))
	if n == 0 || n > unix.BPF_MAXINSNS {
		return unix.EINVAL
	}
	raw := make([]byte, n*unix.SizeofSockFilter)
	if r.Read(binary.NativeEndian.Uint64(o.value[8:]), raw) != nil {
		return unix.EFAULT
	}
	filter := make([]unix.SockFilter, n)
	for i := range filter {
		b := raw[i*unix.SizeofSockFilter:]
		filter[i] = unix.SockFilter{
			Code: binary.NativeEndian.Uint16(b), Jt: b[2], Jf: b[3], K: binary.NativeEndian.Uint32(b[4:]),
		}
	}
	prog := unix.SockFprog{Len: uint16(n), Filter: &filter[0]}
	return asErrno(unix.SetsockoptSockFprog(fd, o.level, o.name, &prog), unix.EINVAL)
}

// fillsNow reports that o would make a socket writable whose connection is not
// there yet; it is set when it is.
func (s *Socket) fillsNow(o option) bool {
	if !o.sizesSending() {
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

// sizesSending: o is how large the send buffer is.
func (o option) sizesSending() bool {
	return o.level == unix.SOL_SOCKET && (o.name == unix.SO_SNDBUF || o.name == unix.SO_SNDBUFFORCE)
}

func (s *Socket) remember(o option) {
	if o.sizesSending() {
		s.narrow.Store(true)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.opts {
		if p.level == o.level && p.name == o.name && bytes.Equal(p.value, o.value) {
			return
		}
	}
	opts := make([]option, 0, len(s.opts)+1) // readers hold the old slice
	for _, p := range s.opts {
		if p.level != o.level || p.name != o.name {
			opts = append(opts, p)
		}
	}
	s.opts = append(opts, o)
	s.jotLocked()
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
