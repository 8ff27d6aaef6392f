package quic

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// deadline is how long a dead peer may stay unnoticed: one keepalive, the
// second in which hints must repeat, and the doubling of probes.
const deadline = 12 * time.Second

// readEnd waits for the end of a stream whose peer was killed.
func readEnd(t *testing.T, st *Stream) {
	t.Helper()
	start := time.Now()
	st.SetReadDeadline(start.Add(deadline))
	_, err := st.Read(make([]byte, 1))
	if !errors.Is(err, ErrLost) {
		t.Fatalf("after %v: %v, want ErrLost", time.Since(start), err)
	}
	t.Logf("noticed after %v: %v", time.Since(start).Round(time.Millisecond), err)
}

func TestServerKilled(t *testing.T) {
	t.Parallel()
	srv := startChild(t, "server", "127.0.0.1:0", t.TempDir())
	remote := addrPort(srv.line(t))
	st := dial(t, testHost(t, nil), remote)
	srv.line(t)
	srv.kill()
	readEnd(t, st)
}

func TestClientKilled(t *testing.T) {
	t.Parallel()
	for _, addr := range []string{"127.0.0.1:0", "[::]:0", "0.0.0.0:0"} {
		t.Run(addr, func(t *testing.T) {
			t.Parallel()
			e, got := listen(t, testHost(t, nil), addr, ListenOptions{})
			to := strings.NewReplacer("[::]", "127.0.0.1", "0.0.0.0", "127.0.0.1").Replace(e.Addr().String())
			client := startChild(t, "client", to)
			client.line(t)
			st := <-got
			client.kill()
			readEnd(t, st)
			e.Close()
			<-e.Released()
		})
	}
}

// TestServerRestarted: a new process with the same identity on the same port
// does not know the connection and says so (stateless reset).
func TestServerRestarted(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	srv := startChild(t, "server", "127.0.0.1:0", dir)
	remote := addrPort(srv.line(t))
	h := testHost(t, nil)
	st := dial(t, h, remote)
	srv.kill()
	again := startChild(t, "server", remote.String(), dir)
	again.line(t)
	readEnd(t, st)
	dial(t, h, remote) // the pin still holds
}
