package quic

import (
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
	err = ns.Do(func() error {
		local, err = route(from, remote)
		return err
	})
	return local, err
}

func route(from netip.Addr, remote netip.AddrPort) (netip.Addr, error) {
	fd, err := connectUDP(from, remote)
	if err != nil {
		return netip.Addr{}, err
	}
	local, err := localAddr(fd)
	closeFD(fd)
	return local.Addr(), err
}

// connectUDP makes a UDP socket that is connected to remote, in the namespace of
// the thread. from is as Route's. Each program's connect asks for one, and none of
// these calls waits, so they are raw: see outgoing. Errors are the kernel's, as an
// *os.SyscallError.
func connectUDP(from netip.Addr, remote netip.AddrPort) (fd int, err error) {
	family := unix.AF_INET6
	if remote.Addr().Unmap().Is4() {
		family = unix.AF_INET
	}
	s, _, errno := unix.RawSyscall(unix.SYS_SOCKET, uintptr(family), unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
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
