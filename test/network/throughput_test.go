package network

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/poemq/poemq/test/link"
	"github.com/poemq/poemq/test/rig"
)

// lane is a path that one kind of transport has for itself.
type lane struct {
	s     *stage
	poemq bool
}

// A bulk stream over 100 Mbit/s and 50 ms, beside the kernel's TCP with cubic
// on paths that are the same. Loss falls by chance, so several of each run at
// once and their sum counts.
func TestThroughput(t *testing.T) {
	for _, c := range []struct {
		loss  float64
		lanes int
		least float64 // of cubic's throughput; 0: no bar
		usual time.Duration
	}{
		{0, 1, 0, 5 * time.Second},
		{0.001, 2, 0, 10 * time.Second},
		{0.01, 4, 1, 12 * time.Second},
	} {
		t.Run(fmt.Sprintf("loss %.1f %%", c.loss*100), func(t *testing.T) {
			p := link.Params{Delay: 25 * time.Millisecond, Rate: 100e6, Loss: c.loss}
			var lanes []lane
			for i := range c.lanes {
				p.Seed = uint64(i)
				lanes = append(lanes, newLane(t, p, true), newLane(t, p, false))
			}
			run := func(lanes []lane) (sum float64) { return runLanes(lanes, long(c.usual, 60*time.Second)) }
			var ours, cubic []lane
			for _, l := range lanes {
				if l.poemq {
					ours = append(ours, l)
				} else {
					cubic = append(cubic, l)
				}
			}
			var quic, tcp float64
			if c.loss == 0 { // the machine is busy with one
				quic, tcp = run(ours), run(cubic)
			} else {
				var both sync.WaitGroup
				both.Go(func() { quic = run(ours) })
				both.Go(func() { tcp = run(cubic) })
				both.Wait()
			}
			n := float64(c.lanes)
			t.Logf("loss %.1f %%: poemq %.2f Mbit/s, cubic %.2f Mbit/s, ratio %.2f", c.loss*100, quic/n/1e6, tcp/n/1e6, quic/tcp)
			if quic < c.least*tcp {
				t.Errorf("poemq has %.2f of cubic's throughput, want %.1f", quic/tcp, c.least)
			}
		})
	}
}

func newLane(t *testing.T, p link.Params, poemq bool) lane {
	t.Helper()
	l := lane{newStage(t, p), poemq}
	if !poemq {
		l.s.server.serve(l.s.server.plain, "serve", port, "cubic")
		return l
	}
	l.s.client.startBroker()
	l.s.server.startBroker()
	l.s.server.serve(l.s.server.under, "serve", port)
	return l
}

// runLanes has each read for a time, all at once, and adds up the bit/s.
func runLanes(lanes []lane, d time.Duration) (sum float64) {
	var clients []*rig.Proc
	for _, l := range lanes {
		prepare := l.s.client.plain
		if l.poemq {
			prepare = l.s.client.under
		}
		clients = append(clients, prepare(l.s.peer, "rate", l.s.server.at(port), d).Start())
	}
	for i, c := range clients {
		c.Wait(d + 30*time.Second)
		if c.ExitCode() != 0 {
			lanes[i].s.Errorf("%v: %s", c, c.Stderr())
			return 0
		}
		sum += float64(numberOf(lanes[i].s, c.Stdout(), "octets")) * 8 / timeOf(lanes[i].s, c.Stdout(), "us").Seconds()
	}
	return sum
}
