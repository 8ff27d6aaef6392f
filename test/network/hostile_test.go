package network

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/poemq/poemq/test/link"
)

// glutton is a client that makes many connections and writes to each as much as
// goes, to a server that reads none of it; it tells when it is stopped.
const glutton = `
import errno, selectors, socket, sys
host, port, n = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
sel, blob = selectors.DefaultSelector(), bytes(64 << 10)
for i in range(n):
    s = socket.create_connection((host, port))
    s.setblocking(False)
    sel.register(s, selectors.EVENT_WRITE)
print("connected", flush=True)
while sel.get_map():
    for key, _ in sel.select():
        try:
            key.fileobj.send(blob)
        except BlockingIOError:
            pass
        except OSError as e:
            print("stopped by", errno.errorcode[e.errno], flush=True)
            sys.exit(0)
`

// deaf is a server that reads nothing.
const deaf = `
import socket, sys
l = socket.create_server(("", int(sys.argv[1])), backlog=1000)
print("listening", flush=True)
all = []
while True:
    all.append(l.accept()[0])
`

// A peer fills the server's broker with what its program does not read: it loses
// its connection, the broker stays small, and another peer's goes on.
func TestHostilePeer(t *testing.T) {
	s := newStage(t, link.Params{Delay: time.Millisecond}, "python3")
	limits := s.Write("limits.toml", "[limits]\nmemory = \"32MiB\"\n")
	s.server.startBroker("--config", limits)
	s.client.startBroker()
	other := s.StartBrokerOn(s.client, "hostile")

	s.server.serve(s.server.under, "serve", port)
	good := s.client.under(s.peer, "chat", s.server.at(port)).Start()
	good.Says("holding")
	victim := s.server.under("python3", "-c", deaf, port+1).Start()
	victim.Says("listening")
	hostile := s.client.under("python3", "-c", glutton, s.server.Addr, port+1, 300)
	hostile.Broker = other
	p := hostile.Start()
	p.SaysWithin(60*time.Second, "stopped by")

	if lines := logged(s.server.broker, "limit reached"); len(lines) == 0 || !strings.Contains(lines[0], "limits.memory") {
		t.Errorf("the server's broker does not say why: %q", lines)
	} else {
		t.Log(lines[0])
	}
	before := s.octets("get")
	s.Eventually(10*time.Second, "the other conversation goes on", func() bool {
		return s.octets("get") > before+5000 || !good.Running()
	})
	if !good.Running() {
		t.Errorf("the other conversation ended: %s", good.Stdout())
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.server.broker.Pid()))
	if err != nil {
		t.Fatal(err)
	}
	peak, err := strconv.Atoi(regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindStringSubmatch(string(status))[1])
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the server's broker took at most %d MiB (VmHWM); the program was %s", peak>>10, strings.TrimSpace(p.Stdout()))
	if peak > 256<<10 {
		t.Errorf("the server's broker took %d MiB", peak>>10)
	}
}
