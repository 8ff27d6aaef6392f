package main

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/poemq/poemq/test/link"
)

// pathLossy is a figure that bars are about.
const pathLossy = "bulk up, 100 Mbit/s, 50 ms, 1.0 % loss"

// pathLane is a lane on a path of its own.
type pathLane struct {
	*lane
	path *link.Link
	ones int // port of the server for connects; the lane's is that for streams
}

func (p *pathLane) close() {
	p.lane.close()
	p.path.Close()
}

// paths measures over 100 Mbit/s and a round trip of 50 ms, with loss and
// without. Loss falls by chance, so that there several run at once, each on a path
// with dice of its own, and their sum counts.
func paths(b *bench) error {
	if os.Geteuid() != 0 {
		b.note("not measured: slow and lossy paths: network namespaces need root")
		return nil
	}
	for _, c := range []struct {
		loss    float64
		each    int // paths of each way
		seconds float64
	}{{0, 1, 4}, {0.001, 1, 6}, {0.01, 2, 6}} {
		if b.quick {
			if c.loss != 0.01 {
				continue
			}
			c.each = 1
		}
		if err := b.path(c.loss, c.each, c.seconds); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) path(loss float64, each int, seconds float64) error {
	var all []*pathLane
	defer func() {
		for _, p := range all {
			p.close()
		}
	}()
	byWay := map[string][]*pathLane{}
	var turn []*lane // one of each way
	for i := range each {
		for _, way := range []string{tcp, quicGo, two} {
			p, err := b.newPath(way, link.Params{Delay: 25 * time.Millisecond, Rate: 100e6, Loss: loss, Seed: uint64(i)})
			if err != nil {
				return err
			}
			all = append(all, p)
			byWay[way] = append(byWay[way], p)
			if i == 0 {
				turn = append(turn, p.lane)
			}
		}
	}
	f := figure{fmt.Sprintf("bulk up, 100 Mbit/s, 50 ms, %.1f %% loss", 100*loss), "Mbit/s", true}
	if loss > 0 {
		return b.allAtOnce(f, byWay, seconds)
	}
	// Without loss a way takes the machine for itself.
	b.rounds(turn, 3, func(l *lane) error {
		p := byWay[l.way][0]
		u, err := l.bulk(bulkKinds[0], b.seconds(seconds))
		if err != nil {
			return err
		}
		b.add(f, l.way, u.values["bytes"]*8e3/u.values["ns"])
		if u, err = l.ask(time.Minute, l.load("connects", l.address, p.ones, b.seconds(2))); err != nil {
			return err
		}
		b.add(figure{"connect + 64 B echo + close, 50 ms, pooled, p50", "ms", false}, l.way, u.values["whole_p50"]/1e6)
		return nil
	})
	return nil
}

// allAtOnce has all paths carry a bulk stream in each round, and adds up.
func (b *bench) allAtOnce(f figure, byWay map[string][]*pathLane, seconds float64) error {
	for range min(b.perFigure, 4) {
		var wait sync.WaitGroup
		var mu sync.Mutex // guards what follows
		rates, failed := map[string]float64{}, map[string]error{}
		for way, paths := range byWay {
			for _, p := range paths {
				wait.Go(func() {
					u, err := p.bulk(bulkKinds[0], b.seconds(seconds))
					mu.Lock()
					defer mu.Unlock()
					failed[way] = errors.Join(failed[way], err)
					rates[way] += u.values["bytes"] * 8e3 / u.values["ns"]
				})
			}
		}
		wait.Wait()
		for way, rate := range rates {
			if failed[way] != nil {
				return failed[way]
			}
			b.add(f, way, rate/float64(len(byWay[way])))
		}
	}
	return nil
}

func (b *bench) newPath(way string, params link.Params) (p *pathLane, err error) {
	l, err := link.New("client", "server", params)
	if err != nil {
		return nil, err
	}
	p = &pathLane{path: l}
	if p.lane, err = b.laneOn(way, l.B, l.A, l.B.Addr.String()); err != nil {
		l.Close()
		return nil, err
	}
	if way == tcp { // whatever this machine uses by default
		p.client = func(argv []string) (wrapped, env []string) { return argv, []string{"LOAD_CONGESTION=cubic"} }
	}
	if err = p.startConnects(); err == nil {
		p.ones = p.port
		err = p.startLoad()
	}
	if err == nil {
		_, err = p.bulk(bulkKinds[0], 0.2)
	}
	if err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}
