package quic

import (
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/poemq/poemq/quic/netns"
)

// across is a stream to the address to in namespace b of veth.
func across(t *testing.T, from Peer, b *netns.NS, to string, change func(*Config)) (client, server *Stream) {
	t.Helper()
	got := make(chan *Stream, 1)
	e, err := testHost(t, change).Listen(b, addrPort("[::]:0"), ListenOptions{}, func(in *Incoming) {
		if st, err := in.Accept(); err == nil {
			got <- st
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	from.Remote = netip.AddrPortFrom(netip.MustParseAddr(to), e.Addr().Port())
	st, err := testHost(t, change).Dial(testContext(t), from, 5, nil)
	if err != nil {
		t.Fatal(err)
	}
	return st, <-got
}

// flow is a transfer under way: octets that have arrived.
type flow struct{ atServer, atClient atomic.Int64 }

// after waits until data goes on in both directions, which must be soon after
// what happened at since.
func (f *flow) after(t *testing.T, what string, since time.Time) {
	t.Helper()
	f.more(t, 1)
	if d := time.Since(since); d > most {
		t.Errorf("goes on %v after %s", d, what)
	} else {
		t.Logf("goes on %v after %s", d.Round(time.Millisecond), what)
	}
	f.more(t, 4<<20) // at full speed again
}

// most is how long after a change data may take to go on, on a busy machine.
const most = 6 * time.Second

// more waits for n more octets in each direction.
func (f *flow) more(t *testing.T, n int64) {
	t.Helper()
	s, c := f.atServer.Load()+n, f.atClient.Load()+n
	until(t, "data in both directions", func() bool { return f.atServer.Load() >= s && f.atClient.Load() >= c })
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(60 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no %s within a minute", what)
		}
	}
}

// counter adds to n what is written.
type counter struct {
	io.Writer
	n *atomic.Int64
}

func (c counter) Write(b []byte) (int, error) {
	c.n.Add(int64(len(b)))
	return c.Writer.Write(b)
}

// endless is data that ends when stop is closed, and its checksum.
type endless struct {
	r    *rand.ChaCha8
	sum  hash.Hash
	stop <-chan struct{}
}

func (e endless) Read(b []byte) (int, error) {
	select {
	case <-e.stop:
		return 0, io.EOF
	default:
		e.r.Read(b)
		e.sum.Write(b)
		return len(b), nil
	}
}

// transfer carries data both ways at once, as fast as it can, until middle
// returns, and fails the test unless all arrives as it was sent.
func transfer(t *testing.T, client, server *Stream, middle func(*flow)) {
	t.Helper()
	var f flow
	stop := make(chan struct{})
	sums := make(chan [2]string, 2)
	way := func(from, to *Stream, n *atomic.Int64) {
		sent, got := make(chan string), sha256.New()
		go func() {
			e := endless{rand.NewChaCha8([32]byte{1}), sha256.New(), stop}
			if _, err := io.Copy(from, e); err != nil {
				t.Errorf("write: %v", err)
			}
			from.CloseWrite()
			sent <- fmt.Sprintf("%x", e.sum.Sum(nil))
		}()
		go func() {
			if _, err := io.Copy(counter{got, n}, to); err != nil {
				t.Errorf("read: %v", err)
			}
			sums <- [2]string{<-sent, fmt.Sprintf("%x", got.Sum(nil))}
		}()
	}
	way(client, server, &f.atServer)
	way(server, client, &f.atClient)
	f.more(t, 4<<20)
	middle(&f)
	close(stop)
	for range 2 {
		select {
		case s := <-sums:
			if s[0] != s[1] {
				t.Errorf("sent %s, received %s", s[0], s[1])
			}
		case <-time.After(60 * time.Second):
			t.Fatal("the transfer hangs")
		}
	}
	t.Logf("%d MB to the server, %d MB to the client", f.atServer.Load()>>20, f.atClient.Load()>>20)
}

// linkOf is the connection of a client's stream, once its side path is there
// if it is to have one.
func linkOf(t *testing.T, client *Stream) (l *link) {
	t.Helper()
	h := client.c.h
	h.mu.Lock()
	for o := range h.links {
		if o.c.Load() == client.c {
			l = o
		}
	}
	h.mu.Unlock()
	until(t, "side path", func() bool { return h.cfg.NoMigration || l.side.Load() != nil })
	return l
}

// The client's address goes and another comes, twice, in the middle of a
// transfer.
func TestMigration(t *testing.T) {
	for _, v := range []struct {
		name, server, was, then, last string
		more                          []string
	}{
		{"IPv4", "10.9.0.2", "10.9.0.1/24", "10.9.0.3/24", "10.9.0.4/24", nil},
		{"IPv6", "fd09::2", "fd09::1/64", "fd09::3/64", "fd09::4/64", []string{"nodad"}},
	} {
		t.Run(v.name, func(t *testing.T) {
			a, b := veth(t)
			client, server := across(t, Peer{NS: a}, b, v.server, nil)
			was := client.RemoteAddr()
			l := linkOf(t, client)
			transfer(t, client, server, func(f *flow) {
				for _, c := range [][2]string{{v.was, v.then}, {v.then, v.last}} {
					ip(t, a, "addr", "del", c[0], "dev", "va")
					ip(t, a, append([]string{"addr", "add", c[1], "dev", "va"}, v.more...)...)
					begun, to := time.Now(), netip.MustParsePrefix(c[1]).Addr()
					until(t, "move", func() bool { return udpAddrPort(l.sock.LocalAddr()).Addr() == to })
					until(t, "move at the server", func() bool { return udpAddrPort(server.c.qc.RemoteAddr()).Addr() == to })
					f.after(t, "the address changed", begun)
				}
			})
			if client.RemoteAddr() != was {
				t.Errorf("the program's peer was %v and is %v", was, client.RemoteAddr())
			}
		})
	}
}

// The way to the peer leads from another address, while the old one still works.
func TestRouteChanges(t *testing.T) {
	a, b := veth(t)
	client, server := across(t, Peer{NS: a}, b, "10.9.0.2", nil)
	l := linkOf(t, client)
	transfer(t, client, server, func(f *flow) {
		ip(t, a, "addr", "add", "10.9.0.3/24", "dev", "va")
		ip(t, a, "route", "replace", "10.9.0.0/24", "dev", "va", "src", "10.9.0.3")
		begun, to := time.Now(), netip.MustParseAddr("10.9.0.3")
		until(t, "move", func() bool { return udpAddrPort(l.sock.LocalAddr()).Addr() == to })
		until(t, "move at the server", func() bool { return udpAddrPort(server.c.qc.RemoteAddr()).Addr() == to })
		f.after(t, "the route changed", begun)
	})
}

// A connection of a program that has bound its address waits for that one.
func TestBoundStays(t *testing.T) {
	a, b := veth(t)
	local := netip.MustParseAddr("10.9.0.1")
	client, server := across(t, Peer{NS: a, Local: local}, b, "10.9.0.2", nil)
	l := linkOf(t, client)
	transfer(t, client, server, func(f *flow) {
		ip(t, a, "addr", "add", "10.9.0.3/24", "dev", "va")
		ip(t, a, "addr", "del", "10.9.0.1/24", "dev", "va")
		ip(t, a, "addr", "replace", "10.9.0.3/24", "dev", "va") // del took it along, as secondary
		time.Sleep(2 * settleMax)                               // in which it must not move
		ip(t, a, "addr", "add", "10.9.0.1/24", "dev", "va")
		back := time.Now()
		f.after(t, "the address was back", back)
	})
	if now := udpAddrPort(l.sock.LocalAddr()).Addr(); now != local {
		t.Errorf("bound to %v, moved to %v", local, now)
	}
}

// A NAT between gives the client another port.
func TestNATRebinding(t *testing.T) {
	a, b := veth(t)
	client, server := across(t, Peer{NS: a}, b, "10.9.0.2", nil)
	l := linkOf(t, client)
	transfer(t, client, server, func(f *flow) {
		fd, err := dialUDP(a, netip.Addr{}, l.peer.Remote)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.sock.rebind(fd); err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		until(t, "move at the server", func() bool { return udpAddrPort(server.c.qc.RemoteAddr()) == udpAddrPort(l.sock.LocalAddr()) })
		f.after(t, "the port changed", begun)
	})
}

// cut has the two hosts send to an Ethernet address that nobody has, which
// neither is told of; mend undoes it.
func cut(t *testing.T, a, b *netns.NS) (mend func()) {
	const nobody = "02:00:00:00:00:99"
	ip(t, a, "neigh", "replace", "10.9.0.2", "lladdr", nobody, "nud", "permanent", "dev", "va")
	ip(t, b, "neigh", "replace", "10.9.0.1", "lladdr", nobody, "nud", "permanent", "dev", "vb")
	return func() {
		ip(t, a, "neigh", "del", "10.9.0.2", "dev", "va")
		ip(t, b, "neigh", "del", "10.9.0.1", "dev", "vb")
	}
}

// Data goes on soon after a path is whole again, though QUIC's own timers are
// far away by then.
func TestSilentPathIsTried(t *testing.T) {
	a, b := veth(t)
	client, server := across(t, Peer{NS: a}, b, "10.9.0.2", func(c *Config) { c.KeepAlive = time.Second })
	l := linkOf(t, client)
	transfer(t, client, server, func(f *flow) {
		mend := cut(t, a, b)
		port := udpAddrPort(l.sock.LocalAddr()).Port()
		time.Sleep(12 * time.Second) // the length of the outage
		mend()
		begun := time.Now()
		f.after(t, "the path was whole again", begun)
		until(t, "new port", func() bool { return udpAddrPort(l.sock.LocalAddr()).Port() != port })
	})
}

// As many tries as 15 minutes of silence have cost nothing that stays, and
// then the connection goes on.
func TestManyTries(t *testing.T) {
	a, b := veth(t)
	client, server := across(t, Peer{NS: a}, b, "10.9.0.2", nil)
	l := linkOf(t, client)
	transfer(t, client, server, func(f *flow) {
		mend := cut(t, a, b)
		l.sendAnew()
		heap, routines := live(), runtime.NumGoroutine()
		for range 300 {
			l.sendAnew()
			time.Sleep(5 * time.Millisecond) // for quic-go to do it
		}
		grown, more := int64(live()-heap), runtime.NumGoroutine()-routines
		t.Logf("%d KiB and %d goroutines more", grown>>10, more)
		if grown > 8<<20 || more > 4 {
			t.Error("that is too much")
		}
		mend()
		begun := time.Now()
		l.fellSilent()
		f.after(t, "the path was whole again", begun)
	})
}

// live is the heap in use, octets.
func live() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// A healthy connection is left in peace, however little its stream says.
func TestHealthyIsNotTried(t *testing.T) {
	a, b := veth(t)
	client, _ := across(t, Peer{NS: a}, b, "10.9.0.2", func(c *Config) { c.KeepAlive = time.Second })
	l := linkOf(t, client)
	was, sent := l.sock.LocalAddr(), client.c.stats().PacketsSent
	time.Sleep(6 * time.Second) // six keepalives
	if n := client.c.stats().PacketsSent - sent; n < 4 {
		t.Errorf("%d packets sent: there were no keepalives", n)
	}
	if n := l.tries.Load(); n != 0 || l.sock.LocalAddr() != was {
		t.Errorf("tried %d times, from %v to %v", n, was, l.sock.LocalAddr())
	}
}

// NoMigration leaves a connection where it is, and makes it no side path.
func TestNoMigration(t *testing.T) {
	a, b := veth(t)
	client, server := across(t, Peer{NS: a}, b, "10.9.0.2", func(c *Config) { c.NoMigration = true })
	l := linkOf(t, client)
	ip(t, a, "addr", "add", "10.9.0.3/24", "dev", "va")
	ip(t, a, "route", "replace", "10.9.0.0/24", "dev", "va", "src", "10.9.0.3") // new connections begin there
	l.fellSilent()
	time.Sleep(2 * settleMax) // in which it must not move
	io.WriteString(client, "x")
	if _, err := io.ReadFull(server, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if n, now := l.tries.Load(), udpAddrPort(l.sock.LocalAddr()); n != 0 || l.side.Load() != nil || now.Addr() != netip.MustParseAddr("10.9.0.1") {
		t.Errorf("tried %d times, now at %v, side path %v", n, now, l.side.Load() != nil)
	}
}

// A server is given up after a move as before one.
func TestServerKilledAfterMove(t *testing.T) {
	t.Parallel()
	for _, again := range []bool{false, true} {
		t.Run(fmt.Sprintf("restarted=%v", again), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			srv := startChild(t, "server", "127.0.0.1:0", dir)
			remote := addrPort(srv.line(t))
			st := dial(t, testHost(t, nil), remote)
			srv.line(t)
			l := linkOf(t, st)
			was := l.sock.LocalAddr().String()
			l.fellSilent()
			until(t, "move", func() bool {
				l.mu.Lock()
				defer l.mu.Unlock()
				return !l.roaming && l.sock.LocalAddr().String() != was
			})
			srv.kill()
			if again {
				startChild(t, "server", remote.String(), dir).line(t)
			}
			readEnd(t, st)
		})
	}
}

// A client is given up after a move as before one.
func TestClientKilledAfterMove(t *testing.T) {
	t.Parallel()
	e, got := listen(t, testHost(t, nil), "127.0.0.1:0", ListenOptions{})
	client := startChild(t, "roamer", e.Addr().String())
	st := <-got
	was := st.c.qc.RemoteAddr().String()
	if client.line(t) != "moved" {
		t.Fatal("the client did not move")
	}
	until(t, "move at the server", func() bool { return st.c.qc.RemoteAddr().String() != was })
	client.kill()
	readEnd(t, st)
}
