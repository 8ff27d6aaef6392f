package broker

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/poemq/poemq/quic"
)

// ways makes connections of each kind: the outer end is the program's, the
// inner one the pump's.
var ways = map[string]func(*testing.T) (outer, inner transport){
	"tcp":  tcpWay,
	"quic": quicWay,
}

func tcpWay(t *testing.T) (outer, inner transport) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	outer, err = dialPlain(t.Context(), l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return outer, newTCP(c.(*net.TCPConn))
}

func quicWay(t *testing.T) (outer, inner transport) {
	t.Helper()
	h, err := quic.NewHost(quic.Config{NoFastOpen: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	arrived := make(chan *quic.Stream, 1)
	e, err := h.Listen(nil, netip.MustParseAddrPort("127.0.0.1:0"), quic.ListenOptions{}, func(in *quic.Incoming) {
		st, err := in.Accept()
		if err != nil {
			t.Error(err)
		}
		arrived <- st
	})
	if err != nil {
		t.Fatal(err)
	}
	outer, err = h.Dial(t.Context(), quic.Peer{Remote: e.UDPAddr()}, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	return outer, <-arrived
}

// pumped runs f with the outer ends of a pump of each combination, and demands
// that the pump ends within patience after it.
func pumped(t *testing.T, f func(t *testing.T, x, y transport, stop func())) {
	for a, wayA := range ways {
		for b, wayB := range ways {
			t.Run(a+"-"+b, func(t *testing.T) {
				x, innerX := wayA(t)
				y, innerY := wayB(t)
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				over := make(chan struct{})
				go func() {
					carryBoth(ctx, innerX, innerY)
					close(over)
				}()
				f(t, x, y, cancel)
				select {
				case <-over:
				case <-time.After(4 * time.Second): // less than readWait
					t.Error("the pump does not end")
					cancel()
					<-over
				}
				x.Close()
				y.Close()
			})
		}
	}
}

// some are n octets that no other call gives.
func some(n int) []byte {
	b := make([]byte, n)
	c := rand.NewChaCha8(sha256.Sum256([]byte(time.Now().String())))
	c.Read(b)
	return b
}

// sent writes p from another goroutine.
func sent(t *testing.T, to transport, p []byte, then func()) {
	go func() {
		if _, err := to.Write(p); err != nil {
			t.Error("write:", err)
		}
		then()
	}()
}

// arrives wants p and then end, nil being the end of file, from a transport.
func arrives(t *testing.T, from transport, p []byte, end error) {
	t.Helper()
	got, err := io.ReadAll(struct{ io.Reader }{from})
	if !bytes.Equal(got, p) {
		t.Errorf("%d octets arrive, or others, want %d", len(got), len(p))
	}
	if !errors.Is(err, end) {
		t.Errorf("ends with %v, want %v", err, end)
	}
}

func closeWrite(t *testing.T, w transport) func() {
	return func() {
		if err := w.CloseWrite(); err != nil {
			t.Error("FIN:", err)
		}
	}
}

// hardEnd is a reset once the kernel has handed everything over.
func hardEnd(w transport) func() {
	return func() {
		if tcp, ok := w.(*tcpTransport); ok {
			tcp.awaitSent(context.Background())
		}
		w.Reset()
	}
}

func TestPumpHalfClose(t *testing.T) {
	pumped(t, func(t *testing.T, x, y transport, _ func()) {
		question, answer := some(3<<20), some(2<<20)
		sent(t, x, question, closeWrite(t, x))
		arrives(t, y, question, nil)
		sent(t, y, answer, closeWrite(t, y)) // long after the FIN of the other
		arrives(t, x, answer, nil)
	})
}

func TestPumpBothAtOnce(t *testing.T) {
	pumped(t, func(t *testing.T, x, y transport, _ func()) {
		one, other := some(5<<20), some(4<<20)
		sent(t, x, one, closeWrite(t, x))
		sent(t, y, other, closeWrite(t, y))
		arrives(t, y, one, nil)
		arrives(t, x, other, nil)
	})
}

// TestPumpReset: what was written before a reset arrives, and then the reset.
func TestPumpReset(t *testing.T) {
	pumped(t, func(t *testing.T, x, y transport, _ func()) {
		if tcp, ok := y.(*tcpTransport); ok {
			tcp.SetReadBuffer(64 << 10) // much waits in the pump's kernel socket
		}
		before := some(1 << 20)
		sent(t, x, before, hardEnd(x))
		arrives(t, y, before, quic.ErrReset)
	})
}

// TestPumpResetAfterFIN: the answer may be cut after the question has ended.
func TestPumpResetAfterFIN(t *testing.T) {
	pumped(t, func(t *testing.T, x, y transport, _ func()) {
		question, part := some(1000), some(100000)
		sent(t, x, question, closeWrite(t, x))
		arrives(t, y, question, nil)
		sent(t, y, part, hardEnd(y))
		arrives(t, x, part, quic.ErrReset)
	})
}

// TestPumpClosedReader: who writes to a program that has closed its socket
// learns it by writing, after the end of file.
func TestPumpClosedReader(t *testing.T) {
	pumped(t, func(t *testing.T, x, y transport, _ func()) {
		last := some(1000)
		sent(t, y, last, func() { y.Close() })
		arrives(t, x, last, nil)
		deadline := time.Now().Add(3 * time.Second)
		piece := some(1000)
		var err error
		for err == nil && time.Now().Before(deadline) {
			if _, err = x.Write(piece); err == nil {
				time.Sleep(time.Millisecond) // the news takes its time
			}
		}
		if !errors.Is(err, quic.ErrStopped) && !errors.Is(err, quic.ErrReset) {
			t.Errorf("writing gives %v", err)
		}
	})
}

// TestPumpStops: the end of the broker is no end of file.
func TestPumpStops(t *testing.T) {
	pumped(t, func(t *testing.T, x, y transport, stop func()) {
		hello := some(10)
		sent(t, x, hello, func() {})
		buf := make([]byte, 10)
		if _, err := io.ReadFull(y, buf); err != nil || !bytes.Equal(buf, hello) {
			t.Fatal(err)
		}
		stop()
		arrives(t, x, nil, quic.ErrReset)
		arrives(t, y, nil, quic.ErrReset)
	})
}

// TestTCPResetIsNoEnd: once a write has told of a reset, the kernel has reading
// find an end of file.
func TestTCPResetIsNoEnd(t *testing.T) {
	x, y := tcpWay(t)
	y.Reset()
	x.AwaitRead() // the reset is there
	if _, err := x.Write([]byte("x")); !errors.Is(err, quic.ErrReset) {
		t.Fatal(err)
	}
	if _, err := x.Read(make([]byte, 1)); !errors.Is(err, quic.ErrReset) {
		t.Errorf("reading gives %v", err)
	}
	x.Close()
}
