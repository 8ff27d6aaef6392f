package main

import (
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

const loopback = "127.0.0.1"

// percentiles are those that load tells of a measured time.
var percentiles = []struct{ key, name string }{{"p50", "p50"}, {"p99", "p99"}, {"p999", "p99.9"}}

// addPercentiles adds what load tells about name, in µs.
func (b *bench) addPercentiles(title, name, way string, u used) {
	for _, p := range percentiles {
		if _, ok := u.values[name+"_"+p.key]; !ok {
			continue
		}
		b.add(figure{title + ", " + p.name, "µs", false}, way, u.values[name+"_"+p.key]/1e3)
	}
}

// startLoad starts the server of most loads.
func (l *lane) startLoad() (err error) {
	l.port, err = l.serve(l.load("serve"))
	return err
}

// pingPong sends a message to and fro on one connection.
func pingPong(b *bench) error {
	lanes := b.lanes((*lane).startLoad, tcp, tls, quicGo, two, one, direct, quicly)
	defer closeAll(lanes)
	for _, size := range []int{64, 16 << 10} {
		b.rounds(lanes, 0, func(l *lane) error {
			u, err := l.ask(time.Minute, l.load("ping", l.address, l.port, size, b.seconds(1)))
			if err != nil {
				return err
			}
			b.addPercentiles(fmt.Sprintf("ping-pong %s", octets(size)), "rtt", l.way, u)
			return nil
		})
	}
	b.pingApart(lanes)
	return nil
}

// pingApart is the same with the two programs on different cores: two that do
// nothing but wait for each other are mostly put on one, where a wake-up is cheap.
// quic-go is left out: held to one core it is not what comes by default.
func (b *bench) pingApart(lanes []*lane) {
	cores, err := coresHere(2)
	if err != nil || len(cores) < 2 {
		b.note("not measured: ping-pong on different cores: there is one core (%v)", err)
		return
	}
	on := func(core int, argv []string) []string {
		return append([]string{"taskset", "-c", fmt.Sprint(core)}, argv...)
	}
	lanes = slices.DeleteFunc(slices.Clone(lanes), func(l *lane) bool { return l.way == quicGo })
	for _, l := range lanes {
		if l.port, err = l.serve(on(cores[1], l.load("serve"))); err != nil {
			b.fail(l.way, err)
			return
		}
	}
	b.rounds(lanes, 0, func(l *lane) error {
		u, err := l.ask(time.Minute, on(cores[0], l.load("ping", l.address, l.port, 64, b.seconds(1))))
		if err != nil {
			return err
		}
		delete(u.values, "rtt_p999")
		b.addPercentiles("ping-pong 64 B, ends on different cores", "rtt", l.way, u)
		return nil
	})
}

// coresHere are the first cores that this process may run on.
func coresHere(most int) (cores []int, err error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil, err
	}
	for i := 0; i < 1024 && len(cores) < most; i++ {
		if set.IsSet(i) {
			cores = append(cores, i)
		}
	}
	return cores, nil
}
