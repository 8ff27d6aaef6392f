package main

import "fmt"

// bar is a ratio, or a figure, that poemq wants to keep.
type bar struct {
	title string
	over  key
	under key // none: the figure itself
	most  bool
	limit float64
	// then has poem-quicly's figure and that of the kernel's TCP, both measured
	// together once. Where poem-quicly is not at hand, it stands in, scaled by
	// the kernel's TCP now.
	then standIn
}

type standIn struct {
	quicly, tcp float64
	now         string // the figure of the kernel's TCP
}

const (
	ping64 = "ping-pong 64 B, p50"
	// Kernel TCP's 64 µs beside poem-quicly's 111 were of ends on different cores.
	pingApart = "ping-pong 64 B, ends on different cores, p50"
	bulkOne   = "bulk up, 1 stream"
	iperf1    = "iperf3 up, 1 stream"
	iperf4    = "iperf3 up, 4 streams"

	nginxKeep  = "nginx, wrk -c10, keep-alive"
	nginxClose = "nginx, wrk -c10, Connection: close"
	redis10    = "redis GET, -c10 -P 1"
	redis50    = "redis GET, -c50 -P 16"
)

var bars = []bar{
	{title: "one bulk stream, two brokers ÷ quic-go", over: key{bulkOne, two}, under: key{bulkOne, quicGo}, limit: 1.8},
	{title: "8 bulk streams, two brokers ÷ quic-go", over: key{"bulk up, 8 streams", two}, under: key{"bulk up, 8 streams", quicGo}, limit: 1.3},
	{title: "iperf3, two brokers ÷ poem-quicly", over: key{iperf1, two}, under: key{iperf1, quicly}, limit: 7, then: standIn{0.56, 32, iperf1}},
	{title: "iperf3 -P 4, two brokers ÷ poem-quicly", over: key{iperf4, two}, under: key{iperf4, quicly}, limit: 10, then: standIn{0.28, 32, iperf1}},
	{title: "CPU s/GB, two brokers ÷ quic-go", over: key{cpuOfOne, two}, under: key{cpuOfOne, quicGo}, most: true, limit: 0.55},
	{title: "ping-pong 64 B, two brokers ÷ quic-go", over: key{ping64, two}, under: key{ping64, quicGo}, most: true, limit: 1.8},
	{title: "ping-pong 64 B, one broker ÷ poem-quicly", over: key{pingApart, one}, under: key{pingApart, quicly}, most: true, limit: 1, then: standIn{111, 64, pingApart}},
	{title: "connect + echo + close, two brokers ÷ kernel TCP", over: key{wholeConnect + ", p50", two}, under: key{wholeConnect + ", p50", tcp}, most: true, limit: 4},
	{
		title: "connect + echo + close, two brokers ÷ poem-quicly", over: key{wholeConnect + ", p50", two}, under: key{wholeConnect + ", p50", quicly},
		most: true, limit: 0.2, then: standIn{1475, 60, wholeConnect + ", p50"},
	},
	{title: "nginx keep-alive, two brokers ÷ kernel TCP", over: key{nginxKeep, two}, under: key{nginxKeep, tcp}, limit: 0.45},
	{title: "nginx Connection: close, two brokers ÷ kernel TCP", over: key{nginxClose, two}, under: key{nginxClose, tcp}, limit: 0.2},
	{title: "redis GET -c10, two brokers ÷ kernel TCP", over: key{redis10, two}, under: key{redis10, tcp}, limit: 0.4},
	{title: "redis GET -c50 -P 16, two brokers ÷ kernel TCP", over: key{redis50, two}, under: key{redis50, tcp}, limit: 0.6},
	{title: "slowest trapped call answered without the network, µs", over: key{callSlowest, one}, most: true, limit: 12},
	{title: "trapped socket(), µs", over: key{callSocket, one}, most: true, limit: 18},
	{title: "memory per idle connection, both brokers, KiB", over: key{idleMemory, two}, most: true, limit: 24},
	{title: "throughput beside 10,000 idle ÷ beside none", over: key{idleBulk + idleCrowd, two}, under: key{idleBulk + idleNone, two}, limit: 0.9},
	{title: "p99 beside 10,000 idle ÷ beside none", over: key{idlePingP99 + idleCrowd, two}, under: key{idlePingP99 + idleNone, two}, most: true, limit: 1.5},
	{title: "direct ÷ kernel TCP, one bulk stream", over: key{bulkOne, direct}, under: key{bulkOne, tcp}, limit: 1},
	{title: "direct ÷ kernel TCP, ping-pong 64 B", over: key{ping64, direct}, under: key{ping64, tcp}, most: true, limit: 1},
	{title: "100 Mbit/s, 50 ms, 1 % loss, two brokers ÷ TCP cubic", over: key{pathLossy, two}, under: key{pathLossy, tcp}, limit: 1},
}

// verdict is a bar and what was measured.
type verdict struct {
	bar
	got   spread
	stood bool // poem-quicly's figure is a stand-in
}

func (v verdict) kept() bool {
	if v.most {
		return v.got.median <= v.limit
	}
	return v.got.median >= v.limit
}

// of holds the results against the bar.
func (b bar) of(r *results) (v verdict) {
	v = verdict{bar: b, got: r.ratio(b.over, b.under)}
	switch {
	case b.under == key{}:
		v.got = r.of(b.over.figure, b.over.way)
	case !v.got.valid() && b.then.now != "":
		v.stood = true
		var all []float64
		over, now := r.values[b.over], r.values[key{b.then.now, tcp}]
		for i := range min(len(over), len(now)) {
			all = append(all, over[i]/(b.then.quicly*now[i]/b.then.tcp))
		}
		v.got = spreadOf(all)
	}
	return v
}

func (v verdict) wanted() string {
	sign := "≥"
	if v.most {
		sign = "≤"
	}
	return fmt.Sprintf("%s %.4g", sign, v.limit)
}
