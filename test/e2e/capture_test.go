package e2e

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// capture counts the packets of one port, on one interface.
//
// Two AF_PACKET sockets, each with a filter for one protocol, and nobody reads
// them: the kernel itself counts what passed the filter (PACKET_STATISTICS,
// packet(7)), also when the queue is full, so nothing can be missed however
// fast the transfer is. On lo each packet is seen twice, on its way out and in.
type capture struct {
	port     int
	udp, tcp int // sockets
}

// capture starts counting; it needs root.
func (l *link) capture(t *testing.T, port int) *capture {
	t.Helper()
	needRoot(t, "packet captures")
	c := &capture{port: port}
	inNetns(t, l.server.netns, func() error {
		var err error
		if c.udp, err = packetSocket(l.iface, unix.IPPROTO_UDP, port); err != nil {
			return err
		}
		c.tcp, err = packetSocket(l.iface, unix.IPPROTO_TCP, port)
		return err
	})
	t.Cleanup(func() {
		unix.Close(c.udp)
		unix.Close(c.tcp)
	})
	return c
}

// onlyUDP wants that datagrams were seen and not one TCP segment. (Natively it
// is the other way round.)
func (c *capture) onlyUDP(t *testing.T) {
	t.Helper()
	udp, tcp := count(t, c.udp), count(t, c.tcp)
	t.Logf("port %d: %d UDP packets, %d TCP segments", c.port, udp, tcp)
	if native {
		udp, tcp = tcp, udp
	}
	if udp == 0 {
		t.Errorf("port %d: no UDP packet was seen", c.port)
	}
	if tcp != 0 {
		t.Errorf("port %d: %d TCP segments were seen, want none; the first: %s", c.port, tcp, first(c.tcp))
	}
}

// count is the number of packets that passed the socket's filter.
func count(t *testing.T, fd int) uint32 {
	t.Helper()
	s, err := unix.GetsockoptTpacketStats(fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil {
		t.Fatal(err)
	}
	return s.Packets // dropped ones included
}

// first shows the first packet still in a socket's queue.
func first(fd int) string {
	buf := make([]byte, 64)
	n, _, err := unix.Recvfrom(fd, buf, unix.MSG_DONTWAIT)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("% x", buf[:n])
}

// packetSocket opens an AF_PACKET socket that takes one protocol and port.
func packetSocket(iface string, protocol uint32, port int) (fd int, err error) {
	// Protocol 0: nothing arrives until the filter is in place and bind
	// names the interface.
	fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket(AF_PACKET)", err)
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	filter, err := portFilter(protocol, uint32(port))
	if err != nil {
		return -1, err
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &program); err != nil {
		return -1, os.NewSyscallError("SO_ATTACH_FILTER", err)
	}
	dev, err := net.InterfaceByName(iface)
	if err != nil {
		return -1, err
	}
	all := uint16(unix.ETH_P_ALL)
	addr := &unix.SockaddrLinklayer{Protocol: all<<8 | all>>8, Ifindex: dev.Index}
	return fd, os.NewSyscallError("bind", unix.Bind(fd, addr))
}

// portFilter accepts 64 bytes of IPv4 (first fragments) and IPv6 packets (no
// extension headers) of a protocol whose source or destination port is port.
// A SOCK_DGRAM packet socket starts at the IP header.
func portFilter(protocol, port uint32) ([]unix.SockFilter, error) {
	const accept, refuse = 19, 20
	to := func(from, target int) uint8 { return uint8(target - from - 1) }
	raw, err := bpf.Assemble([]bpf.Instruction{
		0:  bpf.LoadAbsolute{Off: 0, Size: 1},
		1:  bpf.ALUOpConstant{Op: bpf.ALUOpShiftRight, Val: 4},
		2:  bpf.JumpIf{Cond: bpf.JumpEqual, Val: 4, SkipTrue: to(2, 4)},
		3:  bpf.JumpIf{Cond: bpf.JumpEqual, Val: 6, SkipTrue: to(3, 13), SkipFalse: to(3, refuse)},
		4:  bpf.LoadAbsolute{Off: 9, Size: 1},
		5:  bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: protocol, SkipTrue: to(5, refuse)},
		6:  bpf.LoadAbsolute{Off: 6, Size: 2},
		7:  bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: 0x1fff, SkipTrue: to(7, refuse)},
		8:  bpf.LoadMemShift{Off: 0},
		9:  bpf.LoadIndirect{Off: 0, Size: 2},
		10: bpf.JumpIf{Cond: bpf.JumpEqual, Val: port, SkipTrue: to(10, accept)},
		11: bpf.LoadIndirect{Off: 2, Size: 2},
		12: bpf.JumpIf{Cond: bpf.JumpEqual, Val: port, SkipTrue: to(12, accept), SkipFalse: to(12, refuse)},
		13: bpf.LoadAbsolute{Off: 6, Size: 1},
		14: bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: protocol, SkipTrue: to(14, refuse)},
		15: bpf.LoadAbsolute{Off: 40, Size: 2},
		16: bpf.JumpIf{Cond: bpf.JumpEqual, Val: port, SkipTrue: to(16, accept)},
		17: bpf.LoadAbsolute{Off: 42, Size: 2},
		18: bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: port, SkipTrue: to(18, refuse)},
		19: bpf.RetConstant{Val: 64},
		20: bpf.RetConstant{Val: 0},
	})
	if err != nil {
		return nil, err
	}
	filter := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		filter[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	return filter, nil
}

// inNetns runs f on a thread inside a named network namespace (empty: here).
// The thread is not used again: the runtime ends a locked thread with its
// goroutine.
func inNetns(t *testing.T, name string, f func() error) {
	t.Helper()
	done := make(chan error)
	go func() {
		if name == "" {
			done <- f()
			return
		}
		runtime.LockOSThread()
		ns, err := os.Open("/run/netns/" + name)
		if err == nil {
			err = os.NewSyscallError("setns", unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET))
			ns.Close()
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// TestCapture shows that the captures which the other tests rest on see UDP and
// TCP, IPv4 and IPv6, on their port and only there.
func TestCapture(t *testing.T) {
	l := loopback(t)
	for _, addr := range []string{l.server.v4, l.server.v6} {
		port := freePort(t)
		seen, elsewhere := l.capture(t, port), l.capture(t, freePort(t))
		for _, network := range []string{"udp", "tcp"} {
			c, err := net.Dial(network, hostPort(addr, port))
			if err != nil {
				continue // TCP: refused, by a segment
			}
			c.Write([]byte("x"))
			c.Close()
		}
		// Out and in: a datagram, and a SYN with the RST that answers it.
		if udp, tcp := count(t, seen.udp), count(t, seen.tcp); udp != 2 || tcp != 4 {
			t.Errorf("%s: %d UDP packets and %d TCP segments, want 2 and 4", addr, udp, tcp)
		}
		if udp, tcp := count(t, elsewhere.udp), count(t, elsewhere.tcp); udp+tcp != 0 {
			t.Errorf("%s: %d UDP packets and %d TCP segments on a port nobody uses", addr, udp, tcp)
		}
	}
}
