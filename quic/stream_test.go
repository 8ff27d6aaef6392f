package quic

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

func TestFIN(t *testing.T) {
	client, server := pair(t)
	client.Write([]byte("ping"))
	client.CloseWrite()
	if err := client.CloseWrite(); err != nil {
		t.Errorf("second CloseWrite: %v", err)
	}
	if b, err := io.ReadAll(server); string(b) != "ping" || err != nil {
		t.Fatalf("server read %q, %v", b, err)
	}
	server.Write([]byte("pong")) // half-closed: the other way still works
	server.CloseWrite()
	if b, err := io.ReadAll(client); string(b) != "pong" || err != nil {
		t.Fatalf("client read %q, %v", b, err)
	}
	if n := client.Stats().Streams; n != 0 {
		t.Errorf("%d streams counted after the end", n)
	}
}

// TestReset: what was written before the reset arrives, then ErrReset; and the
// other direction is dead.
func TestReset(t *testing.T) {
	for _, size := range []int{0, 1, 1000, 300_000} {
		for _, closed := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d octets, FIN %v", size, closed), func(t *testing.T) {
				client, server := pair(t)
				sent := bytes.Repeat([]byte("x"), size)
				if _, err := client.Write(sent); err != nil {
					t.Fatal(err)
				}
				if closed {
					client.CloseWrite()
				}
				client.Reset()
				b, err := io.ReadAll(server)
				if !bytes.Equal(b, sent) {
					t.Errorf("%d of %d octets arrived", len(b), size)
				}
				if !closed && !errors.Is(err, ErrReset) { // after a FIN either may come first
					t.Errorf("read ends with %v", err)
				}
				<-server.WriteDone()
				if _, err := server.Write([]byte("x")); !errors.Is(err, ErrReset) {
					t.Errorf("write after reset: %v", err)
				}
				if _, err := client.Write([]byte("x")); err == nil {
					t.Error("own write after reset succeeds")
				}
			})
		}
	}
}

func TestStopRead(t *testing.T) {
	client, server := pair(t)
	server.StopRead()
	var err error
	for err == nil { // ends: the window is finite
		_, err = client.Write(make([]byte, 4096))
	}
	if !errors.Is(err, ErrStopped) || !errors.Is(client.WriteErr(), ErrStopped) {
		t.Errorf("write: %v, %v", err, client.WriteErr())
	}
	server.Write([]byte("still")) // the other direction is not affected
	server.CloseWrite()
	if b, err := io.ReadAll(client); string(b) != "still" || err != nil {
		t.Errorf("read %q, %v", b, err)
	}
}

func TestReadDeadline(t *testing.T) {
	client, server := pair(t)
	client.SetReadDeadline(time.Now())
	if _, err := client.Read(make([]byte, 1)); !isTimeout(err) {
		t.Fatal(err)
	}
	client.SetReadDeadline(time.Time{})
	server.Write([]byte("x"))
	if _, err := client.Read(make([]byte, 1)); err != nil {
		t.Errorf("after a deadline: %v", err)
	}
}

func TestTransfer100MB(t *testing.T) {
	client, server := pair(t)
	const size = 100 << 20
	start := time.Now()
	want := make(chan []byte, 1)
	go func() {
		h := sha256.New()
		src := io.LimitReader(rand.NewChaCha8([32]byte{1}), size)
		if _, err := io.CopyBuffer(client, io.TeeReader(src, h), make([]byte, 64<<10)); err != nil {
			t.Error(err)
		}
		client.CloseWrite()
		want <- h.Sum(nil)
	}()
	h := sha256.New()
	n, err := io.Copy(h, server)
	if n != size || err != nil {
		t.Fatalf("%d octets, %v", n, err)
	}
	if !bytes.Equal(h.Sum(nil), <-want) {
		t.Error("checksum differs")
	}
	d := time.Since(start)
	t.Logf("%v, %.0f Mbit/s, %+v", d, size*8/d.Seconds()/1e6, server.Stats())
}

// Test1000Streams: all on one connection, all kept, each echoes its own.
func Test1000Streams(t *testing.T) {
	e, err := testHost(t, nil).Listen(nil, addrPort("127.0.0.1:0"), ListenOptions{}, func(in *Incoming) {
		st, err := in.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		io.Copy(st, st)
		st.CloseWrite()
	})
	if err != nil {
		t.Fatal(err)
	}
	h := testHost(t, func(c *Config) { c.MaxConnections = 1 })
	const n = 1000
	streams := make([]*Stream, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			st, err := h.Dial(testContext(t), Peer{Remote: e.Addr()}, uint16(i+1), nil)
			if err != nil {
				t.Error(err)
				return
			}
			streams[i] = st
			fmt.Fprintf(st, "%08d", i)
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	if got := streams[0].Stats().Streams; got != n {
		t.Errorf("%d streams on the connection", got)
	}
	for i, st := range streams {
		st.CloseWrite()
		if b, err := io.ReadAll(st); string(b) != fmt.Sprintf("%08d", i) || err != nil {
			t.Fatalf("stream %d: %q, %v", i, b, err)
		}
	}
}

// TestStuckStreams: streams nobody reads do not stop the others of the
// connection.
func TestStuckStreams(t *testing.T) {
	e, got := listen(t, testHost(t, nil), "127.0.0.1:0", ListenOptions{})
	h := testHost(t, nil)
	for range 40 { // 20 MB unread: more than quic-go's connection window
		st := dial(t, h, e.Addr())
		st.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
		if _, err := st.Write(make([]byte, 600<<10)); !isTimeout(err) {
			t.Fatalf("write to a reader who never reads: %v", err)
		}
		<-got
	}
	st := dial(t, h, e.Addr())
	srv := <-got
	go func() {
		st.Write(make([]byte, 4<<20))
		st.CloseWrite()
	}()
	srv.SetReadDeadline(time.Now().Add(20 * time.Second))
	if n, err := io.Copy(io.Discard, srv); n != 4<<20 || err != nil {
		t.Errorf("%d octets, %v", n, err)
	}
}
