package regress

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/poemq/poemq/test/rig"
)

// script returns a command that runs a Python program of testdata.
func script(r *rig.Rig, name string, args ...any) *rig.Cmd {
	return r.Command(append([]any{"python3", filepath.Join(rig.Root(), "test", "regress", "testdata", name)}, args...)...)
}

// serve starts a script and waits until it says that it listens.
func serve(r *rig.Rig, name string, args ...any) *rig.Proc {
	r.Helper()
	p := script(r, name, args...).Start()
	p.Says("listening")
	return p
}

// equal compares what a program has printed.
func equal(t *testing.T, who, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s printed\n%swant\n%s", who, got, want)
	}
}

// The ancestor delivers 22 kB, 190 kB and 8 MB of these, and then a clean end.
func TestWriteAndCloseAtOnce(t *testing.T) {
	for _, size := range []int{100_000, 1_000_000, 10_000_000} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			r := rig.New(t, "python3")
			port := r.Port()
			server := serve(r, "closenow.py", "server", port)
			script(r, "closenow.py", "client", port, "up", size).Output()
			server.Says(fmt.Sprintf("up %d whole\n", size))
			got := script(r, "closenow.py", "client", port, "down", size).Output()
			equal(t, "the client", got, fmt.Sprintf("down %d whole\n", size))
		})
	}
}

// The writer is gone before the server has accepted the connection at all.
func TestWriteAndExitBeforeAccept(t *testing.T) {
	r := rig.New(t, "python3")
	port := r.Port()
	c := script(r, "closenow.py", "server", port, "hold")
	c.Told = true
	server := c.Start()
	server.Says("listening")
	script(r, "closenow.py", "client", port, "up", 50_000).Output()
	server.Tell("accept now")
	server.Says("up 50000 whole\n")
}

func TestHalfCloseThenReply(t *testing.T) {
	r := rig.New(t, "python3")
	port := r.Port()
	server := serve(r, "halfclose.py", "server", port)
	got := script(r, "halfclose.py", "client", port).Output()
	equal(t, "the client", got, "EPIPE after SHUT_WR\nfirst True\nend seen True\n")
	server.Wait(10 * time.Second)
	equal(t, "the server", server.Stdout(), "listening\nsecond True\n")
}

// The ancestor sends the first iovec again when the second does not fit.
func TestSendmsgTwoVectorsOnFullSocket(t *testing.T) {
	r := rig.New(t, "gcc")
	program := r.Build("iovec.c")
	port := r.Port()
	const bytes = 60_000_001
	server := r.Command(program, "server", port, bytes).Start()
	server.Says("listening")
	if got := r.Command(program, "client", port, bytes).Output(); !strings.HasPrefix(got, "full: yes") {
		t.Errorf("the socket was never full: %s", got)
	}
	server.Wait(30 * time.Second)
	equal(t, "the server", server.Stdout(), fmt.Sprintf("listening\nall: %d bytes in order\n", bytes))
}

// The ancestor takes all of the gigabyte into its memory. What may be under
// way is bounded by buffers on both sides; the kernel's own TCP takes some MB.
func TestPeerThatNeverReadsBoundsTheWriter(t *testing.T) {
	const bound = 64 << 20
	r := rig.New(t, "python3")
	port := r.Port()
	near, far := r.StartBroker("near"), r.StartBroker("far")

	c := script(r, "neverread.py", "server", port)
	c.Told, c.Broker = true, far
	server := c.Start()
	server.Says("listening")

	c = script(r, "neverread.py", "client", port)
	c.Told, c.Broker = true, near
	client := c.Start()
	client.Says("sent ")

	var sent int
	var sum, after string
	if _, err := fmt.Sscanf(client.Stdout(), "sent %d %s then %s", &sent, &sum, &after); err != nil {
		t.Fatalf("%v in %q", err, client.Stdout())
	}
	t.Logf("%d bytes went in before the writer had to wait", sent)
	if sent > bound {
		t.Errorf("%d bytes went in to a peer that does not read, at most %d may", sent, bound)
	}
	if after != "EAGAIN" {
		t.Errorf("a blocking send with a timeout gave %s, want EAGAIN", after)
	}
	for name, b := range map[string]*rig.Broker{"near": near, "far": far} {
		if b != nil && b.Memory() > 2*bound {
			t.Errorf("the %s broker holds %d bytes of memory, at most %d may it", name, b.Memory(), 2*bound)
		}
	}
	// The reader wakes up: nothing was lost.
	server.Tell("read now")
	client.Tell("end now")
	server.Says(fmt.Sprintf("read %d %s\n", sent, sum))
}

// The ancestor reports some of these as EPERM.
func TestEAGAINStaysEAGAIN(t *testing.T) {
	r := rig.New(t, "python3")
	port := r.Port()
	c := script(r, "again.py", "server", port)
	c.Told = true // it waits
	server := c.Start()
	server.Says("listening")
	equal(t, "the server", server.Stdout(), "accept EAGAIN\naccept SO_RCVTIMEO EAGAIN\nlistening\n")
	got := script(r, "again.py", "client", port).Output()
	var want strings.Builder
	for _, call := range []string{
		"recv SO_RCVTIMEO", "recv", "recvmsg", "recv MSG_PEEK", "send", "sendmsg", "send MSG_DONTWAIT", "send SO_SNDTIMEO",
	} {
		fmt.Fprintln(&want, call, "EAGAIN")
	}
	equal(t, "the client", got, want.String())
}
