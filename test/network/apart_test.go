package network

import (
	"errors"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/poemq/poemq/test/link"
	"github.com/poemq/poemq/test/rig"
)

// nobody is an ordinary user whom every system has.
const nobody = "nobody"

// open lets nobody hand its programs over to the broker: the socket is its group's.
func (h *host) open() {
	h.stage.Helper()
	u, err := user.Lookup(nobody)
	if err != nil {
		h.stage.Fatal(err)
	}
	gid, err := strconv.Atoi(u.Gid)
	if err != nil {
		h.stage.Fatal(err)
	}
	path := filepath.Join(h.broker.Dir(), "broker.sock")
	if err := errors.Join(os.Chown(path, -1, gid), os.Chmod(path, 0o660)); err != nil {
		h.stage.Fatal(err)
	}
}

// hold starts a program that keeps a connection, and waits until it has it.
func hold(c *rig.Cmd) *rig.Proc {
	p := c.Start()
	p.Says("holding")
	return p
}

// Programs of one user share a connection, those of two never do.
func TestUsersShareNoConnection(t *testing.T) {
	s := newPoemqStage(t, link.Params{})
	s.client.open()
	s.server.serve(s.server.under, "serve", port)
	flows := func() int {
		_, flows, _ := s.wire.take()
		return len(flows)
	}
	hold(s.client.under(s.peer, "hold", s.server.at(port)))
	hold(s.client.under(s.peer, "hold", s.server.at(port)))
	if n := flows(); n != 1 {
		t.Errorf("two programs of one user have %d UDP flows, want 1", n)
	}
	other := s.client.under(s.peer, "hold", s.server.at(port))
	other.User = nobody
	hold(other)
	_, seen, _ := s.wire.take()
	fresh := 0
	for f, packets := range seen {
		t.Logf("%v → %v: %d datagrams", f.client, f.server, packets)
		fresh = max(fresh, packets)
	}
	// The first user's flow may show an acknowledgement.
	if len(seen) == 0 || fresh < 4 {
		t.Errorf("the program of another user made no flow of its own: %v", seen)
	}
	if n := s.sockets(s.client); n != 2 {
		t.Errorf("the broker has %d UDP sockets on the client's host, want one a user", n)
	}
}

// sockets counts the UDP sockets on a host.
func (s *stage) sockets(h *host) int {
	s.Helper()
	n := -1 // the table's head
	if err := h.Do(func() error {
		table, err := os.ReadFile("/proc/thread-self/net/udp")
		for _, c := range table {
			if c == '\n' {
				n++
			}
		}
		return err
	}); err != nil {
		s.Fatal(err)
	}
	return n
}

// Two namespaces with the same addresses, served by one broker on each side,
// are two networks.
func TestNamespacesShareNoConnection(t *testing.T) {
	s := newPoemqStage(t, link.Params{})
	l, err := link.New("client", "server", link.Params{}) // the names of the brokers that serve them
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	twin := &stage{Rig: s.Rig, link: l, wire: newWire(), peer: s.peer}
	l.Through(twin.wire.see)
	twin.client = &host{Host: l.A, stage: twin, broker: s.client.broker}
	twin.server = &host{Host: l.B, stage: twin, broker: s.server.broker}
	for _, each := range []*stage{s, twin} {
		each.server.serve(each.server.under, "serve", port)
	}
	for i, each := range []*stage{s, twin, s, twin} {
		s.wire.take()
		twin.wire.take()
		hold(each.client.under(s.peer, "hold", each.server.at(port)))
		here, _, _ := each.wire.take()
		if here.udp == 0 || here.tcp != 0 {
			t.Errorf("program %d: on its own wire: %v; want UDP", i, here)
		}
	}
	for _, each := range []*stage{s, twin} {
		if n := each.sockets(each.client); n != 1 {
			t.Errorf("%d UDP sockets in a namespace with two programs, want 1", n)
		}
	}
}

// A namespace that no way leads out of is not helped out by the broker, which
// has one.
func TestNoRouteNoWay(t *testing.T) {
	s := newPoemqStage(t, link.Params{})
	s.server.serve(s.server.under, "serve", port)
	h, err := link.NewHost("lonely")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	lonely := &host{Host: h, stage: s, broker: s.client.broker}
	for _, policy := range []string{"prefer", "require"} {
		c := lonely.under(s.peer, "try", s.server.at(port))
		c.Flags = []string{"--quic", policy}
		if result := textOf(t, c.Output(), "result"); result != "ENETUNREACH" {
			t.Errorf("%s: connect gives %s, want ENETUNREACH", policy, result)
		}
	}
	if c, _, _ := s.wire.take(); c != (counts{}) {
		t.Errorf("on the wire: %v; want nothing", c)
	}
	if result, _ := s.client.try(s.client.under, s.server.at(port)); result != "ok" {
		t.Errorf("from the broker's own namespace connect gives %s, want ok", result)
	}
}

// What the kernel refuses a user, the broker, which is root, does not do.
func TestOrdinaryUserBindsNoLowPort(t *testing.T) {
	s := newStage(t, link.Params{})
	s.client.startBroker()
	s.client.open()
	for _, c := range []struct {
		user string
		addr netip.AddrPort
		want string
	}{
		{nobody, s.client.at(80), "EACCES"},
		{nobody, s.client.at(port), "ok"},
		{"", s.client.at(80), "ok"},
	} {
		cmd := s.client.under(s.peer, "bind", c.addr)
		cmd.User = c.user
		if result := textOf(t, cmd.Output(), "result"); result != c.want {
			t.Errorf("user %q binds %v: %s, want %s", c.user, c.addr, result, c.want)
		}
	}
}

// A peer whose broker was killed and is there again knows nothing of the
// connection, and says so to the first packet: a stateless reset.
func TestRestartOfPeerIsNoticed(t *testing.T) {
	for _, c := range []struct {
		action string
		within time.Duration // of the new broker's start
	}{
		{"chat", time.Second},
		{"hold", 6 * time.Second}, // says nothing: the keepalive finds out
	} {
		t.Run(c.action, func(t *testing.T) {
			t.Parallel() // they wait
			s := newPoemqStage(t, link.Params{Delay: 10 * time.Millisecond})
			server := s.server.serve(s.server.under, "serve", port)
			client := hold(s.client.under(s.peer, c.action, s.server.at(port)))
			if c.action == "chat" { // some exchanges more, until the path's MTU is known
				before := s.link.Stats(link.AtoB).Out
				s.Eventually(10*time.Second, "the programs chat", func() bool { return s.link.Stats(link.AtoB).Out > before+40 })
			}
			// Nothing is heard of the broker's end: it crashes with its host.
			s.link.Cut(link.Both)
			s.server.broker.Signal(syscall.SIGKILL)
			s.server.broker.Wait(5 * time.Second)
			server.Stop()
			s.server.startBroker()
			s.server.serve(s.server.under, "serve", port)
			s.link.Mend(link.Both)
			back := time.Now()
			client.Wait(30 * time.Second)
			said := client.Stdout()
			took := time.UnixMicro(int64(numberOf(t, said, "at"))).Sub(back)
			t.Logf("%s after %v", textOf(t, said, "result"), took)
			if result := textOf(t, said, "result"); result != "ECONNRESET" || took > c.within {
				t.Errorf("the program gets %s %v after the peer was back, want ECONNRESET within %v", result, took, c.within)
			}
		})
	}
}
