package quic

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	quicgo "github.com/quic-go/quic-go"
)

// rawServer is a simple QUIC tool's: it serves each connection by serve and
// waits for the client to end it.
func rawServer(t *testing.T, alpn string, serve func(*quicgo.Conn, *quicgo.Stream)) netip.AddrPort {
	t.Helper()
	id, err := LoadIdentity("")
	if err != nil {
		t.Fatal(err)
	}
	conf := &tls.Config{Certificates: []tls.Certificate{id.cert}, NextProtos: []string{alpn}}
	l, err := quicgo.ListenAddr("127.0.0.1:0", conf, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			qc, err := l.Accept(context.Background())
			if err != nil {
				return
			}
			go func() {
				s, err := qc.AcceptStream(context.Background())
				if err == nil {
					serve(qc, s)
				}
			}()
		}
	}()
	return udpAddrPort(l.Addr())
}

func rawHost(t *testing.T) *Host {
	t.Helper()
	h, err := NewHost(Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(n)}).Read(b)
	return b
}

// TestRaw carries bytes both ways on connections of their own, which end by
// themselves when the server has everything.
func TestRaw(t *testing.T) {
	ends := make(chan error, 2)
	addr := rawServer(t, "echo", func(qc *quicgo.Conn, s *quicgo.Stream) {
		io.Copy(s, s)
		s.Close()
		<-qc.Context().Done()
		ends <- context.Cause(qc.Context())
	})
	h := rawHost(t)
	p := Peer{Remote: addr, Raw: true, ALPN: "echo"}
	for range 2 {
		st, err := h.Dial(t.Context(), p, 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		if len(h.pool) != 0 {
			t.Error("it is in the pool")
		}
		want := random(3 << 20)
		go func() {
			st.Write(want)
			st.CloseWrite()
		}()
		got, err := io.ReadAll(st)
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%d octets of %d, %v", len(got), len(want), err)
		}
		select {
		case err := <-ends:
			var ae *quicgo.ApplicationError
			if !errors.As(err, &ae) || ae.ErrorCode != connDone {
				t.Errorf("the connection ends with %v", err)
			}
		case <-time.After(lingerTime + 10*time.Second): // when the echo was quicker than the acknowledgements
			t.Fatal("the connection does not end")
		}
	}
}

// TestRawDelivers: the connection stays until a slow reader has what was
// written, long after the program has closed its socket.
func TestRawDelivers(t *testing.T) {
	closed := make(chan struct{})
	got := make(chan []byte, 1)
	addr := rawServer(t, "sink", func(qc *quicgo.Conn, s *quicgo.Stream) {
		s.Close() // its own direction ends first
		first := make([]byte, 1)
		io.ReadFull(s, first)
		<-closed
		for range 20 { // the client's end of the stream is over all this time
			if qc.Context().Err() != nil {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		rest, _ := io.ReadAll(s)
		got <- append(first, rest...)
	})
	h := rawHost(t)
	st, err := h.Dial(t.Context(), Peer{Remote: addr, Raw: true, ALPN: "sink"}, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := random(400 << 10) // less than the server's window
	if _, err := st.Write(want); err != nil {
		t.Fatal(err)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	close(closed)
	if all := <-got; !bytes.Equal(all, want) {
		t.Errorf("%d octets of %d", len(all), len(want))
	}
}

// TestRawOther: another protocol there is told as such, and nothing there is a
// refusal.
func TestRawOther(t *testing.T) {
	addr := rawServer(t, "other", func(*quicgo.Conn, *quicgo.Stream) {})
	h := rawHost(t)
	if _, err := h.Dial(t.Context(), Peer{Remote: addr, Raw: true, ALPN: "echo"}, 1, nil); !errors.Is(err, ErrNotPoemq) || !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("another protocol: %v", err)
	}
	if _, err := h.Dial(t.Context(), Peer{Remote: netip.MustParseAddrPort("127.0.0.1:9"), Raw: true, ALPN: "echo"}, 1, nil); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("nobody: %v", err)
	}
	// The key was pinned by neither; a wrong one is refused.
	p := Peer{Remote: addr, Raw: true, ALPN: "other", Expect: "sha256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}
	if _, err := h.Dial(t.Context(), p, 1, nil); !errors.Is(err, ErrIdentity) {
		t.Errorf("another key: %v", err)
	}
}

// TestMergeSpans takes acknowledgements in any order.
func TestMergeSpans(t *testing.T) {
	var list []span
	for _, s := range []span{{10, 20}, {40, 50}, {0, 5}, {5, 10}, {60, 70}, {15, 45}, {50, 50}} {
		list = merge(list, s)
	}
	if len(list) != 2 || list[0] != (span{0, 50}) || list[1] != (span{60, 70}) {
		t.Errorf("%v", list)
	}
}
