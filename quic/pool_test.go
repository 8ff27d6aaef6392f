package quic

import (
	"errors"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	quicgo "github.com/quic-go/quic-go"
)

// fastHere has connections of this host answered at once as well.
func fastHere(t *testing.T) {
	fastOnSameHost = true
	t.Cleanup(func() { fastOnSameHost = false })
}

// What the program writes first is with the server before the server has
// answered.
func TestFastOpenSendsBeforeTheAnswer(t *testing.T) {
	fastHere(t)
	incoming := make(chan *Incoming, 1)
	e, err := testHost(t, nil).Listen(nil, addrPort("127.0.0.1:0"), ListenOptions{}, func(in *Incoming) { incoming <- in })
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	st := dial(t, testHost(t, nil), e.Addr()) // returns, though nobody has answered
	if _, err := io.WriteString(st, "early"); err != nil {
		t.Fatal(err)
	}
	in := <-incoming
	early := make([]byte, 5)
	if _, err := io.ReadFull(in.st.s.Load(), early); err != nil || string(early) != "early" {
		t.Fatalf("before the answer the server reads %q, %v", early, err)
	}
	srv, err := in.Accept()
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(srv, "late")
	srv.Close()
	if b, err := io.ReadAll(st); string(b) != "late" || err != nil {
		t.Errorf("read %q, %v", b, err)
	}
	st.Close()
}

// A refusal that comes after a fast open is a reset, and the next Dial waits.
func TestFastOpenRefused(t *testing.T) {
	fastHere(t)
	e, err := testHost(t, nil).Listen(nil, addrPort("127.0.0.1:0"), ListenOptions{}, func(in *Incoming) { in.Refuse(unix.ECONNREFUSED) })
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	h := testHost(t, nil)
	st := dial(t, h, e.Addr())
	st.AwaitRead()
	for range 2 { // it stays so
		_, err := st.Read(make([]byte, 1))
		var errno unix.Errno
		if !errors.Is(err, ErrReset) || !errors.As(err, &errno) || errno != unix.ECONNREFUSED {
			t.Errorf("read: %v, want a reset by a refusal", err)
		}
	}
	_, err = h.Dial(testContext(t), Peer{Remote: e.Addr()}, 40000, nil)
	wantErrno(t, err, unix.ECONNREFUSED)
}

func TestNoFastOpenWaits(t *testing.T) {
	fastHere(t)
	e, err := testHost(t, nil).Listen(nil, addrPort("127.0.0.1:0"), ListenOptions{}, func(in *Incoming) { in.Refuse(unix.ECONNREFUSED) })
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	h := testHost(t, func(c *Config) { c.NoFastOpen = true })
	_, err = h.Dial(testContext(t), Peer{Remote: e.Addr()}, 40000, nil)
	wantErrno(t, err, unix.ECONNREFUSED)
}

// Many streams are spread over several connections, and not over more than
// are allowed.
func TestPoolGrows(t *testing.T) {
	e, got := listen(t, testHost(t, nil), "127.0.0.1:0", ListenOptions{})
	h := testHost(t, func(c *Config) { c.MaxConnections = 3 })
	key := Peer{Remote: e.Addr()}.key()
	sizes := func() (open int, loads []int) {
		h.mu.Lock()
		defer h.mu.Unlock()
		for _, l := range h.pool[key] {
			if l.c.Load() != nil {
				open++
			}
			loads = append(loads, l.load())
		}
		return open, loads
	}
	var streams []*Stream
	defer func() {
		for _, st := range streams {
			st.Reset()
		}
	}()
	const many = 200
	for range many {
		streams = append(streams, dial(t, h, e.Addr()))
		streams = append(streams, <-got)
		// What was begun beside this stream is open before the next.
		for deadline := time.Now().Add(10 * time.Second); ; {
			open, loads := sizes()
			if open == len(loads) {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%d of %d connections open", open, len(loads))
			}
			time.Sleep(time.Millisecond)
		}
	}
	open, loads := sizes()
	if open != 3 {
		t.Errorf("%d connections (%v streams), want 3", open, loads)
	}
	sum := 0
	for _, n := range loads {
		sum += n
		if n < many/3-manyStreams {
			t.Errorf("streams are spread as %v", loads)
		}
	}
	if sum != many {
		t.Errorf("%d streams counted, want %d", sum, many)
	}
}

// A bulk flow has another connection opened beside it.
func TestPoolGrowsForBulk(t *testing.T) {
	h := testHost(t, nil)
	e, got := listen(t, testHost(t, nil), "127.0.0.1:0", ListenOptions{})
	st := dial(t, h, e.Addr())
	srv := <-got
	defer st.Reset()
	defer srv.Reset()
	l := h.pool[Peer{Remote: e.Addr()}.key()][0]
	h.mu.Lock()
	l.bytes, l.sampled = 0, time.Now().Add(-rateOver)
	l.bytes -= manyBytes // as if so much had been carried since
	busy := l.busy()
	h.mu.Unlock()
	if !busy {
		t.Error("not busy with that much carried")
	}
}

// Streams that are opened fast, one after the other, are placed in that order,
// whatever connections there are, and though nobody waited for an answer.
func TestFastOpenKeepsOrder(t *testing.T) {
	fastHere(t)
	const streams = 300
	var mu sync.Mutex
	var order []uint16
	late := func(in *Incoming) {
		t.Errorf("the stream from %v was not placed", in.RemoteAddr())
		in.Refuse(unix.ECONNREFUSED)
	}
	e, err := testHost(t, nil).Listen(nil, addrPort("127.0.0.1:0"), ListenOptions{Place: func(in *Incoming) bool {
		mu.Lock()
		order = append(order, in.RemoteAddr().Port())
		mu.Unlock()
		go in.Accept() // so that there are answers while others are placed
		return true
	}}, late)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	h := testHost(t, func(c *Config) { c.MaxConnections = 4 })
	pooled := func() (open []*conn) {
		h.mu.Lock()
		defer h.mu.Unlock()
		for _, l := range h.pool[Peer{Remote: e.Addr()}.key()] {
			if c := l.c.Load(); c != nil {
				open = append(open, c)
			}
		}
		return open
	}
	open := make([]*Stream, streams)
	for i := range open {
		open[i], err = h.Dial(testContext(t), Peer{Remote: e.Addr()}, uint16(1+i), nil)
		if err != nil {
			t.Fatal(err)
		}
		if i == manyStreams+1 {
			waitFor(t, "a second connection", func() bool { return len(pooled()) > 1 })
		}
	}
	waitFor(t, "all of them", func() bool { mu.Lock(); defer mu.Unlock(); return len(order) == streams })
	if !slices.IsSorted(order) {
		t.Errorf("placed in the order %v", order)
	}
	for _, st := range open {
		if err := st.lateStatus(); err != nil {
			t.Error(err)
		}
		st.Reset()
	}
	for _, c := range pooled() {
		if c.opens(0) {
			t.Error("a connection waits for answers that have come")
		}
	}
}

// A header that is late holds up the streams opened after it for a moment only, and
// comes to its endpoint, too. Afterwards there is order again.
func TestLateHeader(t *testing.T) {
	const late, after, again = 1, 2, 3
	arrived, placed := make(chan uint16, 3), make(chan uint16, 3)
	give := func(to chan uint16) func(in *Incoming) bool {
		return func(in *Incoming) bool {
			to <- in.RemoteAddr().Port()
			in.Refuse(unix.ECONNREFUSED)
			return true
		}
	}
	e, err := testHost(t, nil).Listen(nil, addrPort("127.0.0.1:0"), ListenOptions{Place: give(placed)}, func(in *Incoming) { give(arrived)(in) })
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	qc, err := quicgo.DialAddr(testContext(t), e.Addr().String(), hostileTLS(), &quicgo.Config{MaxIncomingStreams: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer qc.CloseWithError(0, "")
	open := func() *quicgo.Stream {
		s, err := qc.OpenStream()
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	send := func(s *quicgo.Stream, port uint16, from chan uint16) {
		t.Helper()
		if _, err := s.Write(headerFor(port)); err != nil {
			t.Fatal(err)
		}
		select {
		case got := <-from:
			if got != port {
				t.Errorf("stream %d came, want %d", got, port)
			}
		case <-time.After(headerTimeout / 2):
			t.Fatalf("stream %d does not come, or not that way", port)
		}
	}
	first := open() // the server hears of it by the next
	send(open(), after, arrived)
	send(first, late, arrived)
	time.Sleep(headerPause + headerWait)
	send(open(), again, placed)
}
