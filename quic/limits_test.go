package quic

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	quicgo "github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/quicvarint"
)

// Streams whose header never ends, of which each would hold a goroutine.
func TestLimitHalfOpenStreams(t *testing.T) {
	s := newSiege(t, Limits{WaitingPerPeer: 256})
	qc := s.mustConnect()
	if err := flood(qc, 20_000, func(int) []byte { return []byte{headerVersion} }); err != nil {
		t.Fatal(err)
	}
	var r limitedReport
	waitFor(t, "refusals", func() bool { r = s.ask(); return r.Counts.Busy >= 19_000 })
	s.held(128 << 20)
}

// Streams for a program that accepts none, as when its backlog is full.
func TestLimitStreamsThatWait(t *testing.T) {
	s := newSiege(t, Limits{WaitingPerPeer: 256})
	if err := flood(s.mustConnect(), 5_000, func(int) []byte { return headerFor(portNoTaker) }); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "refusals", func() bool { return s.ask().Counts.Busy >= 4_500 })
	s.held(32 << 20)
	// Others may still wait, at another address.
	_, err := s.good.Dial(testContext(t), Peer{Remote: s.server}, portEcho, nil)
	if err != nil {
		t.Errorf("another peer's stream: %v", err)
	}
}

// Headers that are none, and such as would want much memory.
func TestLimitGarbage(t *testing.T) {
	s := newSiege(t, Limits{})
	garbage := make([]byte, 2000)
	rand.Read(garbage)
	huge := append([]byte{headerVersion}, quicvarint.Append(nil, 1<<40)...)
	if err := flood(s.mustConnect(), 20_000, func(i int) []byte {
		if i%2 == 0 {
			return huge
		}
		return garbage[i%1000:]
	}); err != nil {
		t.Fatal(err)
	}
	s.held(64 << 20)

	qc := s.mustConnect() // a control message of 2^40 octets
	uni, err := qc.OpenUniStream()
	if err != nil {
		t.Fatal(err)
	}
	uni.Write(append([]byte{uniControl, 0x3f}, quicvarint.Append(nil, 1<<40)...))
	if code := endOf(t, qc); code != connProto {
		t.Errorf("the connection ends with code %#x, want %#x", code, connProto)
	}
	s.goesOn()
}

// endOf waits for the end of a connection by the server, and returns its code.
func endOf(t *testing.T, qc *quicgo.Conn) quicgo.ApplicationErrorCode {
	t.Helper()
	select {
	case <-qc.Context().Done():
	case <-testContext(t).Done():
		t.Fatal("the connection was not ended")
	}
	var ae *quicgo.ApplicationError
	if err := context.Cause(qc.Context()); !errors.As(err, &ae) || !ae.Remote {
		t.Fatalf("the connection ended with %v, want the server's word", err)
	}
	return ae.ErrorCode
}

// What the server's program does not read fills its memory: the limit ends the
// connection that holds it, and no other.
func TestLimitUnreadOctets(t *testing.T) {
	const limit = 64 << 20
	s := newSiege(t, Limits{Memory: limit})
	small := s.dialGood(portNoRead) // holds something, too
	if _, err := small.Write(make([]byte, 300<<10)); err != nil {
		t.Fatal(err)
	}
	qc := s.mustConnect()
	piece := append(headerFor(portNoRead), make([]byte, 500<<10)...)
	err := flood(qc, 400, func(int) []byte { return piece })
	t.Logf("the flood ends with: %v", err)
	if code := endOf(t, qc); code != connLimit {
		t.Errorf("the connection ends with code %#x, want %#x", code, connLimit)
	}
	// On loopback, which is faster than networks, much comes between two looks.
	r := s.held(3 * limit)
	if r.Counts.Shed != 1 {
		t.Errorf("%d connections were ended, want 1", r.Counts.Shed)
	}
	select {
	case <-small.WriteDone():
		t.Errorf("the well-behaved one lost its connection: %v", small.WriteErr())
	default:
	}
}

// Many connections that hold little each are much together.
func TestLimitManyConnections(t *testing.T) {
	const limit = 16 << 20
	s := newSiege(t, Limits{Memory: limit, HandshakesPerSecond: 100_000})
	var living []*quicgo.Conn
	for range 700 {
		qc, err := s.connect()
		if err != nil {
			break // ended in its handshake
		}
		living = append(living, qc)
	}
	waitFor(t, "the end of some", func() bool { return s.ask().Counts.Shed > 0 })
	s.held(2 * limit)
	ended := 0
	for _, qc := range living {
		if qc.Context().Err() != nil {
			ended++
		}
	}
	t.Logf("%d of %d connections were ended", ended, len(living))
}

// Who asks for much and does not read it makes the server hold little.
func TestLimitSlowReaders(t *testing.T) {
	s := newSiege(t, Limits{})
	if err := flood(s.mustConnect(), 1000, func(int) []byte { return headerFor(portTalker) }); err != nil {
		t.Fatal(err)
	}
	s.held(96 << 20)
}

// First packets from addresses that are not theirs: nobody answers the server.
func TestLimitHandshakes(t *testing.T) {
	s := newSiege(t, Limits{HandshakesPerSecond: 100_000})
	pc, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(s.from, 0)))
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	const n = 2 * maxUnproved
	for range n {
		if _, err := pc.WriteTo(firstPacket(t), net.UDPAddrFromAddrPort(s.server)); err != nil {
			t.Fatal(err)
		}
	}
	waitFor(t, "the handshakes", func() bool { return s.ask().Counts.Unproved >= maxUnproved })
	fresh := testHost(t, nil) // who is there proves its address, and is let in
	st, err := fresh.Dial(testContext(t), Peer{Remote: s.server}, portEcho, nil)
	if err != nil {
		t.Fatalf("a client among forged packets: %v", err)
	}
	st.Close()
	if r := s.held(128 << 20); r.Counts.Unproved > maxUnproved {
		t.Errorf("%d handshakes of unproved addresses, want at most %d", r.Counts.Unproved, maxUnproved)
	}
}

// firstPacket is a client's Initial packet with the beginning of a handshake.
func firstPacket(t *testing.T) []byte {
	t.Helper()
	m := &mute{first: make(chan []byte, 1), end: make(chan struct{})}
	tr := &quicgo.Transport{Conn: m}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tr.Dial(ctx, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9}, hostileTLS(), nil)
	}()
	b := <-m.first
	cancel()
	<-done
	tr.Close()
	m.Close()
	return b
}

// mute is a socket to which nobody answers.
type mute struct {
	first chan []byte
	end   chan struct{}
	once  sync.Once
}

func (m *mute) ReadFrom([]byte) (int, net.Addr, error) {
	<-m.end
	return 0, nil, net.ErrClosed
}

func (m *mute) WriteTo(b []byte, _ net.Addr) (int, error) {
	select {
	case m.first <- bytes.Clone(b):
	default:
	}
	return len(b), nil
}

func (m *mute) Close() error                     { m.once.Do(func() { close(m.end) }); return nil }
func (m *mute) LocalAddr() net.Addr              { return &net.UDPAddr{IP: net.IPv4zero} }
func (m *mute) SetDeadline(time.Time) error      { return nil }
func (m *mute) SetReadDeadline(time.Time) error  { m.Close(); return nil }
func (m *mute) SetWriteDeadline(time.Time) error { return nil }

// One address may have so many connections, and another one others.
func TestLimitConnections(t *testing.T) {
	s := newSiege(t, Limits{ConnectionsPerPeer: 8, Connections: 20})
	connect := func(from string, n int) (conns []*quicgo.Conn) {
		s.from = netip.MustParseAddr(from)
		for range n {
			qc, err := s.connect()
			if err != nil {
				t.Logf("refused: %v", err)
				continue
			}
			// The client's handshake is over before the server's.
			if st, err := qc.OpenStream(); err == nil {
				st.Write(headerFor(portEcho))
				if _, err := st.Read(make([]byte, 1)); err == nil {
					conns = append(conns, qc)
				}
			}
		}
		return conns
	}
	first := connect("127.0.0.66", 12)
	if len(first) != 8 {
		t.Errorf("%d connections of one address, want 8", len(first))
	}
	if n := len(connect("127.0.0.67", 4)); n != 4 {
		t.Errorf("%d connections of another address, want 4", n)
	}
	connect("127.0.0.68", 20)
	r := s.held(64 << 20)
	if r.Counts.Connections > 20 || r.Counts.Refused == 0 {
		t.Errorf("%+v; want at most 20 connections, and refusals", r.Counts)
	}
	for _, qc := range first {
		qc.CloseWithError(0, "")
	}
	waitFor(t, "the end of some", func() bool { return s.ask().Counts.Connections <= 12 })
	if n := len(connect("127.0.0.66", 1)); n != 1 {
		t.Error("there is no room again")
	}
}

// What a Host tells when it is refused for a limit.
func TestLimitIsRefusal(t *testing.T) {
	e, _ := listen(t, testHost(t, func(c *Config) { c.Limits.ConnectionsPerPeer = 1 }), "127.0.0.1:0", ListenOptions{})
	dial(t, testHost(t, nil), e.Addr())
	_, err := testHost(t, nil).Dial(testContext(t), Peer{Remote: e.Addr()}, 2, nil)
	wantErrno(t, err, unix.ECONNREFUSED)
}

func TestGuestKey(t *testing.T) {
	for addr, want := range map[string]string{
		"192.0.2.1": "192.0.2.1/32", "::ffff:192.0.2.1": "192.0.2.1/32", "2001:db8::1": "2001:db8::/64",
		"fe80::1%eth0": "fe80::1/128", "::1": "::1/128",
	} {
		if got := guestKey(netip.MustParseAddr(addr)); got.String() != want {
			t.Errorf("%s counts as %v, want %s", addr, got, want)
		}
	}
}

func TestCensus(t *testing.T) {
	c := census{limits: Limits{HandshakesPerSecond: 40}}
	c.limits.fill()
	now := time.Unix(1e9, 0)
	bad, good := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("192.0.2.1")
	begin := func(a netip.Addr, n int) (in int) {
		for range n {
			v, err := c.begin(now, a, false)
			if err != nil {
				t.Fatal(err)
			}
			if v.prove(now) == nil {
				in++
			}
			v.end()
		}
		return in
	}
	if n := begin(bad, 30); n != 10 { // its share
		t.Errorf("%d of 30 at once are let in, want 10", n)
	}
	if n := begin(netip.MustParseAddr("2001:db8::2"), 1); n != 0 {
		t.Error("its neighbour counts by itself")
	}
	if n := begin(good, 9); n != 9 {
		t.Errorf("%d of 9 of another address are let in", n)
	}
	if !c.doubts(now) {
		t.Error("40 handshakes in a second, and no doubt")
	}
	now = now.Add(time.Second)
	if c.doubts(now) {
		t.Error("doubts in the next second")
	}
	if n := begin(bad, 30); n != 10 {
		t.Errorf("%d of 30 are let in a second later, want 10", n)
	}
	if c.all != 0 || c.unproved != 0 {
		t.Errorf("%d connections are left, %d unproved", c.all, c.unproved)
	}
	for i := range 5000 { // addresses that are gone are forgotten
		now = now.Add(time.Second / 10)
		begin(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 1)
	}
	if n := len(c.guests); n > 1100 {
		t.Errorf("%d addresses are remembered", n)
	}
}

// A client with a session loses no 0-RTT data when it has to prove its address
// first (Retry), as replays have to.
func TestLimitZeroRTTIsSentAgain(t *testing.T) {
	server, addr := echoServer(t, t.TempDir(), "127.0.0.1:0", ListenOptions{ZeroRTT: true}, nil)
	client, peer := zeroRTT(t, t.TempDir(), addr)
	forged := func(n int) {
		server.census.mu.Lock()
		defer server.census.mu.Unlock()
		server.census.unproved += n
	}
	forged(maxUnproved)
	defer forged(-maxUnproved)
	if i := ask(t, client, peer); !i.Resumed {
		t.Errorf("%+v", i)
	}
	if n := server.LimitCounts(); n.Unproved != maxUnproved {
		t.Errorf("%+v: the client's address was not proved", n)
	}
}
