package quic

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestCloseAndListenAgain: closing an endpoint refuses at once, also on the
// pooled connection; a living stream goes on and keeps the socket; the address
// can be listened on again meanwhile; the last stream frees the port.
func TestCloseAndListenAgain(t *testing.T) {
	h := testHost(t, nil)
	e, got := listen(t, h, "127.0.0.1:0", ListenOptions{})
	client := testHost(t, nil)
	st := dial(t, client, e.Addr())
	srv := <-got

	e.Close()
	for range 2 { // pooled connection, then a new one
		start := time.Now()
		_, err := client.Dial(testContext(t), Peer{Remote: e.Addr()}, 1, nil)
		wantErrno(t, err, unix.ECONNREFUSED)
		if d := time.Since(start); d > time.Second {
			t.Errorf("refused after %v", d)
		}
	}
	st.Write([]byte("alive"))
	buf := make([]byte, 5)
	if _, err := io.ReadFull(srv, buf); err != nil || string(buf) != "alive" {
		t.Fatalf("living stream: %q, %v", buf, err)
	}

	e2, got2 := listen(t, h, e.Addr().String(), ListenOptions{})
	st2 := dial(t, client, e.Addr())
	srv2 := <-got2
	e.Close() // the old handle has no say any more
	st2.Write([]byte("again"))
	if _, err := io.ReadFull(srv2, buf); err != nil || string(buf) != "again" {
		t.Fatalf("new stream: %q, %v", buf, err)
	}

	e2.Close()
	for _, s := range []*Stream{st, srv, st2, srv2} {
		s.CloseWrite()
	}
	for _, s := range []*Stream{st, srv, st2, srv2} {
		if _, err := io.ReadAll(s); err != nil {
			t.Error(err)
		}
	}
	select {
	case <-e2.Released():
	case <-time.After(5 * time.Second):
		t.Fatal("UDP socket not released")
	}
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(e.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

// TestWriteCloseExit: a server program writes, closes, and its broker ends at
// once; the client, who reads late, gets it all. Both ways round.
func TestWriteCloseExit(t *testing.T) {
	for _, who := range []string{"server", "client"} {
		t.Run(who+" writes", func(t *testing.T) {
			hs, hc := testHost(t, nil), testHost(t, nil)
			e, got := listen(t, hs, "127.0.0.1:0", ListenOptions{})
			w, r := dial(t, hc, e.Addr()), <-got
			h := hc
			if who == "server" {
				w, r, h = r, w, hs
			}
			const size = 3 << 20
			done := make(chan error, 1)
			go func() {
				w.Write(make([]byte, size))
				w.Close()
				ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
				defer cancel()
				done <- errors.Join(h.Drain(ctx), h.Close())
			}()
			r.CloseWrite()
			n, err := io.Copy(io.Discard, r)
			if n != size || err != nil {
				t.Errorf("%d of %d octets, %v", n, size, err)
			}
			if err := <-done; err != nil {
				t.Errorf("drain: %v", err)
			}
		})
	}
}

func TestHostClosed(t *testing.T) {
	hs, hc := testHost(t, nil), testHost(t, nil)
	e, got := listen(t, hs, "127.0.0.1:0", ListenOptions{})
	st := dial(t, hc, e.Addr())
	<-got
	hs.Close()
	if _, err := st.Read(make([]byte, 1)); !errors.Is(err, ErrLost) {
		t.Errorf("read: %v", err)
	}
	if _, err := st.Write(make([]byte, 1)); !errors.Is(err, ErrLost) {
		t.Errorf("write: %v", err)
	}
	if _, err := hs.Dial(testContext(t), Peer{Remote: e.Addr()}, 1, nil); !errors.Is(err, ErrHostClosed) {
		t.Errorf("dial: %v", err)
	}
	if _, err := hs.Listen(nil, e.Addr(), ListenOptions{}, nil); !errors.Is(err, ErrHostClosed) {
		t.Errorf("listen: %v", err)
	}
	_, err := hc.Dial(testContext(t), Peer{Remote: e.Addr()}, 1, nil)
	wantErrno(t, err, unix.ECONNREFUSED)
}

// TestPoolIdle: a connection without streams is closed after PoolIdle, and the
// next dial makes another.
func TestPoolIdle(t *testing.T) {
	hs := testHost(t, nil)
	e, got := listen(t, hs, "127.0.0.1:0", ListenOptions{})
	hc := testHost(t, func(c *Config) { c.PoolIdle = 10 * time.Millisecond })
	st := dial(t, hc, e.Addr())
	srv := <-got
	hc.mu.Lock()
	l := hc.pool[poolKey{ns: Peer{}.NS.ID(), remote: e.Addr()}][0]
	hc.mu.Unlock()
	st.Close()
	srv.Close()
	select {
	case <-l.gone:
	case <-time.After(5 * time.Second):
		t.Fatal("idle connection stays")
	}
	dial(t, hc, e.Addr())
}

// TestGiveUp: the end of the dial's context reaches the accepting side.
func TestGiveUp(t *testing.T) {
	in := make(chan *Incoming, 1)
	e, err := testHost(t, nil).Listen(nil, addrPort("127.0.0.1:0"), ListenOptions{}, func(i *Incoming) { in <- i })
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	h := testHost(t, nil)
	go func() {
		_, err := h.Dial(ctx, Peer{Remote: e.Addr()}, 9, nil)
		failed <- err
	}()
	i := <-in
	cancel()
	wantErrno(t, <-failed, unix.ECANCELED)
	<-i.Done()
	if _, err := i.Accept(); err == nil {
		t.Error("accepted a stream that was given up")
	}
}
