package quic

import (
	"net"
	"net/netip"
	"strconv"

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
	domain, to, err := sockaddr(remote)
	if err != nil {
		return netip.Addr{}, err
	}
	fd, err := unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return netip.Addr{}, err
	}
	defer unix.Close(fd)
	if from.IsValid() {
		_, sa, err := sockaddr(netip.AddrPortFrom(from, 0))
		if err != nil {
			return netip.Addr{}, err
		}
		if err := unix.Bind(fd, sa); err != nil {
			return netip.Addr{}, err
		}
	}
	if err := unix.Connect(fd, to); err != nil {
		return netip.Addr{}, err
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return netip.Addr{}, err
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrFrom4(sa.Addr), nil
	case *unix.SockaddrInet6:
		a := netip.AddrFrom16(sa.Addr)
		if sa.ZoneId != 0 {
			a = a.WithZone(strconv.FormatUint(uint64(sa.ZoneId), 10))
		}
		return a, nil
	}
	return netip.Addr{}, unix.EAFNOSUPPORT
}

func sockaddr(ap netip.AddrPort) (int, unix.Sockaddr, error) {
	a := ap.Addr().Unmap()
	if a.Is4() {
		return unix.AF_INET, &unix.SockaddrInet4{Port: int(ap.Port()), Addr: a.As4()}, nil
	}
	sa := &unix.SockaddrInet6{Port: int(ap.Port()), Addr: a.As16()}
	if z := a.Zone(); z != "" {
		id, err := strconv.ParseUint(z, 10, 32)
		if err != nil {
			ifi, err := net.InterfaceByName(z)
			if err != nil {
				return 0, nil, unix.ENODEV
			}
			id = uint64(ifi.Index)
		}
		sa.ZoneId = uint32(id)
	}
	return unix.AF_INET6, sa, nil
}
