package quic

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// udpProxy stands between clients and a server, so that a test can hold, drop
// and keep datagrams.
type udpProxy struct {
	addr   netip.AddrPort
	front  *net.UDPConn
	server netip.AddrPort
	wg     sync.WaitGroup

	mu       sync.Mutex // guards what follows
	ways     map[netip.AddrPort]*net.UDPConn
	toServer func([]byte) bool // false: drop. Called with mu held, as is the next
	toClient func([]byte) bool
	holding  bool // datagrams to clients wait in held
	held     []func()
}

func newProxy(t *testing.T, server netip.AddrPort) *udpProxy {
	t.Helper()
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	pass := func([]byte) bool { return true }
	p := &udpProxy{
		addr: c.LocalAddr().(*net.UDPAddr).AddrPort(), front: c, server: server,
		ways: map[netip.AddrPort]*net.UDPConn{}, toServer: pass, toClient: pass,
	}
	p.wg.Go(p.forward)
	t.Cleanup(func() {
		c.Close()
		p.mu.Lock()
		for _, w := range p.ways {
			w.Close()
		}
		p.mu.Unlock()
		p.wg.Wait()
	})
	return p
}

// rule sets what passes.
func (p *udpProxy) rule(toServer, toClient func([]byte) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if toServer != nil {
		p.toServer = toServer
	}
	if toClient != nil {
		p.toClient = toClient
	}
}

// hold keeps what goes to clients back; with false it lets it go.
func (p *udpProxy) hold(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.holding = on
	for _, send := range p.held {
		send()
	}
	p.held = nil
}

func (p *udpProxy) forward() {
	buf := make([]byte, 65536)
	for {
		n, from, err := p.front.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		p.mu.Lock()
		w := p.ways[from]
		if w == nil {
			if w, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(p.server)); err != nil {
				p.mu.Unlock()
				return
			}
			p.ways[from] = w
			p.wg.Go(func() { p.back(w, from) })
		}
		if p.toServer(buf[:n]) {
			w.Write(buf[:n])
		}
		p.mu.Unlock()
	}
}

func (p *udpProxy) back(w *net.UDPConn, to netip.AddrPort) {
	buf := make([]byte, 65536)
	for {
		n, err := w.Read(buf)
		if errors.Is(err, unix.ECONNREFUSED) {
			continue // the server is not there just now
		} else if err != nil {
			return
		}
		p.mu.Lock()
		if p.holding {
			b := bytes.Clone(buf[:n])
			p.held = append(p.held, func() { p.front.WriteToUDPAddrPort(b, to) })
		} else if p.toClient(buf[:n]) {
			p.front.WriteToUDPAddrPort(buf[:n], to)
		}
		p.mu.Unlock()
	}
}
