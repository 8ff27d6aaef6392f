package quic

import "sync"

// Totals are figures of all connections that there were and are.
type Totals struct {
	Dialed, Accepted             uint64 // connections
	BytesSent, BytesReceived     uint64 // octets of UDP payload
	PacketsSent, PacketsReceived uint64
	PacketsLost                  uint64
}

// Totals never go down while the host lives.
func (h *Host) Totals() Totals { return h.past.sum() }

// past adds up connections. The zero past is ready.
type past struct {
	mu     sync.Mutex // guards what follows
	living map[*conn]struct{}
	ended  Totals
}

func (p *past) begin(c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.living == nil {
		p.living = make(map[*conn]struct{})
	}
	p.living[c] = struct{}{}
	if c.heard != nil {
		p.ended.Dialed++
	} else {
		p.ended.Accepted++
	}
}

func (p *past) end(c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.living, c)
	p.ended.add(c)
}

func (t *Totals) add(c *conn) {
	q := c.qc.ConnectionStats()
	t.BytesSent += q.BytesSent
	t.BytesReceived += q.BytesReceived
	t.PacketsSent += q.PacketsSent
	t.PacketsReceived += q.PacketsReceived
	t.PacketsLost += q.PacketsLost
}

func (p *past) sum() Totals {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.ended
	for c := range p.living {
		t.add(c)
	}
	return t
}
