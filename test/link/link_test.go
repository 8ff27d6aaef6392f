package link

import (
	"encoding/binary"
	"math"
	"net"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// newLink makes a link and a UDP socket on each host.
func newLink(t *testing.T, p Params) (l *Link, a, b *net.UDPConn) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root; run the tests as root to include this one")
	}
	l, err := New("a", "b", p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l, socketOn(t, l.A), socketOn(t, l.B)
}

func socketOn(t *testing.T, h *Host) (c *net.UDPConn) {
	t.Helper()
	err := h.Do(func() (err error) {
		c, err = net.ListenUDP("udp4", &net.UDPAddr{IP: h.Addr.AsSlice()})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	// The emulator may be late on a busy machine; the queue must hold it.
	if err := c.SetReadBuffer(4 << 20); err != nil {
		t.Fatal(err)
	}
	return c
}

// send sends n datagrams of size octets (IP and UDP included), numbered and
// with their time, spaced by gap. It returns what came: the numbers in order,
// how long the quickest took, and the time from the first's start to the last's
// arrival.
func send(t *testing.T, from, to *net.UDPConn, n, size int, gap time.Duration) (ids []int, least, span time.Duration) {
	t.Helper()
	go func() {
		b := make([]byte, size-28)
		for i := range n {
			binary.BigEndian.PutUint32(b, uint32(i))
			binary.BigEndian.PutUint64(b[4:], uint64(monotonic()))
			if _, err := from.WriteToUDPAddrPort(b, to.LocalAddr().(*net.UDPAddr).AddrPort()); err != nil {
				return // the test has ended
			}
			if gap > 0 {
				time.Sleep(gap) // the load's pace, no synchronisation
			}
		}
	}()
	b := make([]byte, MTU)
	var first, last int64
	least = math.MaxInt64
	for len(ids) < n {
		// Silence for this long is the end.
		if err := to.SetReadDeadline(time.Now().Add(500 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if _, _, err := to.ReadFromUDPAddrPort(b); err != nil {
			break
		}
		last = monotonic()
		sent := int64(binary.BigEndian.Uint64(b[4:]))
		if first == 0 {
			first = sent
		}
		least = min(least, time.Duration(last-sent))
		ids = append(ids, int(binary.BigEndian.Uint32(b)))
	}
	return ids, least, time.Duration(last - first)
}

// eachWay runs a test for both directions of one link, with the parameters for
// the one under test alone.
func eachWay(t *testing.T, p Params, test func(t *testing.T, l *Link, d Direction, from, to *net.UDPConn)) {
	for _, d := range []Direction{AtoB, BtoA} {
		t.Run(d.String(), func(t *testing.T) {
			l, a, b := newLink(t, Params{})
			if err := l.Set(d, p); err != nil {
				t.Fatal(err)
			}
			if d == BtoA {
				a, b = b, a
			}
			test(t, l, d, a, b)
		})
	}
}

func TestDelay(t *testing.T) {
	const delay = 40 * time.Millisecond
	eachWay(t, Params{Delay: delay}, func(t *testing.T, _ *Link, _ Direction, from, to *net.UDPConn) {
		ids, least, _ := send(t, from, to, 50, 100, time.Millisecond)
		if len(ids) != 50 || least < delay-early || least > delay+5*time.Millisecond {
			t.Errorf("%d of 50 packets came, the quickest after %v, want %v", len(ids), least, delay)
		}
		if ids, least, _ := send(t, to, from, 10, 100, 0); len(ids) != 10 || least > delay/2 {
			t.Errorf("the other way: %d of 10 packets came, the quickest after %v, want no delay", len(ids), least)
		}
	})
}

func TestRate(t *testing.T) {
	const n, size, rate = 500, 1250, 20e6 // 10,000 bit each: 2000 a second
	eachWay(t, Params{Rate: rate, Queue: n * size}, func(t *testing.T, _ *Link, _ Direction, from, to *net.UDPConn) {
		ids, _, span := send(t, from, to, n, size, 0)
		got := float64(len(ids)) * size * 8 / span.Seconds()
		if len(ids) != n || got > rate*1.01 || got < rate*0.8 {
			t.Errorf("%d of %d packets came, at %.1f Mbit/s, want %.1f", len(ids), n, got/1e6, rate/1e6)
		}
	})
}

func TestQueueOverflows(t *testing.T) {
	const n, size = 100, 1000
	eachWay(t, Params{Rate: 1e6, Queue: 10 * size}, func(t *testing.T, l *Link, d Direction, from, to *net.UDPConn) {
		ids, _, _ := send(t, from, to, n, size, 0)
		if len(ids) < 10 || len(ids) > 20 { // some leave while others come
			t.Errorf("%d packets passed a queue for 10", len(ids))
		}
		if s := l.Stats(d); s.Overflowed != uint64(n-len(ids)) {
			t.Errorf("%d packets overflowed, the counts say %+v", n-len(ids), s)
		}
	})
}

func TestLossAndReordering(t *testing.T) {
	const n = 900 // fit into the device's queue
	p := Params{Loss: 0.1, Reorder: 0.1, Delay: 20 * time.Millisecond, Seed: 3}
	eachWay(t, p, func(t *testing.T, l *Link, d Direction, from, to *net.UDPConn) {
		ids, _, _ := send(t, from, to, n, 100, 0)
		if lost := n - len(ids); math.Abs(float64(lost)-n*p.Loss) > 36 { // 4 sigma
			t.Errorf("%d of %d packets were lost, want a tenth", lost, n)
		}
		overtook, least := 0, n
		for _, id := range slices.Backward(ids) {
			if id > least {
				overtook++
			}
			least = min(least, id)
		}
		if s := l.Stats(d); overtook < n/20 || s.Reordered < uint64(overtook) || s.Reordered > n/5 {
			t.Errorf("%d packets overtook others, want about a tenth; counted: %+v", overtook, s)
		}
	})
}

func TestCut(t *testing.T) {
	eachWay(t, Params{Delay: 100 * time.Millisecond}, func(t *testing.T, l *Link, d Direction, from, to *net.UDPConn) {
		done := make(chan struct{})
		time.AfterFunc(30*time.Millisecond, func() { l.Cut(d); close(done) })
		// The first is under way when the cut comes.
		if ids, _, _ := send(t, from, to, 2, 100, 60*time.Millisecond); len(ids) != 0 {
			t.Errorf("packets %v came through a cut", ids)
		}
		<-done
		if s := l.Stats(d); s.Cut != 2 {
			t.Errorf("2 packets were lost to the cut, counted: %+v", s)
		}
		if ids, _, _ := send(t, to, from, 5, 100, 0); len(ids) != 5 {
			t.Errorf("the way that is not cut lost packets: %v came of 5", ids)
		}
		l.Mend(d)
		if ids, _, _ := send(t, from, to, 5, 100, 0); len(ids) != 5 {
			t.Errorf("after the cut %v came of 5", ids)
		}
	})
}

// A middlebox sees packets, changes ports so that the kernel takes them, and
// refuses.
func TestThrough(t *testing.T) {
	l, a, b := newLink(t, Params{})
	wants, claims := a.LocalAddr().(*net.UDPAddr).AddrPort(), uint16(4242)
	l.Through(func(d Direction, p Packet) bool {
		if d == BtoA {
			return p.Protocol() != unix.IPPROTO_UDP
		}
		if p.Source() == wants {
			p.SetSourcePort(claims)
		}
		return true
	})
	if _, err := a.WriteToUDPAddrPort([]byte("hello"), b.LocalAddr().(*net.UDPAddr).AddrPort()); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	if err := b.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	n, from, err := b.ReadFromUDPAddrPort(buf)
	if err != nil || string(buf[:n]) != "hello" || from.Port() != claims {
		t.Errorf("got %q from %v, %v, want it from port %d", buf[:n], from, err, claims)
	}
	if ids, _, _ := send(t, b, a, 3, 100, 0); len(ids) != 0 || l.Stats(BtoA).Refused != 3 {
		t.Errorf("refused packets came: %v; %+v", ids, l.Stats(BtoA))
	}
	l.Through(nil)
	if ids, _, _ := send(t, b, a, 3, 100, 0); len(ids) != 3 {
		t.Errorf("without a middlebox %v came of 3", ids)
	}
}
