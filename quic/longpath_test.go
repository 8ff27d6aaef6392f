package quic

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// longPath carries UDP packets between clients and one server as a NAT with a
// long line does: each client has an address of its own at the server, and each
// packet takes delay. While dead is set it takes none.
type longPath struct {
	*net.UDPConn
	server net.Addr
	delay  time.Duration
	dead   atomic.Bool
	wg     sync.WaitGroup
}

func newLongPath(t *testing.T, server netip.AddrPort, delay time.Duration) *longPath {
	t.Helper()
	p := &longPath{UDPConn: loopbackUDP(t), server: net.UDPAddrFromAddrPort(server), delay: delay}
	p.wg.Go(p.fromClients)
	t.Cleanup(func() {
		p.Close()
		p.wg.Wait()
	})
	return p
}

func loopbackUDP(t *testing.T) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	c.SetReadBuffer(bufferWanted)
	return c
}

// fromClients ends when p is closed.
func (p *longPath) fromClients() {
	ups := map[netip.AddrPort]func([]byte){}
	var sockets []*net.UDPConn
	for buf := make([]byte, 2048); ; {
		n, from, err := p.ReadFromUDPAddrPort(buf)
		if err != nil {
			break
		}
		send := ups[from]
		if send == nil {
			up, err := net.DialUDP("udp4", nil, p.server.(*net.UDPAddr))
			if err != nil {
				break
			}
			up.SetReadBuffer(bufferWanted)
			sockets = append(sockets, up)
			send = p.line(func(b []byte) { up.Write(b) })
			ups[from] = send
			p.wg.Go(func() { p.fromServer(up, from) })
		}
		send(buf[:n])
	}
	for _, c := range sockets {
		c.Close()
	}
	for _, send := range ups {
		send(nil)
	}
}

func (p *longPath) fromServer(up *net.UDPConn, to netip.AddrPort) {
	send := p.line(func(b []byte) { p.WriteToUDPAddrPort(b, to) })
	for buf := make([]byte, 2048); ; {
		n, err := up.Read(buf)
		if n > 0 {
			send(buf[:n])
		} else if err != nil {
			send(nil)
			return
		}
	}
}

// line is one direction: what is put in comes out after the delay, in order.
// nil ends it.
func (p *longPath) line(out func([]byte)) (in func([]byte)) {
	type packet struct {
		due  time.Time
		data []byte
	}
	q := make(chan packet, 1<<14)
	p.wg.Go(func() {
		for k := range q {
			time.Sleep(time.Until(k.due))
			if !p.dead.Load() {
				out(k.data)
			}
		}
	})
	return func(b []byte) {
		if b == nil {
			close(q)
			return
		}
		select {
		case q <- packet{time.Now().Add(p.delay), append([]byte(nil), b...)}:
		default: // a full queue loses
		}
	}
}

// On a long path the congestion window is full again before the server has
// validated the client's new address: then the client must send anew.
func TestMoveOnLongPath(t *testing.T) {
	e, got := listen(t, testHost(t, nil), "127.0.0.1:0", ListenOptions{})
	p := newLongPath(t, e.Addr(), 100*time.Millisecond)
	h := testHost(t, func(c *Config) { c.KeepAlive = time.Second })
	client := dial(t, h, udpAddrPort(p.LocalAddr()))
	server := <-got
	l := linkOf(t, client)
	transfer(t, client, server, func(f *flow) {
		was := udpAddrPort(l.sock.LocalAddr())
		p.dead.Store(true)
		time.Sleep(12 * time.Second) // the length of the outage
		p.dead.Store(false)
		f.after(t, "the path was whole again", time.Now())
		until(t, "new port", func() bool { return udpAddrPort(l.sock.LocalAddr()) != was })
	})
}
