package quic

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// The error queue of a UDP socket: the kernel puts each ICMP error there with
// the address of the packet that caused it (IP_RECVERR, ip(7); IPV6_RECVERR,
// ipv6(7)). An unconnected socket learns of ICMP errors in no other way, a
// connected one only of some (port unreachable, but not host unreachable).

// enableErrorQueue, of newUDP, turns it on for both families; a socket of one family
// refuses the other's option.
func (u *udp) enableErrorQueue() bool {
	e4 := unix.SetsockoptInt(u.fd, unix.IPPROTO_IP, unix.IP_RECVERR, 1)
	e6 := unix.SetsockoptInt(u.fd, unix.IPPROTO_IPV6, unix.IPV6_RECVERR, 1)
	return e4 == nil || e6 == nil
}

// takeErrors empties u's error queue into onError and tells whether an ICMP
// error was there. errno is what recvmmsg or sendmsg returned; without a queue
// a refusal on a connected socket is all there is to tell.
func (s *socket) takeErrors(u *udp, errno unix.Errno) bool {
	if !u.queue {
		icmp := s.connected && errno == unix.ECONNREFUSED
		if icmp {
			s.onError(socketError{errno: errno, icmp: true})
		}
		return icmp
	}
	found := false
	for {
		e, icmp, ok := u.nextError()
		if !ok {
			return found
		}
		if icmp {
			found = true
			s.onError(e)
		}
	}
}

// nextError takes one entry. ok is false when the queue is empty.
func (u *udp) nextError() (e socketError, icmp, ok bool) {
	var (
		data [1]byte // the head of the packet that failed; of no interest
		oob  [512]byte
		oobn int
		from unix.Sockaddr
		err  error
	)
	cerr := u.control(func(fd int) {
		for {
			_, oobn, _, from, err = unix.Recvmsg(fd, data[:], oob[:], unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
			if err != unix.EINTR {
				return
			}
		}
	})
	if cerr != nil || err != nil {
		return e, false, false
	}
	e.dst = sockaddrPort(from)
	cmsgs, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return e, false, true
	}
	for _, c := range cmsgs {
		if errno, isICMP := extendedError(c); isICMP {
			e.errno, e.icmp = errno, true
		}
	}
	return e, e.icmp && e.errno != unix.EMSGSIZE, true
}

// extendedError reads a struct sock_extended_err (ip(7)): u32 ee_errno,
// u8 ee_origin, ee_type, ee_code, ee_pad, u32 ee_info, ee_data.
func extendedError(c unix.SocketControlMessage) (errno unix.Errno, icmp bool) {
	v4 := c.Header.Level == unix.IPPROTO_IP && c.Header.Type == unix.IP_RECVERR
	v6 := c.Header.Level == unix.IPPROTO_IPV6 && c.Header.Type == unix.IPV6_RECVERR
	if !v4 && !v6 || len(c.Data) < 16 {
		return 0, false
	}
	const originICMP, originICMP6 = 2, 3 // SO_EE_ORIGIN_*, linux/errqueue.h
	origin := c.Data[4]
	return unix.Errno(binary.NativeEndian.Uint32(c.Data)), origin == originICMP || origin == originICMP6
}

func sockaddrPort(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), uint16(sa.Port))
	}
	return netip.AddrPort{}
}
