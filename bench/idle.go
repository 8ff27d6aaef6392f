package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	idleMemory   = "memory per idle connection, brokers"
	idleNone     = "none idle"
	idleCrowd    = "10,000 idle"
	idleBulk     = "bulk up, 1 stream, beside "
	idlePingP50  = "ping-pong 64 B, p50, beside "
	idlePingP99  = "ping-pong 64 B, p99, beside "
	idleOpenTime = "connect + 64 B echo, 10,000 that stay, mean"
)

// crowd is a lane with many connections that nobody uses.
type crowd struct {
	*lane
	holder int // port of the server that holds them; 0 before the first
	held   int
}

// idle holds 10,000 connections open and measures one more beside them, and
// beside none, in turns.
func idle(b *bench) error {
	n := 10_000
	if b.quick {
		n = 50 // the names of the figures stay: nobody reads them
	}
	ways := b.roomFor(n, tcp, two, one, direct)
	warm := func(l *lane) error {
		if err := l.startLoad(); err != nil {
			return err
		}
		// What a broker needs once is not a connection's.
		_, err := l.bulk(bulkKinds[0], 0.2)
		return err
	}
	empty := b.lanes(warm, ways...)
	defer closeAll(empty)
	full := b.lanes(func(l *lane) error { return errors.Join(warm(l), b.openCrowd(l, n)) }, ways...)
	defer closeAll(full)
	beside := map[*lane]string{}
	for _, l := range empty {
		beside[l] = idleNone
	}
	for _, l := range full {
		beside[l] = idleCrowd
	}
	b.rounds(slices.Concat(empty, full), 0, func(l *lane) error {
		u, err := l.bulk(bulkKinds[0], b.seconds(0.8))
		if err != nil {
			return err
		}
		b.add(figure{idleBulk + beside[l], "Gbit/s", true}, l.way, u.values["bytes"]*8/u.values["ns"])
		u, err = l.ask(time.Minute, l.load("ping", l.address, l.port, 64, b.seconds(0.8)))
		if err != nil {
			return err
		}
		b.add(figure{idlePingP50 + beside[l], "µs", false}, l.way, u.values["rtt_p50"]/1e3)
		b.add(figure{idlePingP99 + beside[l], "µs", false}, l.way, u.values["rtt_p99"]/1e3)
		return nil
	})
	return nil
}

// openCrowd opens n connections and tells what they cost.
func (b *bench) openCrowd(l *lane, n int) error {
	slab, err := slabOctets()
	if err != nil {
		return err
	}
	memory, err := l.settled()
	if err != nil {
		return err
	}
	c := &crowd{lane: l}
	took, err := c.grow(n, false)
	if err != nil {
		return err
	}
	b.add(figure{idleOpenTime, "µs", false}, l.way, float64(took.Microseconds())/float64(n))
	slabNow, err := slabOctets()
	if err != nil {
		return err
	}
	b.add(figure{"memory per idle connection, kernel (slab)", "KiB", false}, l.way, (slabNow-slab)/float64(n)/1024)
	if len(l.base) == 0 {
		return nil
	}
	memoryNow, err := l.settled()
	if err != nil {
		return err
	}
	b.add(figure{idleMemory, "KiB", false}, l.way, (memoryNow-memory)/float64(n)/1024)
	cpu, err := l.base.cpu()
	if err != nil {
		return err
	}
	start := time.Now()
	time.Sleep(time.Duration(b.seconds(5) * float64(time.Second))) // what is measured: doing nothing
	cpuNow, err := l.base.cpu()
	b.add(figure{"CPU of the brokers, 10,000 idle", "% core", false}, l.way, 100*(cpuNow-cpu).Seconds()/time.Since(start).Seconds())
	return err
}

// roomFor leaves out what this machine's limit of descriptors has no room for: a
// broker for both ends has two for each connection.
func (b *bench) roomFor(n int, ways ...string) []string {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil || limit.Cur > uint64(2*n+n/10) {
		return ways
	}
	b.note("not measured: one broker for both ends with %d connections: RLIMIT_NOFILE is %d", n, limit.Cur)
	return slices.DeleteFunc(ways, func(way string) bool { return way == one })
}

// grow has n connections held, to the same address or each to another one.
func (c *crowd) grow(n int, spread bool) (took time.Duration, err error) {
	if c.holder == 0 {
		if c.holder, err = c.serve(c.load("serve-hold")); err != nil {
			return 0, err
		}
	}
	for more := n - c.held; more > 0; more = n - c.held {
		batch := min(more, 10_000) // of one process
		argv := c.load("hold", c.address, c.holder, batch)
		if spread {
			argv = c.load("hold", stranger(c.held), c.holder, batch, "spread")
		}
		begin := time.Now()
		wrapped, env := c.client(argv)
		p, err := start(c.clientAt, "load hold ("+c.way+")", wrapped, env, func(line string) bool { return strings.HasPrefix(line, "held") })
		if err != nil {
			return 0, err
		}
		c.servers = append(c.servers, p)
		took += time.Since(begin)
		c.held += batch
	}
	return took, nil
}

// stranger is the n-th address of this host that no other load goes to.
func stranger(n int) string {
	return fmt.Sprintf("127.%d.%d.%d", 64+n>>16, n>>8&255, n&255)
}

// settled is the brokers' memory when it does not change any more.
func (l *lane) settled() (octets float64, err error) {
	last := -1.0
	for range 20 {
		octets = 0
		for _, p := range l.base {
			m, err := p.memory()
			if err != nil {
				return 0, err
			}
			octets += m
		}
		if last >= 0 && octets > 0.99*last && octets < 1.01*last {
			break
		}
		last = octets
		time.Sleep(time.Duration(l.bench.seconds(0.5) * float64(time.Second))) // memory has no event
	}
	return octets, nil
}

// slabOctets is the kernel's memory in small pieces, of everybody.
func slabOctets() (float64, error) {
	data, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "Slab:"); ok {
			n, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			return n * 1024, err
		}
	}
	return 0, errors.New("/proc/meminfo has no Slab")
}
