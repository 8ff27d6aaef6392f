package quic

import (
	"net"
	"os"
	"strconv"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/poemq/poemq/internal/busypoll"
)

// outgoing is one sendmsg(2). It is made by hand and raw: package net would
// have the scheduler give the processor's place away for the time of the call,
// which waits for nothing, and another thread would be woken to take it. What
// there is no room for waits as filter says.
type outgoing struct {
	hdr   unix.Msghdr
	iov   unix.Iovec
	sa4   unix.RawSockaddrInet4
	sa6   unix.RawSockaddrInet6
	n     uintptr
	errno unix.Errno
	fd    int
	once  func(uintptr)      // sendmsg, as syscall.RawConn takes it
	call  func(uintptr) bool // likewise
}

var outgoingPool = sync.Pool{New: func() any {
	o := new(outgoing)
	o.hdr.Iov = &o.iov
	o.hdr.SetIovlen(1)
	o.once, o.call = func(uintptr) { o.sendmsg() }, func(uintptr) bool { return o.sendmsg() }
	return o
}}

// send sends a packet, or a train of them, to addr, or where u is connected to.
// It waits for room. Errors are net.ErrClosed, those of addresses, or sendmsg(2)'s
// as an *os.SyscallError.
func (u *udp) send(b, oob []byte, addr *net.UDPAddr) (n int, err error) {
	o := outgoingPool.Get().(*outgoing)
	o.fd = u.fd
	n, err = o.send(u, b, oob, addr)
	o.iov.Base, o.hdr.Control, o.hdr.Name = nil, nil, nil
	outgoingPool.Put(o)
	return n, err
}

func (o *outgoing) send(u *udp, b, oob []byte, addr *net.UDPAddr) (n int, err error) {
	if len(b) > 0 {
		o.iov.Base = &b[0]
	}
	o.iov.SetLen(len(b))
	if len(oob) > 0 {
		o.hdr.Control = &oob[0]
	}
	o.hdr.SetControllen(len(oob))
	o.hdr.Namelen = 0
	if addr != nil {
		if err := o.to(addr, u.domain); err != nil {
			return 0, err
		}
	}
	if err := u.in.raw.Control(o.once); err != nil {
		return 0, closedError(err)
	}
	if o.errno == unix.EAGAIN {
		if err := u.waitForRoom(o.call); err != nil {
			return 0, err
		}
	}
	if o.errno != 0 {
		return 0, os.NewSyscallError("sendmsg", o.errno)
	}
	busypoll.Carried(int(o.n))
	return int(o.n), nil
}

// sendmsg is false when there is no room.
func (o *outgoing) sendmsg() bool {
	for {
		o.n, _, o.errno = unix.RawSyscall(unix.SYS_SENDMSG, uintptr(o.fd), uintptr(unsafe.Pointer(&o.hdr)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		if o.errno != unix.EINTR {
			return o.errno != unix.EAGAIN
		}
	}
}

// to sets the address, for a socket of domain.
func (o *outgoing) to(addr *net.UDPAddr, domain int) error {
	if domain == unix.AF_INET {
		ip := addr.IP.To4()
		if ip == nil {
			return &net.AddrError{Err: "not an IPv4 address", Addr: addr.IP.String()}
		}
		o.sa4 = unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: [4]byte(ip)}
		putNetworkOrder(&o.sa4.Port, addr.Port)
		o.hdr.Name, o.hdr.Namelen = (*byte)(unsafe.Pointer(&o.sa4)), unix.SizeofSockaddrInet4
		return nil
	}
	ip := addr.IP.To16()
	if ip == nil {
		return &net.AddrError{Err: "not an IP address", Addr: addr.IP.String()}
	}
	o.sa6 = unix.RawSockaddrInet6{Family: unix.AF_INET6, Addr: [16]byte(ip)}
	putNetworkOrder(&o.sa6.Port, addr.Port)
	if addr.Zone != "" { // a number: see sender.of
		id, err := strconv.ParseUint(addr.Zone, 10, 32)
		if err != nil {
			return &net.AddrError{Err: "zone is not a number", Addr: addr.String()}
		}
		o.sa6.Scope_id = uint32(id)
	}
	o.hdr.Name, o.hdr.Namelen = (*byte)(unsafe.Pointer(&o.sa6)), unix.SizeofSockaddrInet6
	return nil
}
