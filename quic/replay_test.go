package quic

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/quic-go/quic-go/quicvarint"
)

// has0RTT reports that a datagram holds a 0-RTT packet (RFC 9000 section 17.2).
func has0RTT(b []byte) bool {
	for len(b) > 7 && b[0]&0x80 != 0 {
		kind := b[0] & 0x30 >> 4
		if kind == 1 {
			return true
		}
		b = b[5:]
		for range 2 { // connection IDs
			b = b[1+int(b[0]):]
		}
		if kind == 0 {
			n, k, _ := quicvarint.Parse(b) // token
			b = b[k+int(n):]
		}
		n, k, _ := quicvarint.Parse(b)
		b = b[k+int(n):]
	}
	return false
}

// capture has n clients send what with 0-RTT through a proxy and returns the
// datagrams of each, up to the server's answer: what comes later means nothing to
// another connection.
func capture(t *testing.T, server *Host, addr *Endpoint, what string, n int) [][][]byte {
	t.Helper()
	proxy := newProxy(t, addr.UDPAddr())
	mine := t.TempDir()
	peer := Peer{Remote: proxy.addr, ZeroRTT: true}
	var all [][][]byte
	for i := range n + 1 {
		h := testHost(t, func(c *Config) { c.Identity, c.Log = mustIdentity(t, mine), nil })
		var seen [][]byte
		early := make(chan struct{})
		octets := 0
		proxy.rule(func(b []byte) bool {
			seen = append(seen, bytes.Clone(b))
			if has0RTT(b) {
				if octets += len(b); octets >= len(what)/2 && octets-len(b) < len(what)/2 {
					close(early) // the stream's header is in it
				}
			}
			return true
		}, nil)
		proxy.hold(i > 0)
		st, err := h.Dial(testContext(t), peer, uint16(i+1), nil)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(st, what)
		st.CloseWrite()
		if i > 0 {
			<-early
			proxy.rule(func([]byte) bool { return true }, nil)
			proxy.hold(false)
		}
		if b, err := io.ReadAll(st); string(b) != what || err != nil {
			t.Fatalf("echo of %d octets, %v", len(b), err)
		}
		kept(t, h, 1)
		if zero := h.Snapshot()[0].ZeroRTT; zero != (i > 0) {
			t.Fatalf("connection %d: 0-RTT is %v", i, zero)
		}
		h.Close()
		if i > 0 {
			all = append(all, seen)
		}
	}
	waitFor(t, "end of the real connections", func() bool { return len(server.Snapshot()) == 0 })
	return all
}

// replayed counts the connections that took 0-RTT packets, by what they logged.
func replayed(t *testing.T, dir string) (n int) {
	names, _ := filepath.Glob(filepath.Join(dir, "*_server_*"))
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range strings.Split(string(b), "\n") {
			if strings.Contains(line, "packet_received") && strings.Contains(line, `"packet_type":"0RTT"`) {
				n++
				break
			}
		}
	}
	return n
}

// Datagrams of a client that sent 0-RTT data are sent again: a program gets them
// twice where its listening socket takes replays, and nowhere else.
func TestReplay(t *testing.T) {
	const n = 10
	for _, takes := range []bool{false, true} {
		t.Run(fmt.Sprintf("ZeroRTT=%v", takes), func(t *testing.T) {
			logs := t.TempDir()
			server := testHost(t, func(c *Config) { c.Log = nil })
			var given atomic.Int32
			o := ListenOptions{ZeroRTT: takes}
			e, err := server.Listen(nil, addrPort("127.0.0.1:0"), o, func(in *Incoming) {
				given.Add(1)
				st, err := in.Accept()
				if err != nil {
					return
				}
				io.Copy(st, st)
				st.CloseWrite()
			})
			if err != nil {
				t.Fatal(err)
			}
			captured := capture(t, server, e, strings.Repeat("transfer all of it to Eve\n", 800), n)
			if got := given.Load(); got != n+1 {
				t.Fatalf("%d streams were given, want %d", got, n+1)
			}
			server.SetQlog(logs)
			before := heap()
			eve, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(e.UDPAddr()))
			if err != nil {
				t.Fatal(err)
			}
			defer eve.Close()
			// Between the replays somebody else asks, which shows how far
			// the server is.
			honest := testHost(t, func(c *Config) { c.Log = nil })
			round := func() {
				for _, datagrams := range captured {
					for _, d := range datagrams {
						eve.Write(d)
					}
				}
				ask(t, honest, Peer{Remote: e.Addr()})
				given.Add(-1)
			}
			waitFor(t, "connection by replay", func() bool {
				round()
				names, _ := filepath.Glob(filepath.Join(logs, "*_server_*"))
				return len(names) == n+1
			})
			for range 20 {
				round()
			}
			grown := heap() - before
			t.Logf("%d replays take %d octets of memory", n, grown)
			if grown > n*512<<10 {
				t.Errorf("memory grows by %d octets", grown)
			}
			if takes {
				waitFor(t, "replay given to the program", func() bool { return given.Load() == 2*n+1 })
			} else if got := given.Load(); got != n+1 {
				t.Errorf("a replay was given to the program: %d streams of %d", got, n+1)
			}
			honest.Close()
			server.Close()
			if got := replayed(t, logs); got != n {
				t.Errorf("%d of %d replays were decrypted", got, n)
			}
		})
	}
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
