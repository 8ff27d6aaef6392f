package link

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Packet is an IP packet on the path. What it says of itself is zero where
// there is no IPv4, or too little of it.
type Packet []byte

// Protocol is that of IP's payload, such as unix.IPPROTO_UDP.
func (p Packet) Protocol() int {
	if len(p) < 20 || p[0]>>4 != 4 {
		return -1
	}
	return int(p[9])
}

// payload is what is behind IP's header; nil for fragments but the first.
func (p Packet) payload() []byte {
	size := int(p[0]&15) * 4
	if size < 20 || len(p) < size || binary.BigEndian.Uint16(p[6:])&0x1fff != 0 {
		return nil
	}
	return p[size:]
}

// ported is the payload of UDP and TCP.
func (p Packet) ported() []byte {
	if proto := p.Protocol(); proto != unix.IPPROTO_UDP && proto != unix.IPPROTO_TCP {
		return nil
	}
	if b := p.payload(); len(b) >= 8 {
		return b
	}
	return nil
}

// Source and Destination are those of UDP and TCP.
func (p Packet) Source() netip.AddrPort { return p.end(12, 0) }

// Destination see Source.
func (p Packet) Destination() netip.AddrPort { return p.end(16, 2) }

func (p Packet) end(addr, port int) netip.AddrPort {
	b := p.ported()
	if b == nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte(p[addr:addr+4])), binary.BigEndian.Uint16(b[port:]))
}

// SYN reports the first segment of a TCP connection.
func (p Packet) SYN() bool {
	const syn, ack = 0x02, 0x10
	b := p.ported()
	return b != nil && p.Protocol() == unix.IPPROTO_TCP && len(b) >= 20 && b[13]&(syn|ack) == syn
}

// SetSourcePort and SetDestinationPort change a UDP datagram as a NAT does.
func (p Packet) SetSourcePort(port uint16) { p.setPort(0, port) }

// SetDestinationPort see SetSourcePort.
func (p Packet) SetDestinationPort(port uint16) { p.setPort(2, port) }

func (p Packet) setPort(at int, port uint16) {
	b := p.ported()
	if b == nil || p.Protocol() != unix.IPPROTO_UDP {
		return
	}
	was := binary.BigEndian.Uint16(b[at:])
	binary.BigEndian.PutUint16(b[at:], port)
	sum := binary.BigEndian.Uint16(b[6:])
	if sum == 0 { // UDP without a checksum (RFC 768)
		return
	}
	// RFC 1624, equation 3: HC' = ~(~HC + ~m + m').
	fresh := uint32(^sum) + uint32(^was) + uint32(port)
	fresh = fresh&0xffff + fresh>>16
	fresh = fresh&0xffff + fresh>>16
	if sum = ^uint16(fresh); sum == 0 {
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(b[6:], sum)
}
