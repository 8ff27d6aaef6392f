package regress

import (
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/poemq/poemq/test/rig"
)

// The ancestor hangs for 30 s and then aborts the program.
func TestRefusedConnect(t *testing.T) {
	for _, policy := range []string{"prefer", "require"} {
		t.Run(policy, func(t *testing.T) {
			r := rig.New(t, "python3")
			echo := r.Port()
			serve(r, "echo.py", echo)
			c := script(r, "refused.py", r.FreePort(), echo)
			c.Flags = []string{"--quic", policy}
			both := "blocking ECONNREFUSED at once\nnon-blocking ECONNREFUSED at once\n"
			equal(t, "the client", c.Output(), both+both+"echo b'still here\\n'\n")
		})
	}
}

// One broker serves two programs whose listening sockets have the same number.
func TestTwoServersWithTheSameFD(t *testing.T) {
	r := rig.New(t, "python3")
	broker := r.StartBroker("both")
	var ports [2]int
	var listening [2]string
	for i, name := range []string{"one:", "two:"} {
		ports[i] = r.Port()
		c := script(r, "echo.py", ports[i], name)
		c.Broker = broker
		p := c.Start()
		p.Says("listening")
		listening[i] = p.Stdout()
	}
	if listening[0] != listening[1] {
		t.Fatalf("the fd numbers differ, the test shows nothing: %q", listening)
	}
	for range 2 {
		for i, name := range []string{"one:", "two:"} {
			c := script(r, "say.py", ports[i], 3)
			c.Broker = broker
			equal(t, "the client", c.Output(), fmt.Sprintf("%[1]shello 0\n%[1]shello 1\n%[1]shello 2\n", name))
		}
	}
}

func TestTwoBlockingListeners(t *testing.T) {
	r := rig.New(t, "python3")
	one, two := r.Port(), r.Port()
	serve(r, "twolisteners.py", "server", one, two)
	equal(t, "the client", script(r, "twolisteners.py", "client", one, two).Output(), "40 right\n")
}

func TestConnectionsOutliveTheirListener(t *testing.T) {
	r := rig.New(t, "python3")
	port := r.Port()
	// To be refused must not end in a try by TCP, which the watch would see.
	quic := []string{"--quic", "require"}
	c := script(r, "outlive.py", "server", port)
	c.Told, c.Flags = true, quic
	server := c.Start()
	server.Says("listening")

	c = script(r, "outlive.py", "client", port)
	c.Told, c.Flags = true, quic
	client := c.Start()
	client.Says("refused\n")
	server.Tell("open again")
	server.Says("again\n")
	client.Tell("it is open")
	client.Wait(20 * time.Second)
	equal(t, "the client", client.Stdout(), `['FIRST', 'FIRST', 'FIRST']
refused
['SECOND', 'SECOND', 'SECOND', 'SECOND']
[b'', b'', b'', b'']
`)
}

// The ancestor's connections die after 30 s of silence.
func TestIdleConnectionLives(t *testing.T) {
	t.Parallel() // it only waits
	seconds := 35
	if rig.Long() {
		seconds = 600
	}
	r := rig.New(t, "python3")
	port := r.Port()
	serve(r, "echo.py", port)
	c := script(r, "idle.py", port, seconds)
	c.Limit = time.Duration(seconds+30) * time.Second
	equal(t, "the client", c.Output(), "before\nafter\n")
}

func TestThousandConnectionsHaveTheirOwnPorts(t *testing.T) {
	r := rig.New(t, "python3")
	port := r.Port()
	server := serve(r, "crowd.py", "server", port)
	c := script(r, "crowd.py", "client", port, 1000)
	c.Told = true
	client := c.Start()
	client.Says("1000 right, 1000 ports\n")
	server.Says("held 1000 at once\n")
	client.Tell("end")
	client.Wait(20 * time.Second)
}

// The ancestor leaks 28.5 kB a connection. File descriptors may not grow at
// all. Memory may a little, as Go's heap breathes: by less than one goroutine
// or one buffer left behind per connection would make it.
func TestSixThousandConnectionsLeakNothing(t *testing.T) {
	const (
		warm, count = 2000, 6000
		perConn     = 2048 // bytes
	)
	r := rig.New(t, "python3")
	port := r.Port()
	brokers := map[string]*rig.Broker{"near": r.StartBroker("near"), "far": r.StartBroker("far")}
	c := script(r, "echo.py", port)
	c.Broker = brokers["far"]
	c.Start().Says("listening")

	c = script(r, "churn.py", port)
	c.Broker, c.Told = brokers["near"], true
	client := c.Start()
	churn := func(n int) {
		client.Tell(n)
		client.SaysWithin(2*time.Minute, fmt.Sprintf("done %d\n", n))
	}

	churn(warm)
	type state struct{ fds, memory int }
	before := make(map[string]state)
	for name, b := range brokers {
		if b != nil {
			before[name] = state{settled(r, b), b.Memory()}
		}
	}
	churn(count)
	for name, b := range brokers {
		if b == nil {
			t.Logf("no %s broker in a native run: nothing to measure", name)
			continue
		}
		r.Eventually(10*time.Second, fmt.Sprintf("the %s broker has again %d fds", name, before[name].fds), func() bool {
			return b.FDs() <= before[name].fds
		})
		grown := b.Memory() - before[name].memory
		t.Logf("%s broker: %d fds, memory grown by %d bytes", name, b.FDs(), grown)
		if grown > count*perConn {
			t.Errorf("the %s broker grew by %d bytes, %d a connection", name, grown, grown/count)
		}
	}
}

// settled waits until the broker's count of fds stays the same for half a
// second, and returns it.
func settled(r *rig.Rig, b *rig.Broker) int {
	r.Helper()
	last, since := b.FDs(), time.Now()
	r.Eventually(20*time.Second, "the broker's count of fds settles", func() bool {
		if n := b.FDs(); n != last {
			last, since = n, time.Now()
		}
		return time.Since(since) > 500*time.Millisecond
	})
	return last
}

func TestHighFDNumbers(t *testing.T) {
	for _, above := range []int{1024, 4096} {
		t.Run(fmt.Sprint(above), func(t *testing.T) {
			r := rig.New(t, "python3")
			var limit syscall.Rlimit
			if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Max < uint64(above)+100 {
				t.Skipf("no more than %d open files are allowed here", limit.Max)
			}
			port := r.Port()
			server := serve(r, "highfd.py", "server", port, above)
			got := script(r, "highfd.py", "client", port, above).Output()
			equal(t, "the client", got, strings.Repeat("True True b'high'\n", 2))
			equal(t, "the server", server.Stdout(), "listening True\naccepted True\naccepted True\n")
		})
	}
}

func TestVforkAndSpawnedChildrenUseSockets(t *testing.T) {
	r := rig.New(t, "gcc", "python3")
	program := r.Build("spawn.c")
	port := r.Port()
	serve(r, "echo.py", port)
	var want strings.Builder
	want.WriteString("inside vfork: right\n")
	for _, way := range []string{"vfork", "posix_spawn"} {
		fmt.Fprintf(&want, "parent: before\n%[1]s: own\n%[1]s: inherited\nparent: after\n", way)
	}
	equal(t, "the parent", r.Command(program, port).Output(), want.String())
}

// Connections wait in the queue; when the server dies each of them is reset.
func TestServerThatNeverAccepts(t *testing.T) {
	r := rig.New(t, "python3")
	port := r.Port()
	server := serve(r, "neveraccept.py", "server", port)
	client := script(r, "neveraccept.py", "client", port, 20).Start()
	client.Says("all sent")
	server.Signal(syscall.SIGKILL)
	client.Wait(20 * time.Second)
	equal(t, "the client", client.Stdout(), "all sent\n"+strings.Repeat("got ECONNRESET\n", 20))
}

// otherAddress is an IPv4 address of this machine beside loopback.
func otherAddress(t *testing.T) string {
	t.Helper()
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && n.IP.IsGlobalUnicast() {
			return n.IP.String()
		}
	}
	t.Skip("this machine has no address beside loopback")
	return ""
}
