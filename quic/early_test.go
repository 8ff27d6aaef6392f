package quic

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// zeroRTT is a client that has a session with the server at addr, whose
// identity is kept in mine.
func zeroRTT(t *testing.T, mine string, addr netip.AddrPort) (*Host, Peer) {
	t.Helper()
	peer := Peer{Remote: addr, ZeroRTT: true}
	start := func() *Host {
		return testHost(t, func(c *Config) { c.Identity, c.MaxConnections = mustIdentity(t, mine), 1 })
	}
	c := start()
	if i := ask(t, c, peer); i.ZeroRTT {
		t.Fatal("0-RTT without a session")
	}
	kept(t, c, 1)
	c.Close()
	return start(), peer
}

// A socket that takes replays gets the data before anything went back.
func TestZeroRTT(t *testing.T) {
	server := testHost(t, nil)
	e, got := listen(t, server, "127.0.0.1:0", ListenOptions{ZeroRTT: true})
	proxy := newProxy(t, e.Addr())
	mine := t.TempDir()
	first := testHost(t, func(c *Config) { c.Identity = mustIdentity(t, mine) })
	peer := Peer{Remote: proxy.addr, ZeroRTT: true}
	if _, err := first.Dial(testContext(t), peer, 1, nil); err != nil {
		t.Fatal(err)
	}
	<-got
	kept(t, first, 1)
	first.Close()

	proxy.rule(nil, func([]byte) bool { return false })
	h := testHost(t, func(c *Config) { c.Identity = mustIdentity(t, mine) })
	st, err := h.Dial(testContext(t), peer, 40000, nil)
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(st, "early")
	srv := <-got
	b := make([]byte, 5)
	if _, err := io.ReadFull(srv, b); err != nil || string(b) != "early" {
		t.Fatalf("read %q, %v", b, err)
	}
	if i := h.Snapshot()[0]; !i.Handshaking || i.ZeroRTT {
		t.Errorf("before the answer: %+v", i)
	}
	io.WriteString(srv, "answer")
	srv.CloseWrite()
	proxy.rule(nil, func([]byte) bool { return true })
	if b, err := io.ReadAll(st); string(b) != "answer" || err != nil {
		t.Errorf("read %q, %v", b, err)
	}
	if i := h.Snapshot()[0]; i.Handshaking || !i.ZeroRTT || !i.Resumed {
		t.Errorf("after the answer: %+v", i)
	}
	if st.BytesWritten() != 5 || st.BytesRead() != 6 || srv.BytesRead() != 5 || srv.BytesWritten() != 6 {
		t.Errorf("counted %d and %d, %d and %d octets", st.BytesWritten(), st.BytesRead(), srv.BytesRead(), srv.BytesWritten())
	}
}

// Another socket waits for the proof that they are no replay, and so do the
// streams of programs that did not ask for 0-RTT on the client's side.
func TestZeroRTTWaits(t *testing.T) {
	t.Run("port of its own", func(t *testing.T) {
		e, got := listen(t, testHost(t, nil), "127.0.0.1:0", ListenOptions{})
		zeroRTTWaits(t, e, 0, got)
	})
	t.Run("port shared with one that takes replays", func(t *testing.T) {
		server := testHost(t, func(c *Config) { c.UDPPort = freeUDPPort(t) })
		listen(t, server, "127.0.0.1:80", ListenOptions{ZeroRTT: true})
		e, got := listen(t, server, "127.0.0.1:81", ListenOptions{})
		zeroRTTWaits(t, e, 81, got)
	})
}

func zeroRTTWaits(t *testing.T, e *Endpoint, port uint16, got chan *Stream) {
	to := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), e.UDPAddr().Port())
	proxy := newProxy(t, to)
	mine := t.TempDir()
	h := testHost(t, func(c *Config) { c.Identity = mustIdentity(t, mine) })
	peer := Peer{Remote: proxy.addr, ServerPort: port, ZeroRTT: true}
	if _, err := h.Dial(testContext(t), peer, 1, nil); err != nil {
		t.Fatal(err)
	}
	<-got
	kept(t, h, 1)
	h.Close()

	// The server's answers are held: the client cannot finish the handshake.
	answered := make(chan struct{}, 100)
	proxy.rule(nil, func([]byte) bool {
		select {
		case answered <- struct{}{}:
		default:
		}
		return false
	})
	h = testHost(t, func(c *Config) { c.Identity = mustIdentity(t, mine) })
	st, err := h.Dial(testContext(t), peer, 40000, nil)
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(st, "early")
	plain := make(chan error, 1)
	go func() {
		_, err := h.Dial(testContext(t), Peer{Remote: proxy.addr, ServerPort: port}, 40001, nil)
		plain <- err
	}()
	for range 3 { // the server has the data and waits
		<-answered
	}
	if len(got) != 0 || len(plain) != 0 {
		t.Fatal("given to the program before it is proved to be no replay, or sent as 0-RTT data unasked")
	}
	proxy.rule(nil, func([]byte) bool { return true })
	srv := <-got
	if srv.RemoteAddr().Port() != 40000 { // in no order
		srv = <-got
	}
	b := make([]byte, 5)
	if _, err := io.ReadFull(srv, b); err != nil || string(b) != "early" {
		t.Errorf("read %q, %v", b, err)
	}
	if err := <-plain; err != nil {
		t.Error(err)
	}
	if i := h.Snapshot()[0]; !i.ZeroRTT {
		t.Errorf("0-RTT was not accepted: %+v", i)
	}
}

// rejecting makes a server and a client with a session that the next server on
// the same address does not take for 0-RTT.
var rejecting = map[string]func(t *testing.T, theirs, addr string) *Host{
	"limits changed": func(t *testing.T, theirs, addr string) *Host {
		h, _ := echoServer(t, theirs, addr, ListenOptions{}, func(c *Config) { c.StreamWindow = 256 << 10 })
		return h
	},
	"tickets unknown": func(t *testing.T, theirs, addr string) *Host {
		any := netip.AddrPortFrom(netip.IPv4Unspecified(), addrPort(addr).Port())
		h, _ := echoServer(t, theirs, any.String(), ListenOptions{}, nil)
		return h
	},
}

// What a server rejects is sent again on the same connection; every octet comes
// once, however the stream goes on.
func TestZeroRTTRejected(t *testing.T) {
	for name, restart := range rejecting {
		t.Run(name, func(t *testing.T) {
			theirs := t.TempDir()
			server, addr := echoServer(t, theirs, "127.0.0.1:0", ListenOptions{}, nil)
			h, peer := zeroRTT(t, t.TempDir(), addr)
			server.Close()
			restart(t, theirs, addr.String())
			var wg sync.WaitGroup
			for n := range 20 {
				data := bytes.Repeat([]byte(fmt.Sprintf("%d: all that is sent early\n", n)), 1+n*1500) // up to 800 kB
				st, err := h.Dial(testContext(t), peer, 1, nil)
				if err != nil {
					t.Fatal(err)
				}
				wg.Go(func() {
					for rest := data; len(rest) > 0; {
						k, err := st.Write(rest[:min(len(rest), 5000)])
						if rest = rest[k:]; err != nil {
							t.Errorf("stream %d: %v", n, err)
							return
						}
					}
					st.CloseWrite()
				})
				wg.Go(func() {
					got, err := io.ReadAll(st)
					if err != nil || sha256.Sum256(got) != sha256.Sum256(data) {
						t.Errorf("stream %d: %d octets of %d came back, %v", n, len(got), len(data), err)
					}
				})
			}
			wg.Wait()
			i := h.Snapshot()
			if len(i) != 1 || i[0].ZeroRTT || i[0].Resumed != (name == "limits changed") {
				t.Errorf("%+v", i)
			}
			waitFor(t, "end of all streams", func() bool { return h.Snapshot()[0].Streams == 0 })
		})
	}
}

// A program that is through before the rejection is known: what it wrote
// arrives, with the end it chose.
func TestZeroRTTRejectedEndings(t *testing.T) {
	theirs := t.TempDir()
	server, addr := echoServer(t, theirs, "127.0.0.1:0", ListenOptions{}, nil)
	proxy := newProxy(t, addr)
	h, peer := zeroRTT(t, t.TempDir(), proxy.addr)
	server.Close()
	again := testHost(t, func(c *Config) {
		c.Identity = mustIdentity(t, theirs)
		c.StreamWindow = 256 << 10
	})
	got := make(chan *Stream, 10)
	e, err := again.Listen(nil, addr, ListenOptions{}, func(in *Incoming) {
		if st, err := in.Accept(); err == nil {
			got <- st
		} else if !errors.Is(err, ErrReset) {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	proxy.rule(nil, func([]byte) bool { return false })
	endings := map[string]struct {
		do  func(*Stream)
		err error
	}{
		"close":    {func(st *Stream) { st.Close() }, nil},
		"fin":      {func(st *Stream) { st.CloseWrite() }, nil},
		"reset":    {func(st *Stream) { st.Reset() }, ErrReset},
		"stopread": {func(st *Stream) { st.StopRead(); st.CloseWrite() }, nil},
	}
	for name, end := range endings {
		st, err := h.Dial(testContext(t), peer, 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(st, name); err != nil {
			t.Fatal(err)
		}
		end.do(st)
		if _, err := st.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s: writing afterwards: %v", name, err)
		}
		select {
		case <-st.WriteDone():
		default:
			t.Errorf("%s: WriteDone is open", name)
		}
		if name == "fin" {
			defer st.Reset()
		} else if _, err := st.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s: reading afterwards: %v", name, err)
		}
	}
	proxy.rule(nil, func([]byte) bool { return true })
	for left := 3; left > 0; { // the one that is reset may be gone before it is accepted
		srv := <-got
		b, err := io.ReadAll(srv)
		end, ok := endings[string(b)]
		if !ok || !errors.Is(err, end.err) {
			t.Errorf("the server reads %q, %v", b, err)
		}
		if string(b) != "reset" {
			left--
		}
		srv.Close()
	}
	waitFor(t, "end of the streams", func() bool { return h.Snapshot()[0].Streams <= 1 })
}

// A server with another key gets nothing that it can read, and nothing again.
func TestZeroRTTStranger(t *testing.T) {
	server, addr := echoServer(t, t.TempDir(), "127.0.0.1:0", ListenOptions{}, nil)
	proxy := newProxy(t, addr)
	h, peer := zeroRTT(t, t.TempDir(), proxy.addr)
	server.Close()
	_, got := listen(t, testHost(t, nil), addr.String(), ListenOptions{ZeroRTT: true})
	proxy.hold(true)
	st, err := h.Dial(testContext(t), peer, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(st, "secret")
	late := make(chan error, 1)
	go func() { // waits for the handshake, as it does not ask for 0-RTT
		_, err := h.Dial(testContext(t), Peer{Remote: proxy.addr}, 2, nil)
		late <- err
	}()
	proxy.hold(false)
	err = <-late
	wantErrno(t, err, unix.ECONNREFUSED)
	if !errors.Is(err, ErrIdentity) {
		t.Errorf("a stream that waited: %v", err)
	}
	if _, err := st.Read(make([]byte, 1)); !errors.Is(err, ErrLost) || !errors.Is(err, ErrIdentity) {
		t.Errorf("reading: %v", err)
	}
	if _, err := st.Write([]byte("x")); err == nil {
		t.Error("writing goes on")
	}
	waitFor(t, "end of the connection", func() bool { return len(h.Snapshot()) == 0 })
	if len(got) != 0 {
		t.Error("the stranger got a stream")
	}
	_, err = h.Dial(testContext(t), peer, 1, nil)
	wantErrno(t, err, unix.ECONNREFUSED)
}

// Without an answer no more than the limits is kept, writing waits, and the end
// comes with the handshake's.
func TestZeroRTTBounded(t *testing.T) {
	_, addr := echoServer(t, t.TempDir(), "127.0.0.1:0", ListenOptions{}, nil)
	proxy := newProxy(t, addr)
	h, peer := zeroRTT(t, t.TempDir(), proxy.addr)
	h.cfg.HandshakeTimeout = 3 * time.Second
	proxy.rule(func([]byte) bool { return false }, nil)
	var all []*Stream
	for range 40 {
		st, err := h.Dial(testContext(t), peer, 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, st)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	total := 0
	for _, st := range all {
		wg.Go(func() {
			st.SetWriteDeadline(time.Now().Add(time.Second))
			n, err := st.Write(make([]byte, 1<<20))
			if !errors.Is(err, os.ErrDeadlineExceeded) || n > earlyPerStream {
				t.Errorf("written %d octets, %v", n, err)
			}
			mu.Lock()
			total += n
			mu.Unlock()
		})
	}
	wg.Wait()
	if total == 0 || total > earlyPerConn {
		t.Errorf("%d octets were taken, at most %d may be kept", total, earlyPerConn)
	}
	for _, st := range all {
		if _, err := st.Read(make([]byte, 1)); !errors.Is(err, ErrLost) {
			t.Errorf("reading: %v", err)
		}
	}
}

// A closed port is known as fast as without 0-RTT.
func TestZeroRTTRefused(t *testing.T) {
	server, addr := echoServer(t, t.TempDir(), "127.0.0.1:0", ListenOptions{}, nil)
	h, peer := zeroRTT(t, t.TempDir(), addr)
	server.Close()
	start := time.Now()
	st, err := h.Dial(testContext(t), peer, 1, nil)
	if err == nil {
		_, err = st.Read(make([]byte, 1))
		if !errors.Is(err, ErrLost) {
			t.Errorf("reading: %v", err)
		}
	} else {
		wantErrno(t, err, unix.ECONNREFUSED) // the kernel was faster
	}
	if d := time.Since(start); d > 2*time.Second {
		t.Errorf("took %v", d)
	}
}
