package rig

import (
	"fmt"
	"net"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// counter counts packets on the loopback interface. Nobody reads from it: the
// kernel counts what passes the filter, also when the socket's buffer is full
// (packet(7), PACKET_STATISTICS).
type counter struct {
	fd    int
	total uint32 // reading the statistics clears them
}

// watch counts the port's packets from now on and judges them at the test's
// end.
func (r *Rig) watch(port int) {
	r.Helper()
	udp, err := newCounter(unix.IPPROTO_UDP, port)
	if err != nil {
		r.unwatched(port, err)
		return
	}
	r.Cleanup(udp.close)
	tcp, err := newCounter(unix.IPPROTO_TCP, port)
	if err != nil {
		r.unwatched(port, err)
		return
	}
	r.Cleanup(tcp.close)
	r.Cleanup(func() {
		if r.Skipped() || r.Failed() {
			return
		}
		u, t := udp.read(), tcp.read()
		r.Logf("port %d: %d UDP datagrams, %d TCP segments", port, u, t)
		if Native() {
			if t == 0 {
				r.Errorf("port %d: the watch saw no TCP segment of a native run", port)
			}
			return
		}
		if u == 0 {
			r.Errorf("port %d: no UDP datagram on the wire", port)
		}
		if t > 0 {
			r.Errorf("port %d: %d TCP segments on the wire, the first: %s", port, t, tcp.first())
		}
	})
}

func (r *Rig) unwatched(port int, err error) {
	r.Helper()
	if unix.Geteuid() == 0 {
		r.Fatalf("watch port %d: %v", port, err)
	}
	r.Logf("port %d is not watched on the wire, that needs CAP_NET_RAW: %v", port, err)
}

func newCounter(proto uint32, port int) (_ *counter, err error) {
	// Protocol 0 receives nothing until bind, when the filter is in place.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	raw, err := bpf.Assemble(portFilter(proto, uint32(port)))
	if err != nil {
		return nil, err
	}
	filter := make([]unix.SockFilter, len(raw))
	for i, in := range raw {
		filter[i] = unix.SockFilter{Code: in.Op, Jt: in.Jt, Jf: in.Jf, K: in.K}
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &prog); err != nil {
		return nil, fmt.Errorf("attach filter: %w", err)
	}
	// Else loopback shows each packet twice.
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1); err != nil {
		return nil, fmt.Errorf("ignore outgoing: %w", err)
	}
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		return nil, err
	}
	all := uint16(unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8) // network byte order
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: lo.Index}); err != nil {
		return nil, fmt.Errorf("bind: %w", err)
	}
	return &counter{fd: fd}, nil
}

// portFilter passes IPv4 and IPv6 packets of the protocol from or to the port.
// Offsets count from the network header, as SOCK_DGRAM packet sockets do.
func portFilter(proto, port uint32) []bpf.Instruction {
	return []bpf.Instruction{
		0: bpf.LoadExtension{Num: bpf.ExtProto},
		1: bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.ETH_P_IP, SkipFalse: 7},
		// IPv4: the ports stand behind a header that tells its own length.
		2: bpf.LoadAbsolute{Off: 9, Size: 1},
		3: bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: proto, SkipTrue: 13},
		4: bpf.LoadMemShift{Off: 0},
		5: bpf.LoadIndirect{Off: 0, Size: 2},
		6: bpf.JumpIf{Cond: bpf.JumpEqual, Val: port, SkipTrue: 9},
		7: bpf.LoadIndirect{Off: 2, Size: 2},
		8: bpf.Jump{Skip: 6},
		// IPv6: a fixed header; nothing on loopback has extensions.
		9:  bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.ETH_P_IPV6, SkipTrue: 7},
		10: bpf.LoadAbsolute{Off: 6, Size: 1},
		11: bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: proto, SkipTrue: 5},
		12: bpf.LoadAbsolute{Off: 40, Size: 2},
		13: bpf.JumpIf{Cond: bpf.JumpEqual, Val: port, SkipTrue: 2},
		14: bpf.LoadAbsolute{Off: 42, Size: 2},
		15: bpf.JumpIf{Cond: bpf.JumpEqual, Val: port, SkipFalse: 1},
		16: bpf.RetConstant{Val: 128},
		17: bpf.RetConstant{Val: 0},
	}
}

// read returns how many packets have passed so far.
func (c *counter) read() uint32 {
	st, err := unix.GetsockoptTpacketStats(c.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err == nil {
		c.total += st.Packets // dropped ones are counted in
	}
	return c.total
}

// first tells the beginning of the first packet that passed.
func (c *counter) first() string {
	buf := make([]byte, 60)
	n, _, err := unix.Recvfrom(c.fd, buf, 0)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("% x", buf[:n])
}

func (c *counter) close() { unix.Close(c.fd) }
