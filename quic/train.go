package quic

import (
	"encoding/binary"
	"net"
	"strconv"
	"sync"
	"unsafe"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"github.com/poemq/poemq/internal/busypoll"
)

// Packets come in trains: with UDP_GRO (udp(7), Linux 5.0) one datagram of the
// kernel's holds up to 64 KiB of packets of one size from one sender, and one
// recvmmsg brings several of them. quic-go wants packets, so trains are cut, and
// a train lasts for several ReadBatch calls of quic-go's.
//
// The buffers are in use from when something came until the last packet of it is
// handed out: a socket that waits has none.
const (
	trainSize = 64 << 10 // the largest datagram is less
	maxTrains = 4
)

// useGRO is turned off by a test, to go the way of kernels without it.
var useGRO = true

// trains is what one recvmmsg brings.
type trains struct {
	count int // that came
	next  int // to cut from; those before are used up
	left  []byte
	size  int // of a packet of the train that is cut; the last may be shorter

	headers [maxTrains]mmsghdr
	vectors [maxTrains]unix.Iovec
	names   [maxTrains]unix.RawSockaddrInet6 // or what an IPv4 address takes of it
	control [maxTrains][128]byte
	data    [maxTrains][trainSize]byte
}

// mmsghdr is struct mmsghdr (recvmmsg(2)).
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
	_   [4]byte
}

var trainPool = sync.Pool{New: func() any {
	t := &trains{}
	for i := range t.headers {
		t.vectors[i].Base = &t.data[i][0]
		t.vectors[i].SetLen(trainSize)
		h := &t.headers[i].hdr
		h.Iov, h.Control = &t.vectors[i], &t.control[i][0]
		h.SetIovlen(1)
		h.Name = (*byte)(unsafe.Pointer(&t.names[i]))
		t.prepare(i)
	}
	return t
}}

// prepare says to the i-th header what the kernel changes with what it brings.
func (t *trains) prepare(i int) {
	h := &t.headers[i].hdr
	h.SetControllen(len(t.control[i]))
	h.Namelen = uint32(unsafe.Sizeof(t.names[i]))
}

// release gives t back to the pool.
func (t *trains) release() {
	for i := range t.count {
		t.prepare(i)
	}
	t.count, t.next, t.left = 0, 0, nil
	trainPool.Put(t)
}

// sender remembers the address of the last train, which is most often that of
// the next. quic-go does not change what it is given.
type sender struct {
	raw  unix.RawSockaddrInet6
	addr *net.UDPAddr
}

// enableTrains, of newUDP, asks for UDP_GRO. Kernels without it give trains of one packet.
func (u *udp) enableTrains() {
	if useGRO {
		unix.SetsockoptInt(u.fd, unix.SOL_UDP, unix.UDP_GRO, 1)
	}
}

// receive waits for trains. The caller puts them back into the pool. Only one
// goroutine may call it at a time.
func (u *udp) receive() (*trains, error) {
	if err := u.in.wait(u.recvmmsg); err != nil {
		return nil, err
	}
	t, errno := u.got, u.errno
	u.got = nil
	if errno != 0 {
		return nil, errno
	}
	octets := 0
	for i := range t.count {
		octets += int(t.headers[i].len)
	}
	busypoll.Carried(octets)
	return t, nil
}

// tryReceive is one recvmmsg; false when there is nothing. It leaves what came
// in u.got and u.errno.
func (u *udp) tryReceive(uintptr) bool {
	t := trainPool.Get().(*trains)
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(u.fd), uintptr(unsafe.Pointer(&t.headers[0])), maxTrains, unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			t.count = int(n)
			u.got, u.errno = t, 0
			return true
		case unix.EINTR:
			continue
		}
		t.release()
		u.got, u.errno = nil, errno
		if errno != unix.EAGAIN {
			return true
		}
		busypoll.Before()
		return false
	}
}

// cut hands out packets, at most one for each of ms, and tells how many; 0 when
// there are no more. Empty datagrams are nothing to QUIC and left out.
func (t *trains) cut(ms []ipv4.Message, from *sender) (n int) {
	for n < len(ms) {
		if len(t.left) == 0 {
			if t.next == t.count {
				return n
			}
			h := &t.headers[t.next]
			t.left = t.data[t.next][:h.len]
			t.size = segmentSize(t.oob(t.next), len(t.left))
			t.next++
			continue
		}
		packet := t.left[:min(t.size, len(t.left))]
		t.left = t.left[len(packet):]
		m := &ms[n]
		m.N = copy(m.Buffers[0], packet)
		m.NN = copy(m.OOB, t.oob(t.next-1))
		m.Flags = int(t.headers[t.next-1].hdr.Flags)
		m.Addr = from.of(&t.names[t.next-1])
		n++
	}
	return n
}

// used reports that there is nothing more to cut.
func (t *trains) used() bool { return t.next == t.count && len(t.left) == 0 }

func (t *trains) oob(i int) []byte { return t.control[i][:t.headers[i].hdr.Controllen] }

// segmentSize is the size of the packets in a train of length octets: what the
// control message UDP_GRO says, or all of it.
func segmentSize(oob []byte, length int) int {
	for len(oob) > 0 {
		h, body, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			break
		}
		if h.Level == unix.SOL_UDP && h.Type == unix.UDP_GRO && len(body) >= 4 {
			if size := int(binary.NativeEndian.Uint32(body)); size > 0 {
				return size
			}
		}
		oob = rest
	}
	return max(length, 1)
}

// of reads an address. Zones are numbers: names are others in other network
// namespaces.
func (s *sender) of(raw *unix.RawSockaddrInet6) *net.UDPAddr {
	v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(raw))
	known := s.raw == *raw
	if raw.Family == unix.AF_INET {
		known = *(*unix.RawSockaddrInet4)(unsafe.Pointer(&s.raw)) == *v4
	}
	if s.addr != nil && known {
		return s.addr
	}
	addr := &net.UDPAddr{}
	switch raw.Family {
	case unix.AF_INET:
		addr.IP, addr.Port = append(net.IP(nil), v4.Addr[:]...), networkOrder(&v4.Port)
	case unix.AF_INET6:
		addr.IP, addr.Port = append(net.IP(nil), raw.Addr[:]...), networkOrder(&raw.Port)
		if raw.Scope_id != 0 {
			addr.Zone = strconv.FormatUint(uint64(raw.Scope_id), 10)
		}
	}
	s.raw, s.addr = *raw, addr
	return addr
}

func networkOrder(port *uint16) int {
	return int(binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(port))[:]))
}

func putNetworkOrder(to *uint16, port int) {
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(to))[:], uint16(port))
}
