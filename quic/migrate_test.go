package quic

import (
	"bytes"
	"crypto/sha256"
	"io"
	"math/rand/v2"
	"net/netip"
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

// transfer carries data both ways at once, calls middle when half has arrived
// at the server, and fails the test unless all arrives as it was sent.
func transfer(t *testing.T, client, server *Stream, size int, middle func()) {
	t.Helper()
	data := make([]byte, size)
	r := rand.NewChaCha8([32]byte{1})
	r.Read(data)
	want := sha256.Sum256(data)
	type end struct {
		sum [32]byte
		err error
	}
	ends := make(chan end, 2)
	for _, st := range []*Stream{client, server} {
		go func() {
			if _, err := io.Copy(st, bytes.NewReader(data)); err != nil {
				t.Errorf("write: %v", err)
			}
			st.CloseWrite()
		}()
	}
	halfway := make(chan struct{})
	go func() {
		h := sha256.New()
		_, err := io.CopyN(h, server, int64(size)/2)
		close(halfway)
		if err == nil {
			_, err = io.Copy(h, server)
		}
		ends <- end{[32]byte(h.Sum(nil)), err}
	}()
	go func() {
		h := sha256.New()
		_, err := io.Copy(h, client)
		ends <- end{[32]byte(h.Sum(nil)), err}
	}()
	<-halfway
	middle()
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

// The client's address goes and another comes, twice, in the middle of a
// transfer.
func TestMigration(t *testing.T) {
	a, b := veth(t)
	client, server := across(t, a, b, nil)
	was := client.RemoteAddr()
	transfer(t, client, server, 40<<20, func() {
		for _, c := range [][2]string{{"10.9.0.1/24", "10.9.0.3/24"}, {"10.9.0.3/24", "10.9.0.4/24"}} {
			ip(t, a, "addr", "del", c[0], "dev", "va")
			ip(t, a, "addr", "add", c[1], "dev", "va")
			to := netip.MustParsePrefix(c[1]).Addr()
			for udpAddrPort(client.c.qc.LocalAddr()).Addr() != to {
				if t.Context().Err() != nil {
					return
				}
				time.Sleep(10 * time.Millisecond)
			}
		}
	})
	if client.RemoteAddr() != was {
		t.Errorf("the program's peer was %v and is %v", was, client.RemoteAddr())
	}
}

// A path that is cut works again soon after it is whole, though QUIC's own
// probes are far apart by then.
func TestSilentPathIsProbed(t *testing.T) {
	a, b := veth(t)
	// A router in between, as it were: the client's interface stays up.
	change := func(c *Config) { c.KeepAlive = time.Second }
	client, server := across(t, a, b, change)
	var back time.Time
	transfer(t, client, server, 40<<20, func() {
		t.Log(time.Now(), "cut")
		ip(t, b, "link", "set", "vb", "down")
		time.Sleep(8 * time.Second)
		ip(t, b, "link", "set", "vb", "up")
		back = time.Now()
		t.Log(back, "whole")
		n := server.c.stats().BytesReceived
		for server.c.stats().BytesReceived == n {
			time.Sleep(10 * time.Millisecond)
		}
	})
	t.Logf("goes on %v after the path was whole again", time.Since(back))
}
