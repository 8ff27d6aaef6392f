package main

import (
	"fmt"
	"time"
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

// pingPong sends a message to and fro on one connection.
func pingPong(b *bench) error {
	lanes, err := b.lanes(tcp, tls, quicGo, two, one, direct, quicly)
	if err != nil {
		return err
	}
	defer closeAll(lanes)
	ports := map[string]int{}
	for _, l := range lanes {
		if ports[l.way], err = l.serve(l.load("serve")); err != nil {
			return err
		}
	}
	for _, size := range []int{64, 16 << 10} {
		b.rounds(lanes, 0, func(l *lane) error {
			u, err := l.ask(time.Minute, l.load("ping", l.address, ports[l.way], size, b.seconds(1)))
			if err != nil {
				return err
			}
			b.addPercentiles(fmt.Sprintf("ping-pong %s", octets(size)), "rtt", l.way, u)
			return nil
		})
	}
	return nil
}
