package network

import (
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/poemq/poemq/test/link"
	"github.com/poemq/poemq/test/rig"
)

// port is where servers listen; the namespaces are the test's own.
const port = 8080

// stage is two hosts and the path between them.
type stage struct {
	*rig.Rig
	link           *link.Link
	wire           *wire
	client, server *host
	peer           string // the test program
}

// host is one side. Its programs are served by its broker, or by none.
type host struct {
	*link.Host
	stage  *stage
	broker *rig.Broker
}

// newStage makes the hosts, without brokers.
func newStage(t *testing.T, p link.Params, programs ...string) *stage {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root; run the tests as root to include this one")
	}
	s := &stage{Rig: rig.New(t, append(programs, "ip")...)}
	if rig.Native() {
		t.Skip("POEMQ_TEST_NATIVE=1: these tests are about poemq itself")
	}
	l, err := link.New("client", "server", p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	s.link, s.wire = l, newWire()
	l.Through(s.wire.see)
	s.client, s.server = &host{Host: l.A, stage: s}, &host{Host: l.B, stage: s}
	s.peer = peerProgram(s.Rig)
	return s
}

// newPoemqStage makes the hosts with a broker each.
func newPoemqStage(t *testing.T, p link.Params, programs ...string) *stage {
	t.Helper()
	s := newStage(t, p, programs...)
	s.client.startBroker()
	s.server.startBroker()
	return s
}

// startBroker starts the host's broker, with the state of the one before.
func (h *host) startBroker(flags ...string) {
	h.stage.Helper()
	h.broker = h.stage.StartBrokerOn(h, h.Name, flags...)
}

// plain prepares a program without poemq.
func (h *host) plain(args ...any) *rig.Cmd {
	c := h.stage.Command(args...)
	c.Outside, c.On = true, h
	return c
}

// under prepares a program under poemq.
func (h *host) under(args ...any) *rig.Cmd {
	c := h.stage.Command(args...)
	c.On, c.Broker = h, h.broker
	return c
}

// serve starts the test program as a server, and waits until it listens.
func (h *host) serve(prepare func(...any) *rig.Cmd, action string, on int, more ...any) *rig.Proc {
	h.stage.Helper()
	p := prepare(append([]any{h.stage.peer, action, fmt.Sprintf(":%d", on)}, more...)...).Start()
	p.Says("listening")
	return p
}

// at is the host's address with a port.
func (h *host) at(port int) netip.AddrPort { return netip.AddrPortFrom(h.Addr, uint16(port)) }

// try has the program connect once.
func (h *host) try(prepare func(...any) *rig.Cmd, to netip.AddrPort) (result string, took time.Duration) {
	h.stage.Helper()
	said := prepare(h.stage.peer, "try", to).Output()
	return textOf(h.stage, said, "result"), timeOf(h.stage, said, "us")
}

// textOf is the value of name=value in what the program said.
func textOf(t testing.TB, said, name string) string {
	t.Helper()
	found := regexp.MustCompile(`(?m)(?:^| )` + name + `=(.*?)(?: [a-z]+=|$)`).FindStringSubmatch(said)
	if found == nil {
		t.Fatalf("no %s= in %q", name, said)
	}
	return found[1]
}

// numberOf is textOf for numbers.
func numberOf(t testing.TB, said, name string) int {
	t.Helper()
	n, err := strconv.Atoi(textOf(t, said, name))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// timeOf is textOf for microseconds.
func timeOf(t testing.TB, said, name string) time.Duration {
	t.Helper()
	return time.Duration(numberOf(t, said, name)) * time.Microsecond
}

// logged are the lines of a broker's log with the text.
func logged(b *rig.Broker, text string) (lines []string) {
	for line := range strings.Lines(b.Stderr()) {
		if strings.Contains(line, text) {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

// long is one duration or, with POEMQ_LONG=1, the other.
func long(usual, long time.Duration) time.Duration {
	if rig.Long() {
		return long
	}
	return usual
}
