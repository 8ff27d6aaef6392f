package quic

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	quicgo "github.com/quic-go/quic-go"

	"github.com/poemq/poemq/quic/netns"
)

// socket is a UDP socket as quic-go sees it. It keeps the network's errors
// from quic-go, which would end every connection at the first of them, and
// tells them to onError. The one of the kernel's under it may be replaced
// (rebind), which quic-go does not see.
//
// quic-go reads through ReadBatch because the type has that method; without
// it, it would take the file descriptor and read past us.
type socket struct {
	cur       atomic.Pointer[udp]
	connected bool // to one peer: addresses are left out on sending
	// onPacket is called for the first read that brings packets. May be nil.
	onPacket func()
	answered bool          // onPacket was called; only the reading goroutine uses it
	pending  *trains       // not yet used up, or nil; the reading goroutine's
	from     sender        // the reading goroutine's
	lastRead atomic.Int64  // when the last packet was read, in ns after loaded; 0: never
	news     chan struct{} // holds one after packets were read
	// onError is told each error, from the reading or a writing goroutine.
	// It must not block.
	onError func(socketError)

	mu    sync.Mutex // guards what follows
	prev  *udp       // the one before cur; nil when there is none, or closed
	ended bool       // quic-go reads no more, or Close was called
}

// socketError is one error the network, or the kernel on sending, gave.
type socketError struct {
	errno unix.Errno
	icmp  bool           // came from the network; else from sending
	dst   netip.AddrPort // where the packet went; zero when not known
}

var (
	_ quicgo.OOBCapablePacketConn = (*socket)(nil)
	_ interface {
		ReadBatch([]ipv4.Message, int) (int, error)
	} = (*socket)(nil)
)

// useErrorQueue is turned off by a test, to go the way without IP_RECVERR.
var useErrorQueue = true

// newSocket takes the UDP socket fd over, if it gives no error.
func newSocket(fd int, connected bool) (*socket, error) {
	u, err := newUDP(fd)
	if err != nil {
		return nil, err
	}
	s := &socket{connected: connected, onError: func(socketError) {}, news: make(chan struct{}, 1)}
	s.cur.Store(u)
	return s, nil
}

// dialSocket makes a UDP socket in ns that is connected to remote, from local
// unless that is the zero Addr. Errors wrap the kernel's errno.
func dialSocket(ns *netns.NS, local netip.Addr, remote netip.AddrPort) (*socket, error) {
	fd, err := dialUDP(ns, local, remote)
	if err != nil {
		return nil, err
	}
	s, err := newSocket(fd, true)
	if err != nil {
		closeFD(fd)
	}
	return s, err
}

// dialUDP is dialSocket's socket as the kernel gives it; the caller closes it.
func dialUDP(ns *netns.NS, local netip.Addr, remote netip.AddrPort) (fd int, err error) {
	if remote.Addr().IsMulticast() {
		return -1, os.NewSyscallError("connect", unix.ENETUNREACH) // what TCP's says of such addresses
	}
	err = ns.Do(func() error {
		fd, err = connectUDP(local, remote)
		return err
	})
	if errors.Is(err, unix.EACCES) { // broadcast
		err = os.NewSyscallError("connect", unix.ENETUNREACH)
	}
	return fd, err
}

// listenSocket binds a UDP socket in ns. It does so by hand: package net
// chooses the family and IPV6_V6ONLY of wildcard addresses by itself, and here
// they must be what the program asked for.
func listenSocket(ns *netns.NS, local netip.AddrPort, o ListenOptions) (*socket, error) {
	var fd int
	err := ns.Do(func() (err error) {
		fd, err = bindUDP(local, o)
		return err
	})
	if err != nil {
		return nil, err
	}
	return socketOn(fd)
}

// socketOn takes fd over, which has to be a bound UDP socket.
func socketOn(fd int) (*socket, error) {
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	if err != nil {
		err = os.NewSyscallError("getsockopt SO_PROTOCOL", err)
	} else if kind != unix.IPPROTO_UDP {
		err = unix.EPROTOTYPE
	}
	var s *socket
	if err == nil {
		s, err = newSocket(fd, false)
	}
	if err != nil {
		closeFD(fd)
	}
	return s, err
}

func bindUDP(local netip.AddrPort, o ListenOptions) (fd int, err error) {
	family := unix.AF_INET6
	if local.Addr().Is4() {
		family = unix.AF_INET
	}
	fd, err = unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	defer func() {
		if err != nil {
			closeFD(fd)
		}
	}()
	if o.ReusePort {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
			return -1, os.NewSyscallError("setsockopt SO_REUSEPORT", err)
		}
	}
	var sa unix.Sockaddr
	if family == unix.AF_INET {
		sa = &unix.SockaddrInet4{Port: int(local.Port()), Addr: local.Addr().As4()}
	} else {
		v6only := 0
		if o.V6Only {
			v6only = 1
		}
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, v6only); err != nil {
			return -1, os.NewSyscallError("setsockopt IPV6_V6ONLY", err)
		}
		zone, err := zoneIndex(local.Addr().Zone())
		if err != nil {
			return -1, err
		}
		sa = &unix.SockaddrInet6{Port: int(local.Port()), Addr: local.Addr().As16(), ZoneId: zone}
	}
	if err := unix.Bind(fd, sa); err != nil {
		return -1, os.NewSyscallError("bind", err)
	}
	return fd, nil
}

// zoneIndex is called inside the namespace: interfaces differ between them.
func zoneIndex(zone string) (uint32, error) {
	if zone == "" {
		return 0, nil
	}
	if id, err := strconv.ParseUint(zone, 10, 32); err == nil {
		return uint32(id), nil
	}
	i, err := net.InterfaceByName(zone)
	if err != nil {
		return 0, fmt.Errorf("zone %s: %w", zone, unix.ENODEV)
	}
	return uint32(i.Index), nil
}

// loaded is what lastRead counts from: a time that is kept as a number of its own
// would be the wall clock's, and jump with it.
var loaded = time.Now()

// heard is when the last packet was read, by the monotonic clock; the zero time
// before the first.
func (s *socket) heard() time.Time {
	if after := s.lastRead.Load(); after != 0 {
		return loaded.Add(time.Duration(after))
	}
	return time.Time{}
}

// LocalAddr is where packets come from now.
func (s *socket) LocalAddr() net.Addr { return s.cur.Load().LocalAddr() }

// ReadBatch reads packets, and errors beside them, until there is a packet.
// It returns an error only when the socket is of no more use or the deadline
// passed.
func (s *socket) ReadBatch(ms []ipv4.Message, _ int) (n int, err error) {
	for {
		if n = s.cut(ms); n > 0 {
			return n, nil
		}
		u := s.cur.Load()
		if s.pending, err = u.receive(); err == nil {
			s.tellRead()
			continue
		}
		if s.cur.Load() != u {
			continue // rebind ended the wait
		}
		errno, soft := networkErrno(err)
		if !soft {
			return 0, err
		}
		s.takeErrors(u, errno)
	}
}

// cut hands out what came and was not yet.
func (s *socket) cut(ms []ipv4.Message) (n int) {
	if s.pending == nil {
		return 0
	}
	n = s.pending.cut(ms, &s.from)
	if s.pending.used() {
		s.pending.release()
		s.pending = nil
	}
	return n
}

// tellRead is called when packets were read.
func (s *socket) tellRead() {
	s.lastRead.Store(int64(time.Since(loaded)))
	select {
	case s.news <- struct{}{}:
	default:
	}
	if !s.answered {
		s.answered = true
		if s.onPacket != nil {
			s.onPacket()
		}
	}
}

// WriteMsgUDP sends a packet, or a train of them. An error the socket held
// from an earlier packet is reported in place of sending (udp(7)), so it is
// taken and the packet sent again. An error of this packet goes to onError,
// and the packet counts as lost on the way. quic-go needs to see two of them:
// EMSGSIZE (path MTU discovery) and EIO (the device refuses segmentation).
func (s *socket) WriteMsgUDP(b, oob []byte, addr *net.UDPAddr) (n, oobn int, err error) {
	if s.connected {
		addr = nil
	}
	for try := 0; ; try++ {
		u := s.cur.Load()
		n, err = u.send(b, oob, addr)
		if err == nil {
			return n, len(oob), nil
		}
		if s.cur.Load() != u {
			continue // rebind came in between
		}
		errno, soft := networkErrno(err)
		if !soft || errno == unix.EIO {
			return n, 0, err
		}
		icmps := s.takeErrors(u, errno)
		if try < 3 && (icmps || try == 0) {
			continue
		}
		if errno == unix.EMSGSIZE {
			return n, 0, err
		}
		if !icmps {
			s.onError(socketError{errno: errno})
		}
		return len(b), len(oob), nil
	}
}

// networkErrno tells whether err is one a packet's fate can give, and which.
// A nil err is soft, errno 0.
func networkErrno(err error) (errno unix.Errno, soft bool) {
	if err == nil {
		return 0, true
	}
	if !errors.As(err, &errno) {
		return 0, false
	}
	switch errno {
	case unix.ECONNREFUSED, unix.EHOSTUNREACH, unix.ENETUNREACH, unix.EMSGSIZE,
		unix.EPERM, unix.EACCES, unix.EPROTO, unix.ENOPROTOOPT, unix.EOPNOTSUPP,
		unix.ENETDOWN, unix.EHOSTDOWN, unix.ENONET, unix.ENOBUFS, unix.ENOMEM,
		unix.EINTR, unix.EIO, unix.EADDRNOTAVAIL, unix.EINVAL, unix.ENODEV, unix.ENXIO:
		return errno, true
	}
	return errno, false
}
