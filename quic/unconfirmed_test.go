package quic

import (
	"errors"
	"io"
	"sync/atomic"
	"testing"
	"time"
)

// A NAT takes another port in the first round trips, with the client's congestion
// window full: the client cannot tell the server. The program hears of it after
// four handshake timeouts, not after MaxIdle.
func TestReboundBeforeConfirmed(t *testing.T) {
	fastHere(t)
	quick := func(c *Config) { c.KeepAlive, c.HandshakeTimeout = 500*time.Millisecond, time.Second }
	e, _ := listen(t, testHost(t, quick), "127.0.0.1:0", ListenOptions{})
	proxy := newProxy(t, e.Addr())
	// What the server sends after its handshake goes where nobody listens any more.
	proxy.rule(nil, func(b []byte) bool { return b[0]&0x80 != 0 })
	client, err := testHost(t, quick).Dial(testContext(t), Peer{Remote: proxy.addr}, 5, nil)
	if err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	client.Write(make([]byte, 1<<20)) // more than the window: the error is Read's, too
	if _, err := client.Read(make([]byte, 1)); !errors.Is(err, ErrLost) {
		t.Errorf("reading ends with %v, want that the connection is lost", err)
	}
	if took := time.Since(begun); took > 20*time.Second {
		t.Errorf("that took %v", took)
	}
}

// An outage that begins before the client knows that the handshake is confirmed
// (RFC 9001 section 4.1.2), with its congestion window full: from another port
// the server would not hear it, so it must stay.
func TestSilentBeforeConfirmed(t *testing.T) {
	fastHere(t)
	quick := func(c *Config) { c.KeepAlive = time.Second }
	e, got := listen(t, testHost(t, quick), "127.0.0.1:0", ListenOptions{})
	proxy := newProxy(t, e.Addr())
	var left atomic.Int64 // 1-RTT datagrams that may pass
	short := func(b []byte) bool { return b[0]&0x80 == 0 }
	proxy.rule(nil, func(b []byte) bool { return !short(b) || left.Add(-1) >= 0 })

	client, err := testHost(t, quick).Dial(testContext(t), Peer{Remote: proxy.addr}, 5, nil)
	if err != nil {
		t.Fatal(err)
	}
	server := <-got
	const size = 1 << 20
	go func() {
		client.Write(make([]byte, size)) // reading tells how it went
		client.CloseWrite()
	}()
	var l *link
	h := client.c.h
	h.mu.Lock()
	for l = range h.links { // there is one
	}
	h.mu.Unlock()
	was := udpAddrPort(l.sock.LocalAddr())
	moved := func() bool { return udpAddrPort(l.sock.LocalAddr()) != was }
	until(t, "silence", func() bool {
		client.c.mu.Lock()
		defer client.c.mu.Unlock()
		return client.c.asked > 0 && client.c.silent-client.c.asked > ticksDead
	})
	left.Store(1) // for the client to hear something, and move if it would
	for since := time.Now(); !moved() && time.Since(since) < 2*tryEvery; time.Sleep(5 * time.Millisecond) {
	}
	left.Store(1 << 40)
	server.SetReadDeadline(time.Now().Add(20 * time.Second))
	if n, err := io.Copy(io.Discard, server); n != size || err != nil {
		t.Errorf("%d octets of %d arrived: %v", n, size, err)
	}
	if moved() {
		t.Errorf("moved from %v to %v before the handshake was confirmed", was, l.sock.LocalAddr())
	}
}
