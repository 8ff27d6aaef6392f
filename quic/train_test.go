package quic

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// readPackets reads n packets as quic-go does, room of them at a time.
func readPackets(t *testing.T, s *socket, n, room int) (packets [][]byte, tos []byte, reads int) {
	t.Helper()
	ms := make([]ipv4.Message, room)
	for i := range ms {
		ms[i].Buffers, ms[i].OOB = [][]byte{make([]byte, 1452)}, make([]byte, 128)
	}
	s.cur.Load().SetReadDeadline(time.Now().Add(5 * time.Second))
	for len(packets) < n {
		got, err := s.ReadBatch(ms, 0)
		if err != nil {
			t.Fatalf("after %d packets: %v", len(packets), err)
		}
		reads++
		for _, m := range ms[:got] {
			packets = append(packets, bytes.Clone(m.Buffers[0][:m.N]))
			cmsgs, err := unix.ParseSocketControlMessage(m.OOB[:m.NN])
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range cmsgs {
				if c.Header.Level == unix.IPPROTO_IP && c.Header.Type == unix.IP_TOS {
					tos = append(tos, c.Data[0])
				}
			}
		}
	}
	return packets, tos, reads
}

// A train that the sender made with UDP_SEGMENT arrives as its packets, with the
// octets, the sender and the ECN bits of each, however few are asked for.
func TestTrains(t *testing.T) {
	for _, gro := range []bool{true, false} {
		name := map[bool]string{true: "gro", false: "no gro"}[gro]
		t.Run(name, func(t *testing.T) {
			useGRO = gro
			defer func() { useGRO = true }()
			to, from := trainSockets(t)
			const size, packets = 1200, 20
			want := sendTrain(t, from, to, size, packets-1, 7)
			var trains int
			ended := countTrains(to, &trains)
			got, tos, _ := readPackets(t, to, packets, 3)
			ended()
			for i := range want {
				if !bytes.Equal(got[i], want[i]) {
					t.Errorf("packet %d: %d octets, want %d, or others", i, len(got[i]), len(want[i]))
				}
			}
			if !bytes.Equal(tos, bytes.Repeat([]byte{1}, packets)) {
				t.Errorf("ECN bits %v, want 1 for each packet", tos)
			}
			if gro && trains != 1 {
				t.Errorf("%d reads, want 1", trains)
			} else if !gro && trains < packets/maxTrains {
				t.Errorf("%d reads without UDP_GRO: it is on", trains)
			}
			if a, b := to.from.addr.AddrPort(), from.LocalAddr().(*net.UDPAddr).AddrPort(); a != b {
				t.Errorf("from %v, want %v", a, b)
			}
		})
	}
}

func trainSockets(t *testing.T) (to *socket, from *net.UDPConn) {
	t.Helper()
	to, err := listenSocket(nil, netip.MustParseAddrPort("127.0.0.1:0"), ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { to.Close() })
	to.cur.Load().control(func(fd int) { err = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_RECVTOS, 1) })
	if err != nil {
		t.Fatal(err)
	}
	from, err = net.DialUDP("udp4", nil, to.LocalAddr().(*net.UDPAddr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { from.Close() })
	return to, from
}

// sendTrain sends full packets of size octets and one of last, in one datagram
// of the kernel's, marked ECT(1).
func sendTrain(t *testing.T, from *net.UDPConn, to *socket, size, full, last int) (packets [][]byte) {
	t.Helper()
	data := make([]byte, size*full+last)
	for i := range data {
		data[i] = byte(i * 7 / 5)
	}
	for p := data; len(p) > 0; p = p[min(size, len(p)):] {
		packets = append(packets, p[:min(size, len(p))])
	}
	raw, err := from.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_TOS, 1) })
	if err != nil {
		t.Fatal(err)
	}
	oob := make([]byte, unix.CmsgSpace(2))
	binary.NativeEndian.PutUint64(oob, uint64(unix.CmsgLen(2)))
	binary.NativeEndian.PutUint32(oob[8:], unix.SOL_UDP)
	binary.NativeEndian.PutUint32(oob[12:], unix.UDP_SEGMENT)
	binary.NativeEndian.PutUint16(oob[16:], uint16(size))
	if _, _, err := from.WriteMsgUDP(data, oob, nil); err != nil {
		t.Fatal(err)
	}
	return packets
}

// countTrains counts into n what s receives of the kernel's until ended is called.
func countTrains(s *socket, n *int) (ended func()) {
	u := s.cur.Load()
	u.recvmmsg = func(uintptr) bool {
		ready := u.tryReceive(0)
		if ready {
			*n++
		}
		return ready
	}
	return func() { u.recvmmsg = u.tryReceive }
}

// Trains of different senders do not mix, and an empty datagram is passed over.
func TestTrainsOfTwo(t *testing.T) {
	to, one := trainSockets(t)
	two, err := net.DialUDP("udp4", nil, to.LocalAddr().(*net.UDPAddr))
	if err != nil {
		t.Fatal(err)
	}
	defer two.Close()
	a := sendTrain(t, one, to, 1000, 3, 999)
	if _, err := two.Write(nil); err != nil {
		t.Fatal(err)
	}
	b := sendTrain(t, two, to, 500, 2, 1)
	got, _, _ := readPackets(t, to, len(a)+len(b), 8)
	for i, want := range append(a, b...) {
		if !bytes.Equal(got[i], want) {
			t.Errorf("packet %d: %d octets, want %d, or others", i, len(got[i]), len(want))
		}
	}
}

// Nothing is held while nothing comes: the wait ends with its deadline.
func TestTrainsDeadline(t *testing.T) {
	to, _ := trainSockets(t)
	to.cur.Load().SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if _, err := to.ReadBatch(make([]ipv4.Message, 1), 0); !os.IsTimeout(err) {
		t.Errorf("ReadBatch: %v, want a timeout", err)
	}
	if to.pending != nil {
		t.Error("a buffer is held")
	}
}
