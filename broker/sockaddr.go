package broker

import (
	"encoding/binary"
	"net"
	"net/netip"
	"strconv"

	"github.com/poemq/poemq/notify"
	"golang.org/x/sys/unix"
)

// Lengths of <netinet/in.h> and <linux/in6.h>.
const (
	sizeInet4     = 16
	sizeInet6     = 28
	sizeInet6Old  = 24 // SIN6_LEN_RFC2133: without the scope id
	sizeSockaddrs = 128
)

// decodeSockaddr reads a struct sockaddr as connect(2) takes it for a socket of
// domain (unix.AF_INET or AF_INET6). unspec reports AF_UNSPEC. The errnos are
// those of tcp_v4_connect and tcp_v6_connect.
func decodeSockaddr(b []byte, domain int) (ap netip.AddrPort, unspec bool, errno unix.Errno) {
	if len(b) < 2 {
		return ap, false, unix.EINVAL
	}
	family := int(binary.NativeEndian.Uint16(b))
	if family == unix.AF_UNSPEC {
		return ap, true, 0
	}
	need := sizeInet4
	if domain == unix.AF_INET6 {
		need = sizeInet6Old
	}
	switch {
	case len(b) < need:
		return ap, false, unix.EINVAL
	case family != domain:
		return ap, false, unix.EAFNOSUPPORT
	}
	port := binary.BigEndian.Uint16(b[2:])
	if domain == unix.AF_INET {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), port), false, 0
	}
	addr := netip.AddrFrom16([16]byte(b[8:24]))
	if len(b) >= sizeInet6 {
		if scope := binary.NativeEndian.Uint32(b[24:]); scope != 0 && addr.IsLinkLocalUnicast() {
			addr = addr.WithZone(strconv.FormatUint(uint64(scope), 10))
		}
	}
	return netip.AddrPortFrom(addr, port), false, 0
}

// encodeSockaddr is ap as accept(2), getsockname(2) and getpeername(2) give it
// to a socket of domain. An IPv4 address in an IPv6 socket is v4-mapped; the
// zero AddrPort is the wildcard address.
func encodeSockaddr(ap netip.AddrPort, domain int) []byte {
	addr := ap.Addr()
	if domain == unix.AF_INET {
		b := make([]byte, sizeInet4)
		binary.NativeEndian.PutUint16(b, unix.AF_INET)
		binary.BigEndian.PutUint16(b[2:], ap.Port())
		if addr = addr.Unmap(); addr.Is4() {
			a := addr.As4()
			copy(b[4:], a[:])
		}
		return b
	}
	b := make([]byte, sizeInet6)
	binary.NativeEndian.PutUint16(b, unix.AF_INET6)
	binary.BigEndian.PutUint16(b[2:], ap.Port())
	if addr.IsValid() {
		a := addr.As16()
		copy(b[8:], a[:])
		binary.NativeEndian.PutUint32(b[24:], scopeID(addr.Zone()))
	}
	return b
}

// scopeID is the interface's number, which package net gives by its name.
func scopeID(zone string) uint32 {
	if zone == "" {
		return 0
	}
	if id, err := strconv.ParseUint(zone, 10, 32); err == nil {
		return uint32(id)
	}
	if i, err := net.InterfaceByName(zone); err == nil {
		return uint32(i.Index)
	}
	return 0
}

// readSockaddr copies a struct sockaddr of length n from the program, as
// move_addr_to_kernel does.
func readSockaddr(r Request, ptr uint64, n int) ([]byte, unix.Errno) {
	if n < 0 || n > sizeSockaddrs {
		return nil, unix.EINVAL
	}
	b := make([]byte, n)
	if r.Read(ptr, b) != nil {
		return nil, unix.EFAULT
	}
	return b, 0
}

// writeSockaddr gives the program an address by pointer and length pointer, as
// move_addr_to_user does: cut to the room there is, with the full length told.
func writeSockaddr(r Request, ptr, lenPtr uint64, ap netip.AddrPort, domain int) unix.Errno {
	var l [4]byte
	if r.Read(lenPtr, l[:]) != nil {
		return unix.EFAULT
	}
	room := int(int32(binary.NativeEndian.Uint32(l[:])))
	if room < 0 {
		return unix.EINVAL
	}
	b := encodeSockaddr(ap, domain)
	binary.NativeEndian.PutUint32(l[:], uint32(len(b)))
	if r.Write(notify.Piece{Addr: ptr, Data: b[:min(room, len(b))]}, notify.Piece{Addr: lenPtr, Data: l[:]}) != nil {
		return unix.EFAULT
	}
	return 0
}

// keepScope gives a link-local address the scope that like has, if any.
func keepScope(a netip.Addr, like netip.Addr) netip.Addr {
	if a.Is6() && a.IsLinkLocalUnicast() && like.Zone() != "" {
		return a.WithZone(like.Zone())
	}
	return a
}

// scoped is keepScope of both parts.
func scoped(ap netip.AddrPort, like netip.Addr) netip.AddrPort {
	return netip.AddrPortFrom(keepScope(ap.Addr(), like), ap.Port())
}

// scope is an address with the scope of what arrives at l.
func (l *listenState) scope() netip.Addr {
	l.sock.mu.Lock()
	defer l.sock.mu.Unlock()
	return l.sock.local.Addr()
}
