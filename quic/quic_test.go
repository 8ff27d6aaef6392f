package quic

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	quicgo "github.com/quic-go/quic-go"
)

func TestMain(m *testing.M) {
	if runChild() {
		return
	}
	goleak.VerifyTestMain(m)
}

// testHost is a Host that ends with the test, and logs to it.
func testHost(t *testing.T, change func(*Config)) *Host {
	t.Helper()
	cfg := Config{Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))}
	if change != nil {
		change(&cfg)
	}
	h, err := NewHost(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func addrPort(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// listen accepts everything into the channel.
func listen(t *testing.T, h *Host, addr string, o ListenOptions) (*Endpoint, chan *Stream) {
	t.Helper()
	got := make(chan *Stream, 2000)
	e, err := h.Listen(nil, addrPort(addr), o, func(in *Incoming) {
		st, err := in.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		got <- st
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	return e, got
}

func dial(t *testing.T, h *Host, remote netip.AddrPort) *Stream {
	t.Helper()
	st, err := h.Dial(testContext(t), Peer{Remote: remote}, 40000, nil)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// pair is a stream between two fresh hosts over 127.0.0.1.
func pair(t *testing.T) (client, server *Stream) {
	t.Helper()
	e, got := listen(t, testHost(t, nil), "127.0.0.1:0", ListenOptions{})
	client = dial(t, testHost(t, nil), e.Addr())
	return client, <-got
}

// wantErrno fails the test unless errors.As finds exactly want.
func wantErrno(t *testing.T, err error, want unix.Errno) {
	t.Helper()
	var e unix.Errno
	if !errors.As(err, &e) || e != want {
		t.Errorf("error %v: errno %v, want %v", err, e, want)
	}
	if _, ok := errors.AsType[*DialError](err); !ok {
		t.Errorf("%T is no *DialError", err)
	}
}

func TestAddresses(t *testing.T) {
	for _, c := range []struct{ name, listen, dial, local string }{
		{"v4", "127.0.0.1:0", "127.0.0.1", "127.0.0.1"},
		{"v4 wildcard", "0.0.0.0:0", "127.0.0.9", "127.0.0.9"},
		{"v6", "[::1]:0", "::1", "::1"},
		{"v6 wildcard", "[::]:0", "::1", "::1"},
		{"v4 to v6 wildcard", "[::]:0", "127.0.0.1", "127.0.0.1"},
		{"v4-mapped to v6 wildcard", "[::]:0", "::ffff:127.0.0.1", "127.0.0.1"},
		{"v4-mapped to v4", "127.0.0.1:0", "::ffff:127.0.0.1", "127.0.0.1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			e, got := listen(t, testHost(t, nil), c.listen, ListenOptions{})
			port := e.Addr().Port()
			st := dial(t, testHost(t, nil), netip.AddrPortFrom(netip.MustParseAddr(c.dial), port))
			srv := <-got
			want := netip.AddrPortFrom(netip.MustParseAddr(c.local), port)
			if srv.LocalAddr() != want || st.RemoteAddr() != want {
				t.Errorf("server is %v to itself and %v to the client, want %v", srv.LocalAddr(), st.RemoteAddr(), want)
			}
			if srv.RemoteAddr() != st.LocalAddr() || st.LocalAddr().Port() != 40000 {
				t.Errorf("client is %v to itself and %v to the server", st.LocalAddr(), srv.RemoteAddr())
			}
			go func() {
				io.Copy(srv, srv)
				srv.CloseWrite()
			}()
			io.WriteString(st, "echo")
			st.CloseWrite()
			if b, err := io.ReadAll(st); string(b) != "echo" || err != nil {
				t.Errorf("read %q, %v", b, err)
			}
		})
	}
}

func TestV6Only(t *testing.T) {
	e, _ := listen(t, testHost(t, nil), "[::]:0", ListenOptions{V6Only: true})
	remote := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), e.Addr().Port())
	_, err := testHost(t, nil).Dial(testContext(t), Peer{Remote: remote}, 1, nil)
	wantErrno(t, err, unix.ECONNREFUSED)
}

func TestListenTaken(t *testing.T) {
	h := testHost(t, nil)
	e, _ := listen(t, h, "127.0.0.1:0", ListenOptions{})
	_, err := h.Listen(nil, e.Addr(), ListenOptions{}, func(*Incoming) {})
	if !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("second listen: %v", err)
	}
	_, err = h.Listen(nil, addrPort("192.0.2.1:0"), ListenOptions{}, func(*Incoming) {})
	if !errors.Is(err, unix.EADDRNOTAVAIL) {
		t.Errorf("foreign address: %v", err)
	}
	a, _ := listen(t, h, "127.0.0.1:0", ListenOptions{ReusePort: true})
	if _, err := h.Listen(nil, a.Addr(), ListenOptions{ReusePort: true}, func(*Incoming) {}); err != nil {
		t.Errorf("SO_REUSEPORT: %v", err)
	}
}

// closedPort is a UDP port that nobody has.
func closedPort(t *testing.T, host string) netip.AddrPort {
	t.Helper()
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP(host)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}

func TestRefusedByICMP(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1"} {
		start := time.Now()
		_, err := testHost(t, nil).Dial(testContext(t), Peer{Remote: closedPort(t, host)}, 1, func() { t.Error("answered") })
		wantErrno(t, err, unix.ECONNREFUSED)
		if d := time.Since(start); d > time.Second {
			t.Errorf("%s: took %v", host, d)
		} else {
			t.Logf("%s: refused after %v", host, d)
		}
	}
}

func TestRefusedByStatus(t *testing.T) {
	h := testHost(t, nil)
	for _, errno := range []unix.Errno{unix.ECONNREFUSED, unix.EHOSTUNREACH, unix.ENETUNREACH, unix.ETIMEDOUT, unix.EACCES, unix.ECONNRESET} {
		e, err := testHost(t, nil).Listen(nil, addrPort("127.0.0.1:0"), ListenOptions{}, func(in *Incoming) { in.Refuse(errno) })
		if err != nil {
			t.Fatal(err)
		}
		_, err = h.Dial(testContext(t), Peer{Remote: e.Addr()}, 1, nil)
		wantErrno(t, err, errno)
	}
}

func TestUnreachableAtOnce(t *testing.T) {
	_, err := testHost(t, nil).Dial(testContext(t), Peer{Remote: addrPort("255.255.255.255:9")}, 1, nil)
	wantErrno(t, err, unix.ENETUNREACH)
	_, err = testHost(t, nil).Dial(testContext(t), Peer{Remote: addrPort("224.0.0.1:9")}, 1, nil)
	wantErrno(t, err, unix.ENETUNREACH)
	_, err = testHost(t, nil).Dial(testContext(t), Peer{Local: netip.MustParseAddr("192.0.2.1"), Remote: addrPort("127.0.0.1:9")}, 1, nil)
	wantErrno(t, err, unix.EADDRNOTAVAIL)
}

// TestSilentPeer: a UDP socket that never answers.
func TestSilentPeer(t *testing.T) {
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	remote := c.LocalAddr().(*net.UDPAddr).AddrPort()
	h := testHost(t, func(c *Config) { c.HandshakeTimeout = 300 * time.Millisecond })
	_, err = h.Dial(testContext(t), Peer{Remote: remote}, 1, nil)
	wantErrno(t, err, unix.ETIMEDOUT)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = h.Dial(ctx, Peer{Remote: remote}, 1, nil)
	wantErrno(t, err, unix.ECANCELED)
}

// TestSharedHandshake: many dials at once use one connection, and one that
// gives up does not spoil it for the others.
func TestSharedHandshake(t *testing.T) {
	e, got := listen(t, testHost(t, nil), "127.0.0.1:0", ListenOptions{})
	h := testHost(t, nil)
	gaveUp, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := h.Dial(gaveUp, Peer{Remote: e.Addr()}, 1, nil); err == nil {
		t.Error("dial with an ended context succeeded")
	}
	var wg sync.WaitGroup
	var answers sync.Map
	for i := range 20 {
		wg.Go(func() {
			_, err := h.Dial(testContext(t), Peer{Remote: e.Addr()}, uint16(i+1), func() { answers.Store(i, true) })
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	st := <-got
	if n := st.Stats().Streams; n != 20 {
		t.Errorf("%d streams on the connection, want 20", n)
	}
	n := 0
	answers.Range(func(_, _ any) bool { n++; return true })
	if n != 20 {
		t.Errorf("%d dials saw an answer", n)
	}
	// Another user does not share it.
	other, err := h.Dial(testContext(t), Peer{UID: 1, Remote: e.Addr()}, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	if n := other.Stats().Streams; n != 1 {
		t.Errorf("another uid shares the connection: %d streams", n)
	}
}

// TestOtherQUIC: a QUIC server with another ALPN is told apart.
func TestOtherQUIC(t *testing.T) {
	tlsConf := testHost(t, nil).serverTLS()
	tlsConf.NextProtos = []string{"h3"}
	ln, err := quicgo.ListenAddr("127.0.0.1:0", tlsConf, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	_, err = testHost(t, nil).Dial(testContext(t), Peer{Remote: udpAddrPort(ln.Addr())}, 1, nil)
	wantErrno(t, err, unix.ECONNREFUSED)
	if !errors.Is(err, ErrNotPoemq) {
		t.Errorf("%v is no ErrNotPoemq", err)
	}
}

// TestWithoutErrorQueue: where IP_RECVERR is refused, a connected socket still
// learns of closed ports.
func TestWithoutErrorQueue(t *testing.T) {
	useErrorQueue = false
	defer func() { useErrorQueue = true }()
	start := time.Now()
	_, err := testHost(t, nil).Dial(testContext(t), Peer{Remote: closedPort(t, "127.0.0.1")}, 1, nil)
	wantErrno(t, err, unix.ECONNREFUSED)
	if d := time.Since(start); d > time.Second {
		t.Errorf("took %v", d)
	}
	srv := startChild(t, "server", "127.0.0.1:0", t.TempDir())
	st := dial(t, testHost(t, func(c *Config) { c.KeepAlive = time.Second }), addrPort(srv.line(t)))
	srv.line(t)
	srv.kill()
	readEnd(t, st)
}

// TestBadPeer: addresses that no packet can be sent to.
func TestBadPeer(t *testing.T) {
	_, err := testHost(t, nil).Dial(testContext(t), Peer{}, 1, nil)
	wantErrno(t, err, unix.EINVAL)
	_, err = testHost(t, nil).Dial(testContext(t), Peer{Remote: addrPort("127.0.0.1:0")}, 1, nil)
	wantErrno(t, err, unix.ECONNREFUSED)
}

// TestBadHeader: garbage on a stream is refused by status and harms nobody.
func TestBadHeader(t *testing.T) {
	e, got := listen(t, testHost(t, nil), "127.0.0.1:0", ListenOptions{})
	h := testHost(t, nil)
	good := dial(t, h, e.Addr())
	srv := <-got
	for garbage, want := range map[string]status{"GET / HTTP/1.1": statusVersion, "\x01\x06garbage": statusBadHeader} {
		s, err := good.c.qc.OpenStream()
		if err != nil {
			t.Fatal(err)
		}
		s.Write([]byte(garbage))
		b := make([]byte, 2)
		if n, err := s.Read(b); n != 1 || status(b[0]) != want {
			t.Errorf("%q: answer % x, %v", garbage, b[:n], err)
		}
		s.CancelRead(streamReset)
		s.CancelWrite(streamReset)
	}
	good.Write([]byte("x"))
	if _, err := srv.Read(make([]byte, 1)); err != nil {
		t.Error(err)
	}
}

// TestManyInSequence: streams opened and closed leave nothing behind.
func TestManyInSequence(t *testing.T) {
	hs := testHost(t, func(c *Config) { c.Log = nil })
	e, err := hs.Listen(nil, addrPort("127.0.0.1:0"), ListenOptions{}, func(in *Incoming) {
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
	h := testHost(t, func(c *Config) { c.Log = nil })
	ctx := testContext(t)
	round := func(n int) {
		for range n {
			st, err := h.Dial(ctx, Peer{Remote: e.Addr()}, 1, nil)
			if err != nil {
				t.Fatal(err)
			}
			st.Write([]byte("x"))
			st.CloseWrite()
			if b, err := io.ReadAll(st); len(b) != 1 || err != nil {
				t.Fatal(b, err)
			}
		}
	}
	var before, after runtime.MemStats
	round(1000)
	runtime.GC()
	runtime.ReadMemStats(&before)
	goroutines := runtime.NumGoroutine()
	round(5000)
	runtime.GC()
	runtime.ReadMemStats(&after)
	grown := int64(after.HeapAlloc) - int64(before.HeapAlloc)
	t.Logf("heap %+d octets, goroutines %+d", grown, runtime.NumGoroutine()-goroutines)
	if grown > 1<<20 || runtime.NumGoroutine() > goroutines+5 {
		t.Error("something stays behind")
	}
}
