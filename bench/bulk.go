package main

import (
	"fmt"
	"time"
)

// bulkKind is one load of bulk streams.
type bulkKind struct {
	direction string
	streams   int
	write     int // octets a write
	rounds    int // at most; 0: all
}

func (k bulkKind) String() string {
	s := "streams"
	if k.streams == 1 {
		s = "stream"
	}
	name := fmt.Sprintf("bulk %s, %d %s", k.direction, k.streams, s)
	if k.write != bulkWrite {
		name += fmt.Sprintf(", %s writes", octets(k.write))
	}
	return name
}

const bulkWrite = 128 << 10

var bulkKinds = []bulkKind{
	{"up", 1, bulkWrite, 0},
	{"up", 8, bulkWrite, 0},
	{"down", 1, bulkWrite, 0},
	{"down", 8, bulkWrite, 3},
	{"up", 4, bulkWrite, 3},
	{"down", 4, bulkWrite, 3},
	{"up", 64, bulkWrite, 3},
	{"down", 64, bulkWrite, 3},
	{"up", 1, 16 << 10, 3},
	{"up", 1, 1460, 3},
}

// cpuOfOne is a figure that bars are about.
const cpuOfOne = "CPU, bulk up, 1 stream"

// bulk sends as much as the way carries.
func bulk(b *bench) error {
	kinds := bulkKinds
	if b.quick {
		kinds = kinds[:2]
	}
	lanes := b.lanes(func(l *lane) (err error) {
		if l.port, err = l.serve(l.load("serve")); err != nil {
			return err
		}
		// The first run opens connections and windows, and compares every byte.
		_, err = l.bulk(kinds[0], 0.3, "full")
		return err
	}, tcp, tls, quicGo, two, one, direct)
	defer closeAll(lanes)
	for _, k := range kinds {
		b.rounds(lanes, k.rounds, func(l *lane) error {
			u, err := l.bulk(k, b.seconds(1.2))
			if err != nil {
				return err
			}
			bytes, ns := u.values["bytes"], u.values["ns"]
			b.add(figure{k.String(), "Gbit/s", true}, l.way, bytes*8/ns)
			cpu := u.cpu.Seconds() + u.values["cpu"]/1e9
			b.add(figure{"CPU, " + k.String(), "s/GB", false}, l.way, cpu/(bytes/1e9))
			return nil
		})
	}
	return nil
}

func (l *lane) bulk(k bulkKind, seconds float64, more ...any) (used, error) {
	args := append([]any{"bulk", l.address, l.port, k.direction, k.streams, seconds, k.write}, more...)
	return l.ask(time.Minute, l.load(args...))
}

// octets prints a power of two shortly.
func octets(n int) string {
	if n%1024 == 0 {
		return fmt.Sprintf("%d KiB", n/1024)
	}
	return fmt.Sprintf("%d B", n)
}
