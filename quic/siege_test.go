package quic

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	quicgo "github.com/quic-go/quic-go"
)

// Client ports that tell the child's program what to do.
const (
	portEcho    = 1
	portNoRead  = 2 // never reads
	portTalker  = 3 // writes without end
	portNoTaker = 4 // never accepts
)

// limitedReport is what a child says when asked.
type limitedReport struct {
	Peak   int64 // of the heap since it was asked last, octets
	Counts LimitCounts
}

// childLimited serves with limits, and watches its own heap.
func childLimited(limits string) {
	cfg := Config{Log: slog.New(slog.NewTextHandler(os.Stderr, nil))}
	if err := json.Unmarshal([]byte(limits), &cfg.Limits); err != nil {
		panic(err)
	}
	h, err := NewHost(cfg)
	if err != nil {
		panic(err)
	}
	e, err := h.Listen(nil, addrPort("127.0.0.1:0"), ListenOptions{}, func(in *Incoming) {
		if in.RemoteAddr().Port() == portNoTaker {
			<-in.Done()
			return
		}
		st, err := in.Accept()
		if err != nil {
			return
		}
		go func() {
			switch st.RemoteAddr().Port() {
			case portNoRead:
				select {}
			case portTalker:
				for err == nil {
					_, err = st.Write(make([]byte, 16<<10))
				}
			default:
				var b [512]byte // one of many
				for n := 0; err == nil; _, err = st.Write(b[:n]) {
					if n, err = st.Read(b[:]); err != nil {
						break
					}
				}
				st.CloseWrite()
			}
		}()
	})
	if err != nil {
		panic(err)
	}
	var peak atomic.Int64
	go func() {
		for {
			peak.Store(max(peak.Load(), heapOctets()))
			time.Sleep(5 * time.Millisecond)
		}
	}()
	fmt.Println(e.Addr())
	for asked := bufio.NewScanner(os.Stdin); asked.Scan(); {
		b, _ := json.Marshal(limitedReport{peak.Swap(0), h.LimitCounts()})
		fmt.Println(string(b))
	}
}

// siege is a server in another process, somebody who uses it as one should, and
// hostile ones at other addresses.
type siege struct {
	*testing.T
	child  *child
	server netip.AddrPort
	good   *Host
	trips  atomic.Int64 // requests of the good one that were answered
	from   netip.Addr   // where hostile connections come from
}

func newSiege(t *testing.T, l Limits) *siege {
	t.Helper()
	b, err := json.Marshal(l)
	if err != nil {
		t.Fatal(err)
	}
	s := &siege{T: t, child: startChild(t, "limited", string(b)), good: testHost(t, nil), from: netip.MustParseAddr("127.0.0.66")}
	s.server = addrPort(s.child.line(t))
	st := s.dialGood(portEcho)
	var wg sync.WaitGroup
	end := make(chan struct{})
	wg.Go(func() {
		defer st.Close()
		want := make([]byte, 8<<10)
		rand.Read(want)
		for got := make([]byte, len(want)); ; s.trips.Add(1) {
			select {
			case <-end:
				return
			default:
			}
			st.SetReadDeadline(time.Now().Add(20 * time.Second))
			if _, err := st.Write(want); err != nil {
				t.Errorf("the well-behaved stream after %d requests: %v", s.trips.Load(), err)
				return
			}
			if _, err := io.ReadFull(st, got); err != nil || !bytes.Equal(got, want) {
				t.Errorf("the well-behaved stream after %d requests: %v", s.trips.Load(), err)
				return
			}
		}
	})
	t.Cleanup(func() { close(end); wg.Wait() })
	s.goesOn()
	s.ask()
	return s
}

func (s *siege) dialGood(port uint16) *Stream {
	s.Helper()
	st, err := s.good.Dial(testContext(s.T), Peer{Remote: s.server}, port, nil)
	if err != nil {
		s.Fatalf("the well-behaved client: %v", err)
	}
	return st
}

// ask returns what the server says of itself, since it was asked last.
func (s *siege) ask() (r limitedReport) {
	s.Helper()
	fmt.Fprintln(s.child.in)
	if err := json.Unmarshal([]byte(s.child.line(s.T)), &r); err != nil {
		s.Fatal(err)
	}
	return r
}

// goesOn waits until the well-behaved stream has made some more progress.
func (s *siege) goesOn() {
	s.Helper()
	was := s.trips.Load()
	waitFor(s.T, "progress of the well-behaved stream", func() bool { return s.trips.Load() >= was+20 || s.Failed() })
}

// held fails if the heap was larger than so many octets.
func (s *siege) held(most int64) limitedReport {
	s.Helper()
	s.goesOn()
	r := s.ask()
	s.Logf("heap at most %.1f MiB, want at most %.1f; %+v; %d requests answered", float64(r.Peak)/(1<<20), float64(most)/(1<<20), r.Counts, s.trips.Load())
	if r.Peak > most {
		s.Errorf("the server's heap was %d octets, want at most %d", r.Peak, most)
	}
	return r
}

// connect makes a hostile connection, which is QUIC of our protocol so far.
func (s *siege) connect() (*quicgo.Conn, error) {
	pc, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(s.from, 0)))
	if err != nil {
		return nil, err
	}
	tr := &quicgo.Transport{Conn: pc}
	qc, err := tr.Dial(testContext(s.T), net.UDPAddrFromAddrPort(s.server), hostileTLS(), &quicgo.Config{
		MaxIncomingStreams: -1, MaxIdleTimeout: time.Minute,
		InitialStreamReceiveWindow: 16 << 10, MaxStreamReceiveWindow: 16 << 10,
	})
	s.Cleanup(func() {
		if qc != nil {
			qc.CloseWithError(0, "")
		}
		tr.Close()
		pc.Close()
	})
	return qc, err
}

func hostileTLS() *tls.Config {
	return &tls.Config{InsecureSkipVerify: true, NextProtos: []string{ALPN}}
}

func (s *siege) mustConnect() *quicgo.Conn {
	s.Helper()
	qc, err := s.connect()
	if err != nil {
		s.Fatal(err)
	}
	return qc
}

// flood opens n streams and writes to each what make says; it stops when the
// connection is ended, which it returns as an error.
func flood(qc *quicgo.Conn, n int, make func(i int) []byte) error {
	for i := range n {
		ctx, cancel := context.WithTimeout(qc.Context(), 30*time.Second)
		st, err := qc.OpenStreamSync(ctx)
		cancel()
		if err != nil {
			return err
		}
		if _, err := st.Write(make(i)); err != nil && qc.Context().Err() != nil {
			return err
		}
	}
	return nil
}

func headerFor(port uint16) []byte { return (&header{ClientPort: port}).append(nil) }
