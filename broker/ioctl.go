package broker

import (
	"encoding/binary"
	"unsafe"

	"github.com/poemq/poemq/addfd"
	"github.com/poemq/poemq/notify"
	"golang.org/x/sys/unix"
)

// Of <linux/sockios.h> and <linux/if.h>.
const (
	siocOutQ       = 0x5411
	siocGIfAddr    = 0x8915
	siocGIfDstAddr = 0x8917
	siocGIfBrdAddr = 0x8919
	siocGIfNetmask = 0x891b
	siocOutQNSD    = 0x894b

	sizeIfreq     = 40
	sizeIfreqI386 = 32
)

// ioctl answers the few commands of ioctl(2) that an AF_UNIX socket does not
// know.
func (s *Session) ioctl(r Request, sock *Socket, _ *copyFd) {
	switch r.Int(1) {
	case siocGIfAddr, siocGIfDstAddr, siocGIfBrdAddr, siocGIfNetmask:
		s.result(r, s.interfaceIoctl(r, sock))
	case siocOutQ, siocOutQNSD:
		s.unsent(r, sock)
	default:
		s.carryOn(r)
	}
}

// interfaceIoctl has a TCP socket of the same namespace asked (netdevice(7)).
// The address is at the same place in i386's shorter struct ifreq.
func (s *Session) interfaceIoctl(r Request, sock *Socket) unix.Errno {
	var req [sizeIfreq]byte
	part := req[:sizeIfreqI386]
	if r.Read(r.Ptr(2), part) != nil {
		return unix.EFAULT
	}
	if !r.Valid() {
		return 0
	}
	ns, err := sock.netNS(r)
	if err != nil {
		return unix.ENODEV
	}
	fd, errno := s.b.oracle.get(s.b, sock, ns)
	if errno != 0 {
		return errno
	}
	_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(r.Int(1)), uintptr(unsafe.Pointer(&req)))
	if e != 0 {
		return e
	}
	if r.Write(notify.Piece{Addr: r.Ptr(2), Data: part}) != nil {
		return unix.EFAULT
	}
	return 0
}

// unsent answers SIOCOUTQ and SIOCOUTQNSD (tcp(7)): what the program wrote and
// nobody took. What is on its way counts no more, since it is delivered even if
// the program ends.
func (s *Session) unsent(r Request, sock *Socket) {
	sock.mu.Lock()
	state, relay := sock.state, sock.relay
	sock.mu.Unlock()
	if state == listening {
		s.fail(r, unix.EINVAL)
		return
	}
	var n int
	if relay != nil {
		n = relay.unsent()
	}
	var b [4]byte
	binary.NativeEndian.PutUint32(b[:], uint32(n))
	if r.Write(notify.Piece{Addr: r.Ptr(2), Data: b[:]}) != nil {
		s.fail(r, unix.EFAULT)
		return
	}
	s.done(r)
}

// unsent counts the program's bytes in the end's queue.
func (r *relay) unsent() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.done {
		return 0
	}
	n, err := addfd.Unread(r.end.FD())
	if err != nil {
		return 0
	}
	return max(0, n-r.armed-r.seen) + len(r.early)
}
