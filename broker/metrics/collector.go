package metrics

import (
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/poemq/poemq/broker"
	"github.com/poemq/poemq/broker/journal"
	"github.com/poemq/poemq/quic"
)

// Source is what is shown.
type Source struct {
	Broker  *broker.Broker
	Journal *journal.Journal // nil: there are no errors to show
	Version string
}

// collector makes metrics of a broker's figures.
type collector struct{ Source }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("poemq_"+name, help, labels, nil)
}

var (
	build           = desc("build_info", "1, with the version as a label.", "version")
	sessions        = desc("sessions", "Launched process trees and containers that are served.")
	sessionsTotal   = desc("sessions_total", "Sessions there were and are.")
	sockets         = desc("sockets", "Sockets of programs, by state.", "state")
	calls           = desc("calls_total", "Socket calls of programs that were answered.", "call")
	connections     = desc("connections", "Living connections of programs, by what carries them and who made them.", "via", "side")
	connectionsEver = desc("connections_total", "Connections of programs there were and are.", "via", "side")
	octets          = desc("bytes_total", "Octets of programs' data, as the program sees the direction.", "via", "side", "direction")
	ended           = desc("connections_ended_total", "Connections that have ended, by reason.", "reason")
	failed          = desc("connect_failures_total", "Connects that failed, by errno.", "errno")
	fallbacks       = desc("fallbacks_total", "Connections carried by TCP since QUIC was not to be had, by reason.", "reason")
	remembered      = desc("fallback_destinations", "Destinations that are reached by TCP at once.")
	quicConns       = desc("quic_connections", "Open QUIC connections.", "side")
	quicEver        = desc("quic_connections_total", "QUIC connections there were and are.", "side")
	quicOctets      = desc("quic_bytes_total", "Octets of UDP payload.", "direction")
	quicPackets     = desc("quic_packets_total", "QUIC packets.", "direction")
	quicLost        = desc("quic_packets_lost_total", "QUIC packets taken for lost.")
	unproved        = desc("quic_handshakes_unproved", "Handshakes under way of peers whose address is not proved.")
	limited         = desc("quic_limited_total", "What peers were denied by [limits]: connections and streams refused, connections ended as memory was short.", "what")
	rtt             = desc("quic_rtt_seconds", "Smoothed round-trip times of the open QUIC connections.", "quantile")
	fronts          = desc("front_connections", "Living connections of [[expose]] and [[forward]].", "kind", "listen")
	frontsEver      = desc("front_connections_total", "Connections of [[expose]] and [[forward]] there were and are.", "kind", "listen")
	frontsFailed    = desc("front_failures_total", "Connections of [[expose]] and [[forward]] that did not come about.", "kind", "listen")
	frontsUp        = desc("front_up", "1 if the port is served.", "kind", "listen")
	complaints      = desc("log_lines_total", "Warnings and errors of the log, those too that were only counted.", "level")
	took            = desc("collect_seconds", "How long putting these figures together took.")
)

// Describe leaves it to Collect.
func (c collector) Describe(ch chan<- *prometheus.Desc) { ch <- sessions }

// Collect takes the figures of now.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	begun := time.Now()
	f := c.Broker.Figures()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge(build, 1, c.Version)
	gauge(sessions, float64(f.Sessions))
	counter(sessionsTotal, uint64(f.SessionsTotal))
	for state, n := range f.SocketsByState {
		gauge(sockets, float64(n), state)
	}
	for call, n := range f.Calls {
		counter(calls, n, call)
	}
	for _, k := range allCarried {
		gauge(connections, float64(f.Living[k]), k.Via, k.Side)
		counter(connectionsEver, f.Begun[k], k.Via, k.Side)
		counter(octets, f.Octets[k].Sent, k.Via, k.Side, "sent")
		counter(octets, f.Octets[k].Received, k.Via, k.Side, "received")
	}
	for reason, n := range f.Endings {
		counter(ended, n, reason)
	}
	for errno, n := range f.ConnectsFailed {
		counter(failed, n, errno)
	}
	for reason, n := range f.Fallbacks {
		counter(fallbacks, n, reason)
	}
	gauge(remembered, float64(f.Remembered))
	quicFigures(&f, gauge, counter)
	for _, s := range f.Fronts {
		gauge(fronts, float64(s.Connections), s.Kind, s.Listen)
		counter(frontsEver, s.Total, s.Kind, s.Listen)
		counter(frontsFailed, s.Failed, s.Kind, s.Listen)
		up := 0.0
		if s.Error == "" {
			up = 1
		}
		gauge(frontsUp, up, s.Kind, s.Listen)
	}
	if c.Journal != nil {
		warnings, errors := c.Journal.Count()
		counter(complaints, warnings, "warn")
		counter(complaints, errors, "error")
	}
	gauge(took, time.Since(begun).Seconds())
}

// allCarried has a series of each from the beginning, so that a rate is known
// from the first.
var allCarried = []broker.Carried{
	{Via: "quic", Side: "dialed"}, {Via: "quic", Side: "accepted"}, {Via: "tcp", Side: "dialed"}, {Via: "tcp", Side: "accepted"},
}

func quicFigures(f *broker.Figures, gauge func(*prometheus.Desc, float64, ...string), counter func(*prometheus.Desc, uint64, ...string)) {
	clients := 0
	for _, c := range f.QUICConnections {
		if c.Client {
			clients++
		}
	}
	gauge(quicConns, float64(clients), "client")
	gauge(quicConns, float64(len(f.QUICConnections)-clients), "server")
	counter(quicEver, f.QUIC.Dialed, "client")
	counter(quicEver, f.QUIC.Accepted, "server")
	counter(quicOctets, f.QUIC.BytesSent, "sent")
	counter(quicOctets, f.QUIC.BytesReceived, "received")
	counter(quicPackets, f.QUIC.PacketsSent, "sent")
	counter(quicPackets, f.QUIC.PacketsReceived, "received")
	counter(quicLost, f.QUIC.PacketsLost)
	gauge(unproved, float64(f.Limits.Unproved))
	counter(limited, f.Limits.Refused, "connection_refused")
	counter(limited, f.Limits.Busy, "stream_refused")
	counter(limited, f.Limits.Shed, "connection_ended")
	all := rtts(f.QUICConnections)
	for _, q := range []struct {
		of   float64
		name string
	}{{0.5, "0.5"}, {0.95, "0.95"}, {1, "1"}} {
		if d, ok := quantile(all, q.of); ok {
			gauge(rtt, d.Seconds(), q.name)
		}
	}
}

// rtts are the round-trip times that are known, sorted.
func rtts(conns []quic.ConnInfo) []time.Duration {
	var all []time.Duration
	for _, c := range conns {
		if c.Stats.RTT > 0 {
			all = append(all, c.Stats.RTT)
		}
	}
	slices.Sort(all)
	return all
}

// quantile of sorted values: the smallest that q of all do not exceed.
func quantile(sorted []time.Duration, q float64) (time.Duration, bool) {
	if len(sorted) == 0 {
		return 0, false
	}
	i := int(q*float64(len(sorted))+0.999999) - 1
	return sorted[max(0, min(i, len(sorted)-1))], true
}

// newRegistry has the broker's metrics, the process's and the Go runtime's.
func newRegistry(s Source) *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collector{s}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}
