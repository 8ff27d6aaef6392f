package link

import (
	"encoding/binary"
	"math"
	"testing"
	"time"
)

// arrival is a packet that came out of a shaper.
type arrival struct {
	id int
	at time.Duration
}

// pass offers n packets of size octets, spaced by gap, and returns them as they
// leave, in order.
func pass(s *shaper, p Params, n, size int, gap time.Duration) (out []arrival) {
	packet := make([]byte, size)
	for i := range n {
		binary.BigEndian.PutUint32(packet, uint32(i))
		s.offer(p, packet, int64(i)*int64(gap))
	}
	now := int64(0)
	for {
		wait, ok := s.next(now)
		if !ok {
			return out
		}
		now += int64(wait)
		b := s.due(now)
		out = append(out, arrival{int(binary.BigEndian.Uint32(b)), time.Duration(now)})
		s.done(b)
	}
}

func TestShaperTimes(t *testing.T) {
	const ms = time.Millisecond
	for name, c := range map[string]struct {
		p    Params
		gap  time.Duration
		want []arrival
	}{
		"nothing": {Params{}, ms, []arrival{{0, 0}, {1, ms}, {2, 2 * ms}}},
		"delay":   {Params{Delay: 5 * ms}, ms, []arrival{{0, 5 * ms}, {1, 6 * ms}, {2, 7 * ms}}},
		// 1000 octets at 1 Mbit/s are 8 ms.
		"rate":          {Params{Rate: 1e6}, 0, []arrival{{0, 8 * ms}, {1, 16 * ms}, {2, 24 * ms}}},
		"rate and room": {Params{Rate: 1e6}, 10 * ms, []arrival{{0, 8 * ms}, {1, 18 * ms}, {2, 28 * ms}}},
		"both":          {Params{Rate: 1e6, Delay: 100 * ms}, 0, []arrival{{0, 108 * ms}, {1, 116 * ms}, {2, 124 * ms}}},
		"short queue":   {Params{Rate: 1e6, Queue: 1500}, 0, []arrival{{0, 8 * ms}}},
		"all lost":      {Params{Loss: 1}, 0, nil},
		"all at once":   {Params{Reorder: 1, Delay: ms}, 0, []arrival{{0, 0}, {1, 0}, {2, 0}}},
	} {
		got := pass(newShaper(1), c.p, 3, 1000, c.gap)
		if len(got) != len(c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
			continue
		}
		for i := range got {
			if got[i] != c.want[i] {
				t.Errorf("%s: %v, want %v", name, got, c.want)
				break
			}
		}
	}
}

func TestShaperDice(t *testing.T) {
	const n = 20_000
	for _, share := range []float64{0.001, 0.01, 0.3} {
		s := newShaper(1)
		out := pass(s, Params{Loss: share}, n, 100, time.Microsecond)
		sigma := math.Sqrt(n * share * (1 - share))
		if lost := float64(n - len(out)); math.Abs(lost-n*share) > 4*sigma {
			t.Errorf("of %d packets %v were lost, want %v ± %.0f", n, lost, n*share, 4*sigma)
		}
		if s.stats.Lost != uint64(n-len(out)) {
			t.Errorf("%d packets counted as lost, %d were", s.stats.Lost, n-len(out))
		}

		s = newShaper(1)
		out = pass(s, Params{Reorder: share, Delay: time.Millisecond}, n, 100, time.Microsecond)
		early := 0
		for _, a := range out {
			if a.at-time.Duration(a.id)*time.Microsecond < time.Millisecond {
				early++
			}
		}
		if len(out) != n || math.Abs(float64(early)-n*share) > 4*sigma || s.stats.Reordered != uint64(early) {
			t.Errorf("of %d packets %d came, %d early (counted: %d), want all and %v ± %.0f",
				n, len(out), early, s.stats.Reordered, n*share, 4*sigma)
		}
	}
}

// The same seed loses the same packets.
func TestShaperSeed(t *testing.T) {
	lost := func(seed uint64) (ids [100]bool) {
		for _, a := range pass(newShaper(seed), Params{Loss: 0.5}, 100, 100, 0) {
			ids[a.id] = true
		}
		return ids
	}
	first := lost(1)
	if first != lost(1) {
		t.Error("two runs with one seed differ")
	}
	if first == lost(2) {
		t.Error("two seeds lose the same packets")
	}
}
