package network

import (
	"testing"
	"time"

	"github.com/poemq/poemq/test/link"
	"golang.org/x/sys/unix"
)

// A path that is cut for a while costs a transfer that while, and no more than
// as long again, since QUIC's probe timer doubles (RFC 9002 section 6.2.1).
func TestOutage(t *testing.T) {
	cut := long(8*time.Second, 60*time.Second)
	resumes := cut + time.Second // at the latest, when the path is back
	for _, action := range []string{"get", "put"} {
		t.Run(action, func(t *testing.T) {
			t.Parallel() // they wait
			s := newPoemqStage(t, link.Params{Delay: 25 * time.Millisecond, Rate: 20e6})
			server := s.server.serve(s.server.under, "serve", port)
			client := s.client.under(s.peer, action, s.server.at(port), 10<<20).Start()
			receiver := client
			if action == "put" {
				receiver = server
			}
			receiver.Says("begun")
			s.link.Cut(link.Both)
			time.Sleep(cut) // the outage itself
			s.link.Mend(link.Both)
			client.Wait(cut + time.Minute)
			said := client.Stdout()
			if result := textOf(t, said, "result"); result != "ok" || numberOf(t, said, "octets") != 10<<20 {
				t.Fatalf("the transfer ended with %s", said)
			}
			silence := timeOf(t, receiver.Stdout(), "silence")
			t.Logf("cut for %v, nothing came for %v: it went on %v after the path was back", cut, silence, silence-cut)
			if silence < cut/2 {
				t.Errorf("nothing came for only %v, the cut was not felt", silence)
			}
			if silence-cut > resumes {
				t.Errorf("it went on %v after the path was back, want at most %v", silence-cut, resumes)
			}
		})
	}
}

// nat gives the client's datagrams another source port.
type nat struct{ shift uint16 }

func (n nat) change(d link.Direction, p link.Packet) {
	if p.Protocol() != unix.IPPROTO_UDP {
		return
	}
	if d == link.AtoB {
		p.SetSourcePort(p.Source().Port() ^ n.shift)
	} else {
		p.SetDestinationPort(p.Destination().Port() ^ n.shift)
	}
}

// A NAT that forgets its mapping in the middle of a transfer gives the client a
// new port, and what comes to the old one reaches nobody. In the first round
// trips QUIC does not outlive that: a client whose handshake is not confirmed,
// with a full congestion window, sends nothing that the server could take.
func TestNATRebinding(t *testing.T) {
	for _, action := range []string{"get", "put"} {
		t.Run(action, func(t *testing.T) {
			const size = 8 << 20
			s := newPoemqStage(t, link.Params{Delay: 10 * time.Millisecond, Rate: 20e6})
			server := s.server.serve(s.server.under, "serve", port)
			client := s.client.under(s.peer, action, s.server.at(port), size).Start()
			receiver := client
			if action == "put" {
				receiver = server
			}
			receiver.Says("begun")
			for i := range 3 {
				passed := s.octets(action) + size/8
				s.Eventually(20*time.Second, "the transfer goes on", func() bool {
					return s.octets(action) > passed || !client.Running()
				})
				if !client.Running() {
					t.Fatalf("the transfer ended before rebinding %d: %s", i, client.Stdout())
				}
				s.rebind(nat{uint16(i + 1)})
			}
			client.Wait(time.Minute)
			said := client.Stdout()
			if result := textOf(t, said, "result"); result != "ok" || numberOf(t, said, "octets") != size {
				t.Fatalf("the transfer ended with %s", said)
			}
			c, flows, _ := s.wire.take()
			if c.tcp != 0 {
				t.Errorf("on the wire: %v; want no TCP", c)
			}
			t.Logf("%v, %d flows before the NAT; silent for at most %v", c, len(flows), timeOf(t, receiver.Stdout(), "silence"))
		})
	}
}

// rebind changes the NAT's mapping: what is under way to the old port is lost.
func (s *stage) rebind(n nat) { s.wire.changes(n.change) }

// octets counts what has passed in the transfer's direction.
func (s *stage) octets(action string) uint64 {
	d := link.AtoB
	if action == "get" {
		d = link.BtoA
	}
	return s.link.Stats(d).OutOctets
}

// After a pause in which the NAT has forgotten the mapping, the client's next
// request goes on with the same connection.
func TestNATRebindingWhileIdle(t *testing.T) {
	s := newPoemqStage(t, link.Params{Delay: 10 * time.Millisecond})
	s.server.serve(s.server.under, "serve", port)
	client := s.client.under(s.peer, "chat", s.server.at(port)).Start()
	client.Says("holding")
	s.rebind(nat{77})
	before := s.octets("get")
	s.Eventually(10*time.Second, "the conversation goes on", func() bool {
		return s.octets("get") > before+5000 || !client.Running()
	})
	if !client.Running() {
		t.Errorf("the conversation ended: %s", client.Stdout())
	}
}
