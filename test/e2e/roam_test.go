package e2e

import (
	"io"
	"os"
	"strconv"
	"testing"
	"time"
)

// TestNetworkChanges carries 200 MB in one connection while the client's
// address is replaced, and then the link is dead for a while: neither program
// notices, all arrives, and soon.
func TestNetworkChanges(t *testing.T) {
	needPoemq(t) // TCP does not survive this
	const (
		part   = 50 << 20
		outage = 12 * time.Second
		most   = 5 * time.Second // until data goes on
	)
	l := twoHosts(t)
	sent, sum := randomFile(t, 4*part)
	port := freePort(t)
	seen := l.capture(t, port)
	server := l.server.serve(t, port, input{}, tool("nc"), "-N", "-l", l.server.v4, strconv.Itoa(port))
	client := l.client.start(t, input{pipe: true}, tool("nc"), "-N", l.server.v4, strconv.Itoa(port))
	data, err := os.Open(sent)
	if err != nil {
		t.Fatal(err)
	}
	defer data.Close()
	client.carry(t, data, part)
	eventually(t, time.Minute, "the first part at the server", func() bool { return fileSize(server.out) >= part })

	goesOn := func(what string, since time.Time, at int64) {
		t.Helper()
		eventually(t, time.Minute, "data after "+what, func() bool { return fileSize(server.out) > at })
		if d := time.Since(since); d > most {
			t.Errorf("goes on %v after %s, want at most %v", d, what, most)
		} else {
			t.Logf("goes on %v after %s", d.Round(time.Millisecond), what)
		}
	}

	written := make(chan struct{})
	go func() {
		defer close(written)
		client.carry(t, data, part)
	}()
	ip(t, "-n", l.client.netns, "addr", "del", l.client.v4+"/24", "dev", l.iface)
	at := fileSize(server.out)
	ip(t, "-n", l.client.netns, "addr", "add", "10.77.0.3/24", "dev", l.iface)
	goesOn("the address changed", time.Now(), at)
	<-written
	eventually(t, time.Minute, "the second part at the server", func() bool { return fileSize(server.out) >= 2*part })

	mend := l.cut(t, "10.77.0.3")
	at = fileSize(server.out)
	go func() {
		io.Copy(client.stdin, data)
		client.stdin.Close()
	}()
	time.Sleep(outage)
	if n := fileSize(server.out); n != at {
		t.Errorf("%d bytes came over a dead link", n-at)
	}
	mend()
	goesOn("the outage", time.Now(), at)
	client.succeed(t, time.Minute)
	server.succeed(t, time.Minute)
	wantSum(t, "at the server", server.out, sum)
	seen.onlyUDP(t)
}

// carry writes n octets of data to the program.
func (p *process) carry(t *testing.T, data io.Reader, n int64) {
	t.Helper()
	if _, err := io.CopyN(p.stdin, data, n); err != nil {
		t.Errorf("write to %s: %v", p.name, err)
	}
}

// cut makes the link dead, which neither host is told of: they send to an
// Ethernet address that nobody has. mend undoes it.
func (l *link) cut(t *testing.T, clientAddr string) (mend func()) {
	t.Helper()
	ways := []struct{ netns, to string }{{l.client.netns, l.server.v4}, {l.server.netns, clientAddr}}
	for _, w := range ways {
		ip(t, "-n", w.netns, "neigh", "replace", w.to, "lladdr", "02:00:00:00:00:99", "nud", "permanent", "dev", l.iface)
	}
	return func() {
		for _, w := range ways {
			ip(t, "-n", w.netns, "neigh", "del", w.to, "dev", l.iface)
		}
	}
}
