package main

import "time"

// growth measures beside more and more connections that nobody uses: streams of
// one QUIC connection pool, then QUIC connections, each to another address.
func growth(b *bench) error {
	streams, connections := []int{1, 10, 100, 1000, 10_000}, []int{1, 10, 100, 1000}
	if b.quick {
		streams, connections = []int{10}, []int{10}
	}
	most := streams[len(streams)-1]
	b.grow("streams", streams, false, b.roomFor(most, b.few(tcp, two, one)...))
	b.grow("QUIC connections", connections, true, []string{two, one})
	return nil
}

func (b *bench) grow(of string, steps []int, spread bool, ways []string) {
	type growing struct {
		crowd
		ones   int     // port of the server for connects
		memory float64 // of the brokers before
	}
	all := map[*lane]*growing{}
	lanes := b.lanes(func(l *lane) (err error) {
		g := &growing{crowd: crowd{lane: l}}
		all[l] = g
		if g.ones, err = l.serve(l.load("serve-one")); err != nil {
			return err
		}
		if err = l.startLoad(); err != nil {
			return err
		}
		if _, err = l.bulk(bulkKinds[0], 0.2); err != nil {
			return err
		}
		g.memory, err = l.settled()
		return err
	}, ways...)
	defer closeAll(lanes)
	for _, n := range steps {
		b.rounds(lanes, 1, func(l *lane) error {
			g := all[l]
			if _, err := g.grow(n, spread); err != nil || len(l.base) == 0 {
				return err
			}
			now, err := l.settled()
			b.addPoint(series{"memory of the brokers", of, "MiB", l.way}, n, (now-g.memory)/(1<<20))
			return err
		})
		b.rounds(lanes, 3, func(l *lane) error {
			u, err := l.bulk(bulkKinds[0], b.seconds(0.5))
			if err != nil {
				return err
			}
			b.addPoint(series{bulkOne, of, "Gbit/s", l.way}, n, u.values["bytes"]*8/u.values["ns"])
			if u, err = l.ask(time.Minute, l.load("ping", l.address, l.port, 64, b.seconds(0.5))); err != nil {
				return err
			}
			b.addPoint(series{"ping-pong 64 B, p50", of, "µs", l.way}, n, u.values["rtt_p50"]/1e3)
			b.addPoint(series{"ping-pong 64 B, p99", of, "µs", l.way}, n, u.values["rtt_p99"]/1e3)
			if u, err = l.ask(time.Minute, l.load("connects", l.address, all[l].ones, b.seconds(0.4))); err != nil {
				return err
			}
			b.addPoint(series{wholeConnect + ", p50", of, "µs", l.way}, n, u.values["whole_p50"]/1e3)
			return nil
		})
	}
}
