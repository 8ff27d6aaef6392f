package network

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/poemq/poemq/test/link"
	"github.com/poemq/poemq/test/rig"
)

// roundTrip measures the path: an echo of UDP, the quickest of many.
func (s *stage) roundTrip() time.Duration {
	s.Helper()
	var server, client net.PacketConn
	open := func(h *host, c *net.PacketConn) {
		if err := h.Do(func() (err error) {
			*c, err = net.ListenPacket("udp4", net.JoinHostPort(h.Addr.String(), "0"))
			return err
		}); err != nil {
			s.Fatal(err)
		}
	}
	open(s.server, &server)
	defer server.Close()
	open(s.client, &client)
	defer client.Close()
	go func() {
		b := make([]byte, 1500)
		for {
			n, from, err := server.ReadFrom(b)
			if err != nil {
				return // closed
			}
			_, _ = server.WriteTo(b[:n], from) // the client's limit tells
		}
	}()
	least := time.Hour
	b := make([]byte, 1500)
	for range 10 {
		begin := time.Now()
		if err := client.SetDeadline(begin.Add(10 * time.Second)); err != nil {
			s.Fatal(err)
		}
		if _, err := client.WriteTo(b[:1024], server.LocalAddr()); err != nil {
			s.Fatal(err)
		}
		if _, _, err := client.ReadFrom(b); err != nil {
			s.Fatalf("measure the path: %v", err)
		}
		least = min(least, time.Since(begin))
	}
	return least
}

// firstOctets are the times to the first octet of connections made one after
// the other.
func (s *stage) firstOctets(prepare func(...any) *rig.Cmd, action string, port, n int) (times []time.Duration) {
	s.Helper()
	for line := range strings.Lines(prepare(s.peer, action, s.server.at(port), n).Output()) {
		times = append(times, timeOf(s, line, "first"))
	}
	if len(times) != n {
		s.Fatalf("%d connections, want %d", len(times), n)
	}
	return times
}

// A first connection costs a handshake of one round trip and the request
// another; on a pooled connection the request alone is left, where TCP costs
// two and TLS over it three.
//
// What the programs, brokers and their cryptography take is some milliseconds
// whatever the path, four for the first connection of a broker that has just
// been started.
func TestTimeToFirstOctet(t *testing.T) {
	for _, oneWay := range []time.Duration{25 * time.Millisecond, 50 * time.Millisecond} {
		t.Run((2 * oneWay).String(), func(t *testing.T) {
			s := newPoemqStage(t, link.Params{Delay: oneWay})
			s.timeToFirstOctet(2.1, 1.1)
		})
	}
}

func trips(took, rtt time.Duration) float64 { return took.Seconds() / rtt.Seconds() }

func (s *stage) timeToFirstOctet(mostFirst, mostPooled float64) {
	s.Helper()
	const overPoemq, overTCP, overTLS = 8001, 8002, 8003
	s.server.serve(s.server.under, "serve", overPoemq)
	s.server.serve(s.server.plain, "serve", overTCP)
	s.server.serve(s.server.plain, "servetls", overTLS)
	rtt := s.roundTrip()

	var fresh, pooled []time.Duration
	// A busy machine needs more tries to show its quickest.
	const few, many = 5, 30
	for i := 0; i < few || i < many && trips(slices.Min(fresh), rtt) > mostFirst; i++ {
		if i > 0 { // another broker has no connection yet
			s.client.broker.Stop()
			s.client.startBroker()
		}
		times := s.firstOctets(s.client.under, "first", overPoemq, 5)
		fresh, pooled = append(fresh, times[0]), append(pooled, times[1:]...)
	}
	if c, _, _ := s.wire.take(); c.tcp != 0 {
		s.Errorf("on the wire: %v; want no TCP", c)
	}
	table := fmt.Sprintf("time to the first octet of 1 KiB, round trip %v\n", rtt.Round(10*time.Microsecond))
	for _, r := range []struct {
		what string
		took []time.Duration
		most float64
	}{
		{"poemq, first connection", fresh, mostFirst},
		{"poemq, pooled connection", pooled, mostPooled},
		{"kernel TCP", s.firstOctets(s.client.plain, "first", overTCP, 10), 0},
		{"TLS 1.3 over TCP", s.firstOctets(s.client.plain, "firsttls", overTLS, 10), 0},
	} {
		// The round trip is the quickest of several, and so is this: a busy
		// machine shows in the middle one.
		slices.Sort(r.took)
		trips := trips(r.took[0], rtt)
		table += fmt.Sprintf("  %-26s %7.2f ms, %.2f round trips (median of %d: %.2f ms)\n",
			r.what, r.took[0].Seconds()*1e3, trips, len(r.took), r.took[len(r.took)/2].Seconds()*1e3)
		if r.most > 0 && trips > r.most {
			s.Errorf("%s: %.2f round trips, want at most %.1f", r.what, trips, r.most)
		}
	}
	s.Log(table)
}
