package quic

import (
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A connection carries 100,000 living streams: each costs both sides a bounded
// amount, the last is as good as the first, and one more waits for the end of
// another.
func TestManyStreams(t *testing.T) {
	n := 100_000
	if raceDetector { // which takes a minute for so many; make test-unit runs both
		n = 2000
	}
	s := newSiege(t, Limits{StreamsPerConnection: n})
	h := testHost(t, func(c *Config) { c.MaxConnections, c.NoFastOpen, c.Log = 1, true, nil })
	peer := Peer{Remote: s.server}
	streams := make([]*Stream, n)
	before, began := s.ask().Peak, time.Now()
	var wg sync.WaitGroup
	var next atomic.Int64
	for range 64 {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(n) && !t.Failed(); i = next.Add(1) - 1 {
				st, err := h.Dial(t.Context(), peer, portEcho, nil)
				if err != nil {
					t.Errorf("stream %d: %v", i, err)
					return
				}
				streams[i] = st
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	took := time.Since(began)
	if all := h.Snapshot(); len(all) != 1 || all[0].Streams != n {
		t.Fatalf("%d connections, %d streams on the first", len(all), all[0].Streams)
	}
	r := s.ask()
	each := (r.Peak - before) / int64(n)
	t.Logf("%d streams in %v; %d octets of heap each at the server, garbage and its program's goroutine included", n, took, each)
	if each > 2*streamOctets {
		t.Errorf("a stream costs %d octets, want at most %d", each, 2*streamOctets)
	}
	for i := 0; i < n; i += n / 100 {
		b := [1]byte{byte(i / 100)}
		streams[i].Write(b[:])
		var got [1]byte
		streams[i].SetReadDeadline(time.Now().Add(30 * time.Second))
		if _, err := io.ReadFull(streams[i], got[:]); err != nil || got != b {
			t.Fatalf("stream %d echoes %v, %v", i, got, err)
		}
	}
	more := make(chan error, 1)
	go func() {
		_, err := h.Dial(t.Context(), peer, portEcho, nil)
		more <- err
	}()
	s.goesOn() // others are not held up
	select {
	case err := <-more:
		t.Fatalf("stream %d is open: %v", n+1, err)
	default:
	}
	streams[0].CloseWrite()
	if b, err := io.ReadAll(streams[0]); len(b) != 0 || err != nil {
		t.Fatalf("the end of a stream: %q, %v", b, err)
	}
	if err := <-more; err != nil {
		t.Errorf("a stream in the place of another: %v", err)
	}
}
