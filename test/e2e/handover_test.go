package e2e

import (
	"encoding/json"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestBadHandover gives a broker bad handovers while a session of its own goes
// on: one clear log line each, every descriptor closed, the session untouched.
func TestBadHandover(t *testing.T) {
	needPoemq(t)
	l := loopback(t)
	b := startBroker(t, l.server)
	port := freePort(t)
	server := l.server.serve(t, port, input{}, tool("nc"), "-l", l.server.v4, strconv.Itoa(port))
	other := l.client.start(t, input{pipe: true}, tool("nc"), l.server.v4, strconv.Itoa(port))
	other.write(t, "good morning\n")
	server.says(t, 20*time.Second, "good morning")

	for _, bad := range []struct {
		name string
		send func(t *testing.T, c *net.UnixConn)
		// silent: a launcher that never started (a failed crun start) sends
		// nothing; that may go without a word.
		silent bool
	}{
		{name: "no JSON", send: func(t *testing.T, c *net.UnixConn) {
			handOver(t, c, "GET / HTTP/1.1\r\n\r\n", 1)
		}},
		{name: "JSON of another kind", send: func(t *testing.T, c *net.UnixConn) {
			handOver(t, c, `["seccompFd"]`, 1)
		}},
		{name: "too large", send: func(t *testing.T, c *net.UnixConn) {
			handOver(t, c, `{"ociVersion":"`+strings.Repeat("0", 2<<20)+`"}`, 1)
		}},
		{name: "without a descriptor", send: func(t *testing.T, c *net.UnixConn) {
			handOver(t, c, stateJSON(t, "seccompFd"), 0)
		}},
		{name: "a descriptor that is no listener", send: func(t *testing.T, c *net.UnixConn) {
			handOver(t, c, stateJSON(t, "seccompFd"), 1)
		}},
		{name: "surplus descriptors", send: func(t *testing.T, c *net.UnixConn) {
			handOver(t, c, stateJSON(t, "seccompFd"), 20)
		}},
		{name: "more names than descriptors", send: func(t *testing.T, c *net.UnixConn) {
			handOver(t, c, stateJSON(t, "seccompFd", "pidFd", "another"), 1)
		}},
		{name: "closed half-way", send: func(t *testing.T, c *net.UnixConn) {
			text := stateJSON(t, "seccompFd")
			handOver(t, c, text[:len(text)/2], 1)
		}},
		{name: "closed at once", silent: true, send: func(*testing.T, *net.UnixConn) {}},
	} {
		t.Run(bad.name, func(t *testing.T) {
			// Several of the same, so that a leak of one shows.
			const times = 2 // the log tells so many alike and leaves out the rest (broker/journal)
			fds, complaints := b.fds(t), b.complaints()
			for range times {
				c := dialUnix(t, b.socket)
				bad.send(t, c)
				c.Close()
			}
			want := complaints + times
			said := holdsWithin(5*time.Second, func() bool { return b.complaints() >= want && b.fds(t) <= fds })
			if got := b.fds(t); got > fds {
				t.Errorf("the broker has %d descriptors, %d before", got, fds)
			}
			if got := b.complaints() - complaints; (!said || got != times) && (!bad.silent || got > times) {
				t.Errorf("%d lines in the broker's log, want %d", got, times)
			}
		})
	}

	t.Run("one that says nothing", func(t *testing.T) {
		// It must not keep others waiting.
		quiet := dialUnix(t, b.socket)
		defer quiet.Close()
		l.client.start(t, input{}, "/bin/true").succeed(t, 10*time.Second)
	})

	other.write(t, "still here\n")
	server.says(t, 10*time.Second, "still here")
}

// handOver sends text, and with its first byte n descriptors: the write ends of
// pipes. It wants every one of them closed in the end.
func handOver(t *testing.T, c *net.UnixConn, text string, n int) {
	t.Helper()
	var reads []*os.File
	var rights []byte
	if n > 0 {
		var fds []int
		var writes []*os.File
		for range n {
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			reads, writes, fds = append(reads, r), append(writes, w), append(fds, int(w.Fd()))
		}
		rights = unix.UnixRights(fds...)
		defer func() {
			for _, r := range reads {
				r.Close()
			}
		}()
		defer func() {
			// Only the broker's copies are left then.
			for _, w := range writes {
				w.Close()
			}
			c.CloseWrite()
			for i, r := range reads {
				r.SetReadDeadline(time.Now().Add(10 * time.Second))
				if _, err := r.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
					t.Errorf("descriptor %d of %d is still open in the broker", i+1, n)
				}
			}
		}()
	}
	c.SetWriteDeadline(time.Now().Add(10 * time.Second))
	sent, _, err := c.WriteMsgUnix([]byte(text[:1]), rights, nil)
	if err != nil || sent != 1 {
		t.Fatalf("hand over: %d bytes, %v", sent, err)
	}
	// A broker that has heard enough may close before the rest is written.
	if _, err := c.Write([]byte(text[1:])); err != nil && os.IsTimeout(err) {
		t.Errorf("the broker neither reads nor closes: %v", err)
	}
}

// stateJSON is a containerProcessState of the OCI runtime specification.
func stateJSON(t *testing.T, fds ...string) string {
	t.Helper()
	text, err := json.Marshal(map[string]any{
		"ociVersion": "1.2.0",
		"fds":        fds,
		"pid":        os.Getpid(),
		"metadata":   "",
		"state":      map[string]any{"ociVersion": "1.2.0", "id": "test", "status": "creating", "pid": os.Getpid(), "bundle": "/"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func dialUnix(t *testing.T, path string) *net.UnixConn {
	t.Helper()
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	return c
}
