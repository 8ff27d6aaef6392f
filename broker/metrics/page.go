package metrics

import (
	"embed"
	"slices"
	"strings"
	"time"

	"github.com/poemq/poemq/broker/api"
	"github.com/poemq/poemq/broker/journal"
)

// files are the status page: what a browser needs, and nothing from elsewhere.
//
//go:embed page
var files embed.FS

// mostRows bounds each list of the page; the figures are of all.
const mostRows = 100

// pageData is what the page draws. Octets and counts are sums since poemqd
// started: the page makes rates of two of them.
type pageData struct {
	Time        time.Time         `json:"time"`
	Status      api.Status        `json:"status"`
	Quic        carriedFigures    `json:"quic"`
	TCP         carriedFigures    `json:"tcp"`
	RTT         rttFigures        `json:"rtt"`
	PacketsSent uint64            `json:"packets_sent"`
	PacketsLost uint64            `json:"packets_lost"`
	Sessions    []api.Session     `json:"sessions"`    // the busiest
	Connections []api.Connection  `json:"connections"` // the busiest
	Fallback    []api.Fallback    `json:"fallback"`    // the latest
	Fallbacks   map[string]uint64 `json:"fallbacks"`   // connections, by reason
	Endings     map[string]uint64 `json:"endings"`     // by reason
	Failed      map[string]uint64 `json:"failed"`      // connects, by errno
	Log         []journal.Entry   `json:"log"`         // the newest first
	Warnings    uint64            `json:"warnings"`
	Errors      uint64            `json:"errors"`
	Shown       int               `json:"shown_at_most"`
	Total       struct {
		Sessions, Connections, Fallback int
	} `json:"total"`
}

type carriedFigures struct {
	Living   int    `json:"living"`
	Begun    uint64 `json:"begun"`
	Sent     uint64 `json:"sent"`
	Received uint64 `json:"received"`
}

type rttFigures struct {
	Median float64 `json:"median_ms"`
	P95    float64 `json:"p95_ms"`
	Max    float64 `json:"max_ms"`
}

func (s Source) page() pageData {
	f := s.Broker.Figures()
	everybody := func(uint32) bool { return true }
	p := pageData{
		Time: time.Now(), Status: s.Broker.Status(), PacketsSent: f.QUIC.PacketsSent, PacketsLost: f.QUIC.PacketsLost,
		Sessions: s.Broker.Sessions(everybody), Connections: s.Broker.Connections(everybody, true), Fallback: s.Broker.Fallbacks(everybody),
		Fallbacks: f.Fallbacks, Endings: f.Endings, Failed: f.ConnectsFailed, Log: []journal.Entry{}, Shown: mostRows,
	}
	p.Status.Version = s.Version
	p.Total.Sessions, p.Total.Connections, p.Total.Fallback = len(p.Sessions), len(p.Connections), len(p.Fallback)
	for _, k := range allCarried {
		c := &p.Quic
		if k.Via == "tcp" {
			c = &p.TCP
		}
		c.Living += f.Living[k]
		c.Begun += f.Begun[k]
		c.Sent += f.Octets[k].Sent
		c.Received += f.Octets[k].Received
	}
	all := rtts(f.QUICConnections)
	for _, q := range []struct {
		of float64
		to *float64
	}{{0.5, &p.RTT.Median}, {0.95, &p.RTT.P95}, {1, &p.RTT.Max}} {
		if d, ok := quantile(all, q.of); ok {
			*q.to = float64(d.Microseconds()) / 1000
		}
	}
	slices.SortStableFunc(p.Sessions, func(a, b api.Session) int { return more(a.Sent+a.Received, b.Sent+b.Received) })
	slices.SortStableFunc(p.Connections, func(a, b api.Connection) int { return more(a.Sent+a.Received, b.Sent+b.Received) })
	slices.Reverse(p.Fallback)
	p.Sessions, p.Connections, p.Fallback = first(p.Sessions), first(p.Connections), first(p.Fallback)
	if s.Journal != nil {
		p.Log = append(p.Log, s.Journal.Recent()...)
		p.Warnings, p.Errors = s.Journal.Count()
	}
	for i := range p.Log {
		p.Log[i].Text = strings.ToValidUTF8(p.Log[i].Text, "?")
	}
	return p
}

func more(a, b uint64) int {
	switch {
	case a > b:
		return -1
	case a < b:
		return 1
	}
	return 0
}

func first[T any](all []T) []T { return all[:min(len(all), mostRows)] }
