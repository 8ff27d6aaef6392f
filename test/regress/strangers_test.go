package regress

import (
	"encoding/binary"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"testing"

	"github.com/poemq/poemq/test/rig"
)

// datagrams are what a port on the open network gets to see: noise, and noise
// that looks like QUIC (RFC 9000, section 17) in one way or another.
func datagrams(rng *rand.Rand, count int) [][]byte {
	noise := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		return b
	}
	long := func(first byte, version uint32, size int) []byte {
		b := noise(size)
		b[0] = first
		binary.BigEndian.PutUint32(b[1:], version)
		b[5], b[14] = 8, 8     // connection ids of 8 bytes each
		b[23] = 0              // no token
		b[24] = 0x40 | b[24]%4 // a length of two bytes
		return b
	}
	all := [][]byte{{}, {0}, {0xc0}, {0xc3, 0, 0, 0, 1}, make([]byte, 1200)}
	for i := range count {
		switch i % 8 {
		case 0:
			all = append(all, noise(1+rng.IntN(1472)))
		case 1:
			all = append(all, long(0xc3, 1, 1200)) // Initial
		case 2:
			all = append(all, long(0xc3, 0x0a1a2a3a, 1200)) // a version to be refused
		case 3:
			all = append(all, long(0xe3, 1, 1200)) // Handshake
		case 4:
			all = append(all, long(0xd3, 1, 1200)) // 0-RTT
		case 5:
			all = append(all, long(0xc3, 0, 60)) // Version Negotiation
		case 6:
			b := noise(40 + rng.IntN(100))
			b[0] = 0x40 | b[0]&0x3f // a short header of no connection
			all = append(all, b)
		case 7:
			b := long(0xc3, 1, 1200)
			b[5] = 255 // a connection id longer than allowed
			all = append(all, b[:rng.IntN(len(b))])
		}
	}
	return all
}

// Neither a connection that is open nor new ones may suffer from strangers.
func TestGarbageAtAListeningPort(t *testing.T) {
	r := rig.New(t, "python3")
	port := r.Port()
	broker := r.StartBroker("far")
	c := script(r, "echo.py", port)
	c.Broker = broker
	c.Start().Says("listening")
	c = script(r, "churn.py", port)
	c.Told = true
	client := c.Start()
	client.Tell(1)
	client.Says("done 1\n")
	// One connection that lives through it all.
	c = script(r, "hold.py", port)
	c.Told = true
	held := c.Start()
	held.Says("before\n")

	conn, err := net.Dial("udp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, d := range datagrams(rand.New(rand.NewPCG(1, 2)), 4000) {
		// A native run has no such port, and answers with ICMP.
		if _, err := conn.Write(d); err != nil && !rig.Native() {
			t.Fatal(err)
		}
	}
	held.Tell("after")
	held.Says("after\n")
	client.Tell(20)
	client.Says("done 20\n")
	if broker != nil && broker.Memory() > 256<<20 {
		t.Errorf("the broker holds %d bytes after 4,000 datagrams", broker.Memory())
	}
}

// A QUIC client of another protocol is refused in the handshake, at once.
func TestForeignQUICClientIsRefused(t *testing.T) {
	r := rig.New(t, "python3")
	if rig.Native() {
		t.Skip("a native run has nobody to speak QUIC to")
	}
	port := r.Port()
	serve(r, "echo.py", port)
	foreign := r.Command(r.Build("./quic/internal/foreign"), net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	foreign.Outside = true
	// 0x178 is TLS's no_application_protocol as QUIC carries it (RFC 9001, 8.1).
	if got := foreign.Output(); !strings.HasPrefix(got, "refused: CRYPTO_ERROR 0x178") {
		t.Errorf("the foreign client says %q", got)
	}
	equal(t, "the client", script(r, "say.py", port, 1).Output(), "hello 0\n")
}
