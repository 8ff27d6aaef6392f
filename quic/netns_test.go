package quic

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/poemq/poemq/quic/netns"
)

// newNS makes a network namespace with lo up.
func newNS(t *testing.T) *netns.NS {
	t.Helper()
	if _, err := netns.Self(); err != nil {
		t.Fatal(err)
	}
	type result struct {
		fd  int
		err error
	}
	c := make(chan result)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends here
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			c <- result{-1, err}
			return
		}
		fd, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		c <- result{fd, err}
	}()
	r := <-c
	if errors.Is(r.err, unix.EPERM) {
		t.Skip("needs CAP_SYS_ADMIN to make network namespaces")
	} else if r.err != nil {
		t.Fatal(r.err)
	}
	ns, err := netns.FromFd(r.fd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	ip(t, ns, "link", "set", "lo", "up")
	return ns
}

// ip runs ip(8) inside ns: a child is born in its parent thread's namespace.
func ip(t *testing.T, ns *netns.NS, args ...string) {
	t.Helper()
	path, err := exec.LookPath("ip")
	if err != nil {
		t.Skip("needs ip(8) of iproute2")
	}
	err = ns.Do(func() error {
		cmd := exec.Command(path, args...)
		cmd.Stderr = os.Stderr
		return cmd.Run()
	})
	if err != nil {
		t.Fatalf("ip %v: %v", args, err)
	}
}

// veth joins two new namespaces: 10.9.0.1 and fd09::1, 10.9.0.2 and fd09::2.
func veth(t *testing.T) (a, b *netns.NS) {
	t.Helper()
	a, b = newNS(t), newNS(t)
	// The peer is born in a, then moved by the pid of a process that sits in b.
	path, err := exec.LookPath("sleep")
	if err != nil {
		t.Skip("needs sleep(1)")
	}
	holder := exec.Command(path, "1000")
	if err := b.Do(holder.Start); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { holder.Process.Kill(); holder.Wait() })
	ip(t, a, "link", "add", "va", "type", "veth", "peer", "name", "vb", "netns", strconv.Itoa(holder.Process.Pid))
	for _, e := range []struct {
		ns        *netns.NS
		dev, v, w string
	}{{a, "va", "10.9.0.1/24", "fd09::1/64"}, {b, "vb", "10.9.0.2/24", "fd09::2/64"}} {
		ip(t, e.ns, "addr", "add", e.v, "dev", e.dev)
		ip(t, e.ns, "addr", "add", e.w, "dev", e.dev, "nodad")
		ip(t, e.ns, "link", "set", e.dev, "up")
	}
	return a, b
}

func TestNamespaces(t *testing.T) {
	a, b := veth(t)
	server, client := testHost(t, nil), testHost(t, nil)
	got := make(chan *Stream, 1)
	e, err := server.Listen(b, addrPort("[::]:0"), ListenOptions{}, func(in *Incoming) {
		if st, err := in.Accept(); err == nil {
			got <- st
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	port := e.Addr().Port()
	for _, ip := range []string{"10.9.0.2", "fd09::2"} {
		remote := netip.AddrPortFrom(netip.MustParseAddr(ip), port)
		st, err := client.Dial(testContext(t), Peer{NS: a, Remote: remote}, 5, nil)
		if err != nil {
			t.Fatal(err)
		}
		srv := <-got
		if srv.LocalAddr() != remote || srv.RemoteAddr() != st.LocalAddr() {
			t.Errorf("server %v ← %v, client %v → %v", srv.LocalAddr(), srv.RemoteAddr(), st.LocalAddr(), st.RemoteAddr())
		}
		io.WriteString(st, "across")
		st.CloseWrite()
		if s, err := io.ReadAll(srv); string(s) != "across" || err != nil {
			t.Errorf("%q, %v", s, err)
		}
		// From the process's own namespace that address leads elsewhere.
		if _, err := client.Dial(testContext(t), Peer{Local: netip.MustParseAddr("127.0.0.1"), Remote: remote}, 5, nil); ip == "10.9.0.2" && err == nil {
			t.Error("reached without entering the namespace")
		}
	}
	_, err = client.Dial(testContext(t), Peer{NS: a, Remote: addrPort("10.9.0.2:9")}, 1, nil)
	wantErrno(t, err, unix.ECONNREFUSED)
	_, err = client.Dial(testContext(t), Peer{NS: a, Remote: addrPort("192.0.2.1:9")}, 1, nil)
	wantErrno(t, err, unix.ENETUNREACH)
	start := time.Now()
	_, err = client.Dial(testContext(t), Peer{NS: a, Remote: addrPort("10.9.0.99:9")}, 1, nil)
	wantErrno(t, err, unix.EHOSTUNREACH)
	t.Logf("no such neighbour: %v after %v", err, time.Since(start))
}

// TestOutage: a path that is cut for a while loses nothing, and nothing is
// taken for dead although ICMP says "unreachable" all the time.
func TestOutage(t *testing.T) {
	a, b := veth(t)
	server, client := testHost(t, nil), testHost(t, nil)
	got := make(chan *Stream, 1)
	e, err := server.Listen(b, addrPort("10.9.0.2:0"), ListenOptions{}, func(in *Incoming) {
		if st, err := in.Accept(); err == nil {
			got <- st
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	st, err := client.Dial(testContext(t), Peer{NS: a, Remote: e.Addr()}, 5, nil)
	if err != nil {
		t.Fatal(err)
	}
	srv := <-got
	const size = 4 << 20
	go func() {
		st.Write(make([]byte, size/2))
		ip(t, b, "link", "set", "vb", "down")
		time.AfterFunc(4*time.Second, func() { ip(t, b, "link", "set", "vb", "up") })
		st.Write(make([]byte, size/2))
		st.CloseWrite()
	}()
	srv.SetReadDeadline(time.Now().Add(40 * time.Second))
	if n, err := io.Copy(io.Discard, srv); n != size || err != nil {
		t.Errorf("%d of %d octets, %v", n, size, err)
	}
}

// Two namespaces have different hosts at the same address: with names of their
// own, each has its own pin.
func TestSameAddressElsewhere(t *testing.T) {
	client := testHost(t, nil)
	var port uint16 = 0
	for i := range 2 {
		a, b := veth(t)
		name := fmt.Sprintf("poemq-test-%d-%d", os.Getpid(), i)
		sleep := exec.Command("sleep", "1000")
		if err := a.Do(sleep.Start); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { sleep.Process.Kill(); sleep.Wait() })
		if out, err := exec.Command("ip", "netns", "attach", name, strconv.Itoa(sleep.Process.Pid)).CombinedOutput(); err != nil {
			t.Skipf("a namespace cannot be named here: %v: %s", err, out)
		}
		t.Cleanup(func() { exec.Command("ip", "netns", "del", name).Run() })
		server := testHost(t, nil) // a key of its own
		e, err := server.Listen(b, netip.AddrPortFrom(netip.MustParseAddr("10.9.0.2"), port), ListenOptions{}, func(in *Incoming) { in.Accept() })
		if err != nil {
			t.Fatal(err)
		}
		port = e.Addr().Port()
		if _, err := client.Dial(testContext(t), Peer{NS: a, Remote: e.Addr()}, 5, nil); err != nil {
			t.Errorf("in %s: %v", name, err)
		}
	}
}
