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
	lanes, err := b.lanes(tcp, floor, one)
	if err != nil {
		return err
	}
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
	return nil
}

// callsUnder times the calls of a lane's program, with a broker for each.
func (b *bench) callsUnder(s *syscalls.Bench, l *lane, order []syscalls.Call) error {
	var slowest syscalls.Call
	for _, o := range order {
		fresh, err := b.lane(l.way)
		if err != nil {
			return err
		}
		// Not under require: a port that the kernel chooses may be another's in UDP.
		wrapper := []string{b.program("poemq-launch"), "--broker", fresh.brokers.client.socket, "--"}
		c, err := s.Under(wrapper, nil, o.Name)
		fresh.close()
		if err != nil {
			return err
		}
		b.addCalls(l.way, []syscalls.Call{c})
		if syscalls.Floor(c.Name) != "" && c.Name != "socket" && c.Median > slowest.Median {
			slowest = c
		}
	}
	b.add(figure{callSlowest, "µs", false}, l.way, float64(slowest.Median.Nanoseconds())/1e3)
	return nil
}

func (b *bench) addCalls(way string, all []syscalls.Call) {
	for _, c := range all {
		name := "call " + strings.ReplaceAll(c.Name, "_", " ")
		b.add(figure{name, "µs", false}, way, float64(c.Median.Nanoseconds())/1e3)
	}
}
