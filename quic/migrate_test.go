package quic

import (
	"bytes"
	"crypto/sha256"
	"io"
	"math/rand/v2"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/poemq/poemq/quic/netns"
)

// across is a stream from namespace a to b of veth.
func across(t *testing.T, a, b *netns.NS, change func(*Config)) (client, server *Stream) {
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
	remote := netip.AddrPortFrom(netip.MustParseAddr("10.9.0.2"), e.Addr().Port())
	st, err := testHost(t, change).Dial(testContext(t), Peer{NS: a, Remote: remote}, 5, nil)
	if err != nil {
		t.Fatal(err)
	}
	return st, <-got
}

// flow is a transfer under way: octets that have arrived.
type flow struct{ atServer, atClient atomic.Int64 }

// after waits until data has gone on in both directions, and tells how long
// that took.
func (f *flow) after(t *testing.T) time.Duration {
	t.Helper()
	begun, s, c := time.Now(), f.atServer.Load(), f.atClient.Load()
	until(t, "data in both directions", func() bool { return f.atServer.Load() > s && f.atClient.Load() > c })
	return time.Since(begun)
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(60 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no %s within a minute", what)
		}
	}
}

// counter adds to n what is written, and holds the writer up now and then, so
// that a transfer takes seconds.
type counter struct {
	io.Writer
	n *atomic.Int64
}

func (c counter) Write(b []byte) (int, error) {
	if was := c.n.Add(int64(len(b))) - int64(len(b)); was>>20 != c.n.Load()>>20 {
		time.Sleep(20 * time.Millisecond)
	}
	return c.Writer.Write(b)
}

// transfer carries data both ways at once, calls middle when some has arrived,
// and fails the test unless all arrives as it was sent.
func transfer(t *testing.T, client, server *Stream, size int, middle func(*flow)) {
	t.Helper()
	data := make([]byte, size)
	rand.NewChaCha8([32]byte{1}).Read(data)
	want := sha256.Sum256(data)
	var f flow
	type end struct {
		sum [32]byte
		err error
	}
	ends := make(chan end, 2)
	for st, n := range map[*Stream]*atomic.Int64{client: &f.atClient, server: &f.atServer} {
		go func() {
			if _, err := io.Copy(st, bytes.NewReader(data)); err != nil {
				t.Errorf("write: %v", err)
			}
			st.CloseWrite()
		}()
		go func() {
			h := sha256.New()
			_, err := io.Copy(counter{h, n}, st)
			ends <- end{[32]byte(h.Sum(nil)), err}
		}()
	}
	f.after(t)
	middle(&f)
	if n := f.atServer.Load(); n == int64(size) {
		t.Error("the transfer was over too early")
	}
	for range 2 {
		select {
		case e := <-ends:
			if e.err != nil || e.sum != want {
				t.Errorf("transfer: %v, checksum equal: %v", e.err, e.sum == want)
			}
		case <-time.After(60 * time.Second):
			t.Fatal("the transfer hangs")
		}
	}
}

// linkOf is the connection of a client's stream, once its side path is there.
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
	until(t, "side path", func() bool { return l.side.Load() != nil })
	return l
}

// most is how long after a change data may take to go on.
const most = 3 * time.Second

// The client's address goes and another comes, twice, in the middle of a
// transfer.
func TestMigration(t *testing.T) {
	a, b := veth(t)
	client, server := across(t, a, b, nil)
	was := client.RemoteAddr()
	l := linkOf(t, client)
	transfer(t, client, server, 100<<20, func(f *flow) {
		for _, c := range [][2]string{{"10.9.0.1/24", "10.9.0.3/24"}, {"10.9.0.3/24", "10.9.0.4/24"}} {
			ip(t, a, "addr", "del", c[0], "dev", "va")
			ip(t, a, "addr", "add", c[1], "dev", "va")
			begun, to := time.Now(), netip.MustParsePrefix(c[1]).Addr()
			until(t, "move", func() bool { return udpAddrPort(l.sock.LocalAddr()).Addr() == to })
			until(t, "move at the server", func() bool { return udpAddrPort(server.c.qc.RemoteAddr()).Addr() == to })
			f.after(t)
			if d := time.Since(begun); d > most {
				t.Errorf("goes on %v after the address changed", d)
			} else {
				t.Logf("goes on %v after the address changed", d)
			}
		}
	})
	if client.RemoteAddr() != was {
		t.Errorf("the program's peer was %v and is %v", was, client.RemoteAddr())
	}
}

// cut has the two hosts send to an Ethernet address that nobody has, which
// neither is told of; mend undoes it.
func cut(t *testing.T, a, b *netns.NS, addrA string) (mend func()) {
	const nobody = "02:00:00:00:00:99"
	ip(t, a, "neigh", "replace", "10.9.0.2", "lladdr", nobody, "nud", "permanent", "dev", "va")
	ip(t, b, "neigh", "replace", addrA, "lladdr", nobody, "nud", "permanent", "dev", "vb")
	return func() {
		ip(t, a, "neigh", "del", "10.9.0.2", "dev", "va")
		ip(t, b, "neigh", "del", addrA, "dev", "vb")
	}
}

// Data goes on soon after a path is whole again, though QUIC's own timers are
// far away by then.
func TestSilentPathIsTried(t *testing.T) {
	a, b := veth(t)
	client, server := across(t, a, b, func(c *Config) { c.KeepAlive = time.Second })
	l := linkOf(t, client)
	transfer(t, client, server, 100<<20, func(f *flow) {
		mend := cut(t, a, b, "10.9.0.1")
		port := udpAddrPort(l.sock.LocalAddr()).Port()
		time.Sleep(12 * time.Second) // the length of the outage
		mend()
		d := f.after(t)
		if d > most {
			t.Errorf("goes on %v after the path was whole again", d)
		} else {
			t.Logf("goes on %v after the path was whole again", d)
		}
		until(t, "new port", func() bool { return udpAddrPort(l.sock.LocalAddr()).Port() != port })
	})
}
