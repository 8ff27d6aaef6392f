package main

import (
	"slices"
	"strings"

	"github.com/poemq/poemq/bench/syscalls"
)

// Figures that bars are about.
const (
	callSocket  = "call socket"
	callSlowest = "call, slowest of those answered at once"
)

// calls times single system calls under a broker that has nothing else to do.
func calls(b *bench) error {
	times := 2000
	if b.quick {
		times = 200
	}
	s, err := syscalls.New(b.dir, times)
	if err != nil {
		return err
	}
	lanes := b.lanes(func(*lane) error { return nil }, tcp, floor, one, hooked)
	defer closeAll(lanes)
	order, err := s.Native() // warms up, and tells which there are
	if err != nil {
		return err
	}
	b.rounds(lanes, 0, func(l *lane) error {
		switch l.way {
		case tcp:
			all, err := s.Native()
			b.addCalls(l.way, all)
			return err
		case floor:
			all, err := s.Floor()
			for _, o := range order {
				i := slices.IndexFunc(all, func(c syscalls.Call) bool { return c.Name == syscalls.Floor(o.Name) })
				if err == nil && i >= 0 {
					b.addCalls(l.way, []syscalls.Call{{Name: o.Name, Median: all[i].Median, P99: all[i].P99}})
				}
			}
			return err
		}
		return b.callsUnder(s, l, order)
	})
	for _, way := range []string{one, hooked} {
		b.addSlowest(way, order)
	}
	return nil
}

// addSlowest repeats the figure of the slowest call that is answered at once, but
// for socket, which makes a file.
func (b *bench) addSlowest(way string, order []syscalls.Call) {
	var slowest []float64
	for _, o := range order {
		values := b.values[key{callName(o.Name), way}]
		if syscalls.Floor(o.Name) == "" || o.Name == "socket" || len(values) == 0 {
			continue
		}
		if slowest == nil || spreadOf(values).median > spreadOf(slowest).median {
			slowest = values
		}
	}
	for _, v := range slowest {
		b.add(figure{callSlowest, "µs", false}, way, v)
	}
}

// callsUnder times the calls of a lane's program, with a broker for each.
func (b *bench) callsUnder(s *syscalls.Bench, l *lane, order []syscalls.Call) error {
	for _, o := range order {
		fresh, err := b.lane(l.way)
		if err != nil {
			return err
		}
		// Not under require: a port that the kernel chooses may be another's in UDP.
		wrapper, env := fresh.under(fresh.brokers.client, "prefer")(nil)
		c, err := s.Under(wrapper, env, o.Name)
		fresh.close()
		if err != nil {
			return err
		}
		b.addCalls(l.way, []syscalls.Call{c})
	}
	return nil
}

func (b *bench) addCalls(way string, all []syscalls.Call) {
	for _, c := range all {
		b.add(figure{callName(c.Name), "µs", false}, way, float64(c.Median.Nanoseconds())/1e3)
	}
}

func callName(call string) string { return "call " + strings.ReplaceAll(call, "_", " ") }
