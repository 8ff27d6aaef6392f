package quic

import (
	"errors"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// freeUDPPort is one that nobody has, at least just now.
func freeUDPPort(t *testing.T) uint16 {
	t.Helper()
	c, err := net.ListenUDP("udp", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return uint16(c.LocalAddr().(*net.UDPAddr).Port)
}

// All TCP ports of a host are served on one UDP port, over one connection.
func TestOnePort(t *testing.T) {
	port := freeUDPPort(t)
	server := testHost(t, func(c *Config) { c.UDPPort = port })
	client := testHost(t, func(c *Config) { c.UDPPort = port })
	_, web := listen(t, server, "0.0.0.0:80", ListenOptions{})
	_, six := listen(t, server, "[::1]:5432", ListenOptions{})
	all, db := listen(t, server, "127.0.0.1:5432", ListenOptions{})
	_, wildcard := listen(t, server, "[::]:5432", ListenOptions{V6Only: true})

	open := func(addr string, tcp uint16) (*Stream, error) {
		to := netip.AddrPortFrom(netip.MustParseAddr(addr), port)
		return client.Dial(testContext(t), Peer{Remote: to, ServerPort: tcp}, 40000, nil)
	}
	for _, c := range []struct {
		addr string
		tcp  uint16
		got  chan *Stream
	}{
		{"127.0.0.1", 80, web},
		{"127.0.0.9", 80, web},
		{"127.0.0.1", 5432, db},
		{"::1", 5432, six},
	} {
		st, err := open(c.addr, c.tcp)
		if err != nil {
			t.Fatalf("%s port %d: %v", c.addr, c.tcp, err)
		}
		srv := <-c.got
		want := netip.AddrPortFrom(netip.MustParseAddr(c.addr), c.tcp)
		if st.RemoteAddr() != want || srv.LocalAddr() != want {
			t.Errorf("connected to %v, which is %v to itself; want %v", st.RemoteAddr(), srv.LocalAddr(), want)
		}
		st.Reset()
		srv.Reset()
	}
	if n := len(wildcard); n != 0 {
		t.Errorf("the wildcard of IPv6 got %d streams that belong to others", n)
	}
	for _, c := range []struct {
		addr string
		tcp  uint16
	}{{"127.0.0.1", 81}, {"127.0.0.9", 5432}, {"::1", 80}} {
		_, err := open(c.addr, c.tcp)
		wantErrno(t, err, unix.ECONNREFUSED)
	}
	if n := len(client.links); n != 3 {
		t.Errorf("%d connections for three addresses", n)
	}
	all.Close()
	_, err := open("127.0.0.1", 5432)
	wantErrno(t, err, unix.ECONNREFUSED)
	if st, err := open("127.0.0.1", 80); err != nil {
		t.Errorf("port 80 once 5432 is closed: %v", err)
	} else {
		st.Reset()
	}
	if all.UDPAddr().Port() != port {
		t.Errorf("served on UDP port %d, want %d", all.UDPAddr().Port(), port)
	}
}

// Several sockets of one TCP port share its connections out.
func TestOnePortInTurn(t *testing.T) {
	port := freeUDPPort(t)
	server := testHost(t, func(c *Config) { c.UDPPort = port })
	_, a := listen(t, server, "127.0.0.1:80", ListenOptions{ReusePort: true})
	_, b := listen(t, server, "127.0.0.1:80", ListenOptions{ReusePort: true})
	client := testHost(t, nil)
	to := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port)
	for range 10 {
		st, err := client.Dial(testContext(t), Peer{Remote: to, ServerPort: 80}, 40000, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer st.Reset()
	}
	if len(a) != 5 || len(b) != 5 {
		t.Errorf("shared out as %d and %d", len(a), len(b))
	}
}

// A UDP port that another has is an error, and is free again with the last
// endpoint.
func TestOnePortTaken(t *testing.T) {
	port := freeUDPPort(t)
	taken, err := net.ListenUDP("udp", &net.UDPAddr{Port: int(port)})
	if err != nil {
		t.Fatal(err)
	}
	h := testHost(t, func(c *Config) { c.UDPPort = port })
	if _, err := h.Listen(nil, addrPort("127.0.0.1:80"), ListenOptions{}, nil); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("listen on a taken port: %v", err)
	}
	taken.Close()
	e, err := h.Listen(nil, addrPort("127.0.0.1:80"), ListenOptions{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	e.Close()
	<-e.Released()
	if c, err := net.ListenUDP("udp", &net.UDPAddr{Port: int(port)}); err != nil {
		t.Errorf("after the last endpoint: %v", err)
	} else {
		c.Close()
	}
}
