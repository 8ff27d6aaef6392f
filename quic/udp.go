package quic

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// udp is a UDP socket of the kernel's, watched for what comes alone.
//
// Go's poller asks for EPOLLOUT of every descriptor, which a UDP socket tells
// each time that a packet of it has left the machine or, on loopback, was read:
// a wake-up for every packet sent. So it does not get the socket, but an epoll(7)
// descriptor that filters: what happens at the socket and was not asked for does
// not reach it. Nobody calls epoll_wait for the filter; the poller's looks at the
// socket through it, and once it was readable, recvmmsg is called until there is
// nothing. Who has no room to send waits at a second filter, which asks for
// EPOLLOUT only meanwhile.
//
// No call on the socket waits: all have MSG_DONTWAIT.
type udp struct {
	fd    int    // ours; open as long as in is
	in    filter // EPOLLIN, and EPOLLERR, which needs no asking
	local *net.UDPAddr
	queue bool // the error queue is on (IP_RECVERR)
	// domain is AF_INET or AF_INET6.
	domain int

	recvmmsg func(uintptr) bool // tryReceive
	got      *trains            // what it brought
	errno    unix.Errno         // or why not

	mu     sync.Mutex // guards what follows
	room   *filter    // nil before the first send that found none
	closed bool
}

// filter is an epoll(7) descriptor with one socket in it, in Go's poller. The
// socket is not closed while a call of raw's runs.
type filter struct {
	epoll *os.File
	raw   syscall.RawConn
	fd    int // of epoll
}

// newUDP takes the socket fd over, if it gives no error.
func newUDP(fd int) (*udp, error) {
	local, err := localAddr(fd)
	if err != nil {
		return nil, os.NewSyscallError("getsockname", err)
	}
	u := &udp{fd: fd, domain: unix.AF_INET6, local: net.UDPAddrFromAddrPort(local)}
	if local.Addr().Is4() {
		u.domain = unix.AF_INET
	}
	u.recvmmsg = u.tryReceive
	u.queue = useErrorQueue && u.enableErrorQueue()
	u.enableTrains()
	if u.in, err = newFilter(fd, unix.EPOLLIN|unix.EPOLLET); err != nil {
		return nil, err
	}
	return u, nil
}

func newFilter(fd int, events uint32) (f filter, err error) {
	f.fd, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return f, os.NewSyscallError("epoll_create1", err)
	}
	// Before the poller has it: the kernel would look for loops.
	if err = f.control(unix.EPOLL_CTL_ADD, fd, events); err != nil {
		unix.Close(f.fd)
		return f, err
	}
	_ = unix.SetNonblock(f.fd, true) // only so that os takes it for pollable
	f.epoll = os.NewFile(uintptr(f.fd), "udp")
	f.raw, err = f.epoll.SyscallConn()
	if err == nil {
		err = f.epoll.SetReadDeadline(time.Time{}) // says whether the poller took it
	}
	if err != nil {
		f.epoll.Close()
	}
	return f, err
}

func (f *filter) control(op, fd int, events uint32) error {
	// Made by hand for the sake of raw: see outgoing.
	e := unix.EpollEvent{Events: events}
	if _, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(f.fd), uintptr(op), uintptr(fd), uintptr(unsafe.Pointer(&e)), 0, 0); errno != 0 {
		return os.NewSyscallError("epoll_ctl", errno)
	}
	return nil
}

// wait calls try until it returns true, again each time that something happened.
// Errors: os.ErrDeadlineExceeded, net.ErrClosed.
func (f *filter) wait(try func(uintptr) bool) error { return closedError(f.raw.Read(try)) }

// closedError puts package net's in the place of package os's.
func closedError(err error) error {
	if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return net.ErrClosed
}

// control calls f with the socket, which is not closed meanwhile. It fails with
// net.ErrClosed.
func (u *udp) control(f func(fd int)) error {
	return closedError(u.in.raw.Control(func(uintptr) { f(u.fd) }))
}

// waitForRoom calls send until it returns true, again when there may be room.
// Errors: net.ErrClosed, or what keeps it from waiting.
func (u *udp) waitForRoom(send func(uintptr) bool) error {
	room, err := u.roomFilter()
	if err != nil {
		return err
	}
	var asked bool
	var failed error
	err = room.wait(func(uintptr) bool {
		if !send(0) {
			asked = true
			failed = room.control(unix.EPOLL_CTL_MOD, u.fd, unix.EPOLLOUT|unix.EPOLLET) // says so at once where there is some already
			return failed != nil
		}
		if asked { // here, for the next who waits begins when this returns
			failed = room.control(unix.EPOLL_CTL_MOD, u.fd, 0)
		}
		return true
	})
	return errors.Join(err, failed)
}

func (u *udp) roomFilter() (*filter, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		return nil, net.ErrClosed
	}
	if u.room == nil {
		f, err := newFilter(u.fd, 0)
		if err != nil {
			return nil, err
		}
		u.room = &f
	}
	return u.room, nil
}

// SetReadDeadline ends a receive that waits then, and those after it.
func (u *udp) SetReadDeadline(t time.Time) error { return closedError(u.in.epoll.SetReadDeadline(t)) }

// LocalAddr is where the socket was bound when it was taken over.
func (u *udp) LocalAddr() net.Addr { return u.local }

// Close ends what waits with net.ErrClosed, which a second call returns.
func (u *udp) Close() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		return net.ErrClosed
	}
	u.closed = true
	if u.room != nil {
		u.room.epoll.Close() // returns when no call runs any more
	}
	u.in.epoll.Close()
	unix.RawSyscall(unix.SYS_CLOSE, uintptr(u.fd), 0, 0)
	return nil
}

// localAddr is getsockname(2), with zones as numbers. It is made by hand: that of
// x/sys asks for the protocol, too.
func localAddr(fd int) (netip.AddrPort, error) {
	var raw unix.RawSockaddrAny
	size := uint32(unix.SizeofSockaddrAny)
	if _, _, errno := unix.RawSyscall(unix.SYS_GETSOCKNAME, uintptr(fd), uintptr(unsafe.Pointer(&raw)), uintptr(unsafe.Pointer(&size))); errno != 0 {
		return netip.AddrPort{}, errno
	}
	switch raw.Addr.Family {
	case unix.AF_INET:
		sa := (*unix.RawSockaddrInet4)(unsafe.Pointer(&raw))
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(networkOrder(&sa.Port))), nil
	case unix.AF_INET6:
		sa := (*unix.RawSockaddrInet6)(unsafe.Pointer(&raw))
		a := netip.AddrFrom16(sa.Addr)
		if sa.Scope_id != 0 {
			a = a.WithZone(strconv.FormatUint(uint64(sa.Scope_id), 10))
		}
		return netip.AddrPortFrom(a, uint16(networkOrder(&sa.Port))), nil
	}
	return netip.AddrPort{}, unix.EAFNOSUPPORT
}
