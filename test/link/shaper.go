package link

import (
	"container/heap"
	"math/rand/v2"
	"time"
)

// Stats count what one direction did with packets.
type Stats struct {
	In, InOctets   uint64 // came in
	Out, OutOctets uint64 // went out
	Lost           uint64 // by Params.Loss
	Overflowed     uint64 // found Params.Queue full
	Cut            uint64 // lost to Link.Cut
	Refused        uint64 // by the middlebox, or by the far device
	Reordered      uint64
	LongestQueue   int // octets
}

// shaper decides when each packet leaves. It has no clock of its own: times are
// nanoseconds since any moment, the same for all calls. Not safe for concurrent
// use.
type shaper struct {
	dice  *rand.Rand
	free  int64 // when the last octet accepted has passed the rate
	seq   uint64
	line  delayLine
	spare [][]byte
	stats Stats
}

func newShaper(seed uint64) *shaper {
	return &shaper{dice: rand.New(rand.NewPCG(seed, 7))}
}

// offer takes a copy of the packet on its way, or loses it.
func (s *shaper) offer(p Params, packet []byte, now int64) {
	leaves := now
	if p.Rate > 0 {
		s.free = max(s.free, now)
		waiting := int(float64(s.free-now) * p.Rate / 8e9)
		s.stats.LongestQueue = max(s.stats.LongestQueue, waiting)
		if waiting+len(packet) > p.queue() {
			s.stats.Overflowed++
			return
		}
		s.free += int64(float64(len(packet)) * 8e9 / p.Rate)
		leaves = s.free
	}
	// The wire loses what has passed the rate, as a real one does.
	if p.Loss > 0 && s.dice.Float64() < p.Loss {
		s.stats.Lost++
		return
	}
	if p.Reorder > 0 && s.dice.Float64() < p.Reorder {
		s.stats.Reordered++
	} else {
		leaves += int64(p.Delay)
	}
	s.seq++
	heap.Push(&s.line, flight{at: leaves, seq: s.seq, packet: append(s.buffer(), packet...)})
}

// due returns a packet whose time has come, nil when there is none. The caller
// gives it back with done.
func (s *shaper) due(now int64) []byte {
	if len(s.line) == 0 || s.line[0].at > now {
		return nil
	}
	return heap.Pop(&s.line).(flight).packet
}

// next tells how long it is until a packet is due; ok is false when none is
// under way.
func (s *shaper) next(now int64) (wait time.Duration, ok bool) {
	if len(s.line) == 0 {
		return 0, false
	}
	return time.Duration(max(0, s.line[0].at-now)), true
}

func (s *shaper) buffer() []byte {
	n := len(s.spare)
	if n == 0 {
		return make([]byte, 0, MTU)
	}
	b := s.spare[n-1]
	s.spare = s.spare[:n-1]
	return b[:0]
}

func (s *shaper) done(packet []byte) { s.spare = append(s.spare, packet) }

// flight is a packet under way.
type flight struct {
	at     int64
	seq    uint64 // orders packets of one moment
	packet []byte
}

// delayLine is a heap by time; packets that come in order cost it one
// comparison.
type delayLine []flight

func (l delayLine) Len() int { return len(l) }
func (l delayLine) Less(i, j int) bool {
	return l[i].at < l[j].at || l[i].at == l[j].at && l[i].seq < l[j].seq
}
func (l delayLine) Swap(i, j int) { l[i], l[j] = l[j], l[i] }
func (l *delayLine) Push(f any)   { *l = append(*l, f.(flight)) }
func (l *delayLine) Pop() any {
	last := len(*l) - 1
	f := (*l)[last]
	(*l)[last] = flight{}
	*l = (*l)[:last]
	return f
}
