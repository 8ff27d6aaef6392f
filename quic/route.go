package quic

import (
	"errors"
	"net/netip"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/poemq/poemq/quic/netns"
)

// Route tells which local address a connection from ns to remote will have,
// without sending anything. from is a bound address, or the zero Addr. Errors
// are the kernel's errno for the way there: ENETUNREACH, EHOSTUNREACH, EACCES,
// EADDRNOTAVAIL…
func Route(ns *netns.NS, from netip.Addr, remote netip.AddrPort) (local netip.Addr, err error) {
	if !from.IsValid() && remote.Addr().Zone() == "" {
		// Each program's connect asks: making a socket takes most of the time,
		// and in another namespace a turn of its thread.
		cerr := ns.UDP(family(remote.Addr()), func(fd int) (asItWas bool) {
			local, err = route(fd, remote)
			return disconnect(fd) == nil
		})
		return local, errors.Join(cerr, err)
	}
	err = ns.Do(func() error {
		fd, err := connectUDP(from, remote)
		if err != nil {
			return err
		}
		defer closeFD(fd)
		a, err := localAddr(fd)
		local = a.Addr()
		return err
	})
	return local, err
}

// route connects the UDP socket fd, which has no address.
func route(fd int, remote netip.AddrPort) (netip.Addr, error) {
	if err := address("connect", unix.SYS_CONNECT, uintptr(fd), remote); err != nil {
		return netip.Addr{}, err
	}
	local, err := localAddr(fd)
	return local.Addr(), err
}

// disconnect takes a UDP socket's addresses away that connect(2) gave it, the port
// too, which somebody may want to listen on.
func disconnect(fd int) error {
	nobody := unix.RawSockaddr{Family: unix.AF_UNSPEC}
	if _, _, errno := unix.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&nobody)), unsafe.Sizeof(nobody)); errno != 0 {
		return errno
	}
	return nil
}

func family(a netip.Addr) int {
	if a.Unmap().Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// connectUDP makes a UDP socket that is connected to remote, in the namespace of
// the thread. from is as Route's. None of these calls waits, so they are raw: see
// outgoing. Errors are the kernel's, as an *os.SyscallError.
func connectUDP(from netip.Addr, remote netip.AddrPort) (fd int, err error) {
	s, _, errno := unix.RawSyscall(unix.SYS_SOCKET, uintptr(family(remote.Addr())), unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if errno != 0 {
		return -1, os.NewSyscallError("socket", errno)
	}
	if from.IsValid() {
		err = address("bind", unix.SYS_BIND, s, netip.AddrPortFrom(from, 0))
	}
	if err == nil {
		err = address("connect", unix.SYS_CONNECT, s, remote)
	}
	if err != nil {
		closeFD(int(s))
		return -1, err
	}
	return int(s), nil
}

func closeFD(fd int) { unix.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0) }

// address is bind(2) or connect(2).
func address(name string, call, fd uintptr, ap netip.AddrPort) error {
	var raw unix.RawSockaddrInet6 // what an IPv4 address leaves of it is not looked at
	var size uintptr
	if a := ap.Addr().Unmap(); a.Is4() {
		sa := (*unix.RawSockaddrInet4)(unsafe.Pointer(&raw))
		sa.Family, sa.Addr = unix.AF_INET, a.As4()
		putNetworkOrder(&sa.Port, int(ap.Port()))
		size = unix.SizeofSockaddrInet4
	} else {
		zone, err := zoneIndex(a.Zone())
		if err != nil {
			return err
		}
		raw.Family, raw.Addr, raw.Scope_id = unix.AF_INET6, a.As16(), zone
		putNetworkOrder(&raw.Port, int(ap.Port()))
		size = unix.SizeofSockaddrInet6
	}
	if _, _, errno := unix.RawSyscall(call, fd, uintptr(unsafe.Pointer(&raw)), size); errno != 0 {
		return os.NewSyscallError(name, errno)
	}
	return nil
}
