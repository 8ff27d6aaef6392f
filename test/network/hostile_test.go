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

// deaf is a server that reads nothing, or does not even accept.
const deaf = `
import signal, socket, sys
l = socket.create_server(("", int(sys.argv[1])), backlog=1000)
print("listening", flush=True)
if sys.argv[2] == "sleeps":
    signal.pause()
all = []
while True:
    all.append(l.accept()[0])
`

// A peer fills the server's broker with what its program does not read: it loses
// its connections, and another's goes on. The broker stays small and holds none of
// it any more, though the program never looks at its sockets.
func TestHostilePeer(t *testing.T) {
	for _, how := range []string{"accepts", "sleeps"} {
		t.Run(how, func(t *testing.T) { hostilePeer(t, how) })
	}
}

func hostilePeer(t *testing.T, how string) {
	const limit = 32 << 20
	s := newStage(t, link.Params{Delay: time.Millisecond}, "python3")
	limits := s.Write("limits.toml", fmt.Sprintf("[limits]\nmemory = \"%dMiB\"\n", limit>>20))
	s.server.startBroker("--config", limits)
	s.client.startBroker()
	other := s.StartBrokerOn(s.client, "hostile")

	s.server.serve(s.server.under, "serve", port)
	good := s.client.under(s.peer, "chat", s.server.at(port)).Start()
	good.Says("holding")
	victim := s.server.under("python3", "-c", deaf, port+1, how).Start()
	victim.Says("listening")
	for range 2 {
		hostile := s.client.under("python3", "-c", glutton, s.server.Addr, port+1, 300)
		hostile.Broker = other
		hostile.Start().SaysWithin(60*time.Second, "stopped by")
		s.Eventually(10*time.Second, "what the ended connections held is freed", func() bool {
			return s.server.broker.Status().HeapBytes < limit
		})
	}

	if lines := logged(s.server.broker, "limit reached"); len(lines) == 0 || !strings.Contains(lines[0], "limits.memory") {
		t.Errorf("the server's broker does not say why: %q", lines)
	} else {
		t.Log(lines[0])
	}
	for _, line := range logged(s.server.broker, "not because of what peers hold") {
		t.Error(line)
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
	t.Logf("the server's broker took at most %d MiB (VmHWM)", peak>>10)
	if peak > 256<<10 {
		t.Errorf("the server's broker took %d MiB", peak>>10)
	}
}
