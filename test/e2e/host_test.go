package e2e

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// programLimit bounds the life of every program a test starts.
const programLimit = 3 * time.Minute

// host is one machine as the tests see it: a network namespace, its addresses
// and the broker its programs use.
type host struct {
	netns  string // name for ip-netns(8); empty: the namespace the tests run in
	v4, v6 string
	state  string // POEMQ_STATE_DIR: keys and pins
	broker string // socket of a system broker; empty: each program has a private one
	config string // configuration file of its system broker; empty: the machine's
	policy string // --quic; empty: the default, prefer
	cred   *syscall.Credential
	env    []string // more environment for programs
}

// link is where a client and a server meet, and where their packets can be seen.
type link struct {
	client, server *host
	iface          string // interface in the server's namespace
}

// newHost makes a host in the tests' own namespace with a fresh state directory.
func newHost(t *testing.T) *host {
	t.Helper()
	h := &host{v4: "127.0.0.1", v6: "::1", state: filepath.Join(shortDir(t), "state")}
	if err := os.Mkdir(h.state, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { endStrays(t, h.state) })
	return h
}

// loopback is one host talking to itself, each program with a private broker.
func loopback(t *testing.T) *link {
	t.Helper()
	h := newHost(t)
	return &link{client: h, server: h, iface: "lo"}
}

// twoHosts joins two network namespaces by a veth pair. Each host has its own
// state directory and so its own key.
func twoHosts(t *testing.T) *link {
	t.Helper()
	needRoot(t, "network namespaces")
	a, b := newHost(t), newHost(t)
	a.netns, b.netns = fmt.Sprintf("pq%da", os.Getpid()), fmt.Sprintf("pq%db", os.Getpid())
	a.v4, b.v4, a.v6, b.v6 = "10.77.0.1", "10.77.0.2", "fd77::1", "fd77::2"
	for _, h := range []*host{a, b} {
		ip(t, "netns", "add", h.netns)
		t.Cleanup(func() { ip(t, "netns", "del", h.netns) })
	}
	ip(t, "-n", a.netns, "link", "add", "pq0", "type", "veth", "peer", "name", "pq0", "netns", b.netns)
	for _, h := range []*host{a, b} {
		ip(t, "-n", h.netns, "addr", "add", h.v4+"/24", "dev", "pq0")
		ip(t, "-n", h.netns, "addr", "add", h.v6+"/64", "dev", "pq0", "nodad")
		ip(t, "-n", h.netns, "link", "set", "lo", "up")
		ip(t, "-n", h.netns, "link", "set", "pq0", "up")
	}
	reach(t, a, b)
	reach(t, b, a)
	return &link{client: a, server: b, iface: "pq0"}
}

// reach waits until one host answers the other: a link that has just come up
// loses its first neighbour solicitations, and the next go out a second later.
func reach(t *testing.T, from, to *host) {
	t.Helper()
	for _, addr := range []string{to.v4, to.v6} {
		var last error
		inNetns(t, from.netns, func() error {
			holdsWithin(10*time.Second, func() bool {
				fd, err := unix.Socket(family(addr), unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
				if err != nil {
					last = err
					return false
				}
				defer unix.Close(fd)
				last = unix.Connect(fd, discard(addr))
				return last == unix.ECONNREFUSED
			})
			return nil
		})
		if last != unix.ECONNREFUSED {
			t.Fatalf("%s does not reach %s: %v", from.netns, addr, last)
		}
	}
}

func family(addr string) int {
	if netip.MustParseAddr(addr).Is6() {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

// discard is port 9 at addr, where nobody listens.
func discard(addr string) unix.Sockaddr {
	if a := netip.MustParseAddr(addr); a.Is4() {
		return &unix.SockaddrInet4{Port: 9, Addr: a.As4()}
	}
	return &unix.SockaddrInet6{Port: 9, Addr: netip.MustParseAddr(addr).As16()}
}

// onEveryLink runs a test over loopback and between two hosts, there with
// private brokers and with one system broker a host.
func onEveryLink(t *testing.T, test func(t *testing.T, l *link)) {
	t.Run("loopback", func(t *testing.T) { test(t, loopback(t)) })
	t.Run("two hosts", func(t *testing.T) { test(t, twoHosts(t)) })
	t.Run("two hosts, system brokers", func(t *testing.T) {
		needPoemq(t)
		l := twoHosts(t)
		startBroker(t, l.client)
		startBroker(t, l.server)
		test(t, l)
	})
}

// command is the full command line for a program on this host.
func (h *host) command(argv ...string) []string {
	var full []string
	if h.netns != "" {
		full = append(full, tool("ip"), "netns", "exec", h.netns)
	}
	if !native {
		broker := h.broker
		if broker == "" {
			// Nobody listens there: the program gets a private broker,
			// whatever the machine itself runs.
			broker = filepath.Join(h.state, "none.sock")
		}
		full = append(full, filepath.Join(binDir, "poemq-launch"), "--broker", broker)
		if h.policy != "" {
			full = append(full, "--quic", h.policy)
		}
		full = append(full, "--")
	}
	return append(full, argv...)
}

// start runs a program on this host, through poemq unless native.
func (h *host) start(t *testing.T, in input, argv ...string) *process {
	t.Helper()
	p := startProcess(t, programLimit, in, append([]string{"POEMQ_STATE_DIR=" + h.state}, h.env...), h.cred, h.command(argv...)...)
	p.name = filepath.Base(argv[0])
	return p
}

// serve starts a program and waits until it listens on port.
func (h *host) serve(t *testing.T, port int, in input, argv ...string) *process {
	t.Helper()
	p := h.start(t, in, argv...)
	waitListening(t, p, port)
	return p
}

// waitListening waits until the port is taken in the process's namespace: the
// broker then holds it in UDP (natively: the program listens on it in TCP).
func waitListening(t *testing.T, p *process, port int) {
	t.Helper()
	task := strconv.Itoa(p.pid)
	eventually(t, 15*time.Second, fmt.Sprintf("%s listens on port %d", p.name, port), func() bool {
		if p.ended() {
			t.Fatalf("%s ended before it listened on port %d: %v", p.name, port, p.waited)
		}
		if native {
			return inTable(task, "tcp", port, "0A") || inTable(task, "tcp6", port, "0A")
		}
		return inTable(task, "udp", port, "") || inTable(task, "udp6", port, "")
	})
}

// thisTask is the tests' own namespace to inTable. That of the tests' pid is where
// their first thread is, which inNetns may have left in another.
const thisTask = "thread-self"

// inTable looks for a local port in /proc/TASK/net/TABLE, in the state given in
// hexadecimal (empty: any).
func inTable(task, table string, port int, state string) bool {
	f, err := os.Open(filepath.Join("/proc", task, "net", table))
	if err != nil {
		return false
	}
	defer f.Close()
	suffix := fmt.Sprintf(":%04X", port)
	for lines := bufio.NewScanner(f); lines.Scan(); {
		// sl local_address rem_address st …
		field := strings.Fields(lines.Text())
		if len(field) > 3 && strings.HasSuffix(field[1], suffix) && (state == "" || field[3] == state) {
			return true
		}
	}
	return false
}

// freePort finds a port that nobody holds in TCP or UDP, below the range from
// which the kernel picks ports for clients.
func freePort(t *testing.T) int {
	t.Helper()
	for range 1000 {
		port := 15000 + rand.IntN(15000)
		l, err := net.Listen("tcp", ":"+strconv.Itoa(port))
		if err != nil {
			continue
		}
		u, err := net.ListenPacket("udp", ":"+strconv.Itoa(port))
		l.Close()
		if err != nil {
			continue
		}
		u.Close()
		return port
	}
	t.Fatal("no free port found")
	return 0
}

// needRoot skips the test for an ordinary user.
func needRoot(t *testing.T, what string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skipf("%s need root; run the tests as root to include this one", what)
	}
}

// needPoemq skips a test that says nothing about plain TCP.
func needPoemq(t *testing.T) {
	t.Helper()
	if native {
		t.Skip("POEMQ_TEST_NATIVE=1: there is no broker to test")
	}
}

// tool finds a system program. Debian's own come first: a version manager's
// shim would start a shell under poemq-launch.
func tool(name string) string {
	for _, dir := range []string{"/usr/bin", "/usr/sbin", "/bin", "/sbin"} {
		if path := filepath.Join(dir, name); isFile(path) {
			return path
		}
	}
	return name
}

// program is the path of one of test/programs.
func program(name string) string { return filepath.Join(programDir, name) }

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// ip runs ip(8) and wants success.
func ip(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command(tool("ip"), args...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// hostPort is the address of a port as Go programs take it.
func hostPort(addr string, port int) string { return net.JoinHostPort(addr, strconv.Itoa(port)) }
