package faults

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/poemq/poemq/test/rig"
)

// namespace is a Place.
type namespace string

// Start runs cmd there.
func (n namespace) Start(cmd *exec.Cmd) error {
	cmd.Args = append([]string{"ip", "netns", "exec", string(n)}, cmd.Args...)
	cmd.Args[4] = cmd.Path
	path, err := exec.LookPath("ip")
	cmd.Path = path
	if err != nil {
		return err
	}
	return cmd.Start()
}

func ip(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		t.Skipf("no network can be made here: ip %v: %v: %s", args, err, out)
	}
}

// TestInterfaceComesBack: a connection outlives the loss of its interface.
func TestInterfaceComesBack(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to make network namespaces")
	}
	if rig.Native() {
		t.Skip("TCP does as well here: this is about poemq's connections")
	}
	r := rig.New(t, "python3", "ip")
	ends := []namespace{namespace(fmt.Sprintf("pqf%da", os.Getpid())), namespace(fmt.Sprintf("pqf%db", os.Getpid()))}
	for _, n := range ends {
		ip(t, "netns", "add", string(n))
		t.Cleanup(func() { ip(t, "netns", "del", string(n)) })
	}
	ip(t, "-n", string(ends[0]), "link", "add", "pq0", "type", "veth", "peer", "name", "pq0", "netns", string(ends[1]))
	var brokers []*rig.Broker
	for i, n := range ends {
		ip(t, "-n", string(n), "addr", "add", fmt.Sprintf("10.98.76.%d/24", i+1), "dev", "pq0")
		for _, dev := range []string{"lo", "pq0"} {
			ip(t, "-n", string(n), "link", "set", dev, "up")
		}
		brokers = append(brokers, r.StartBrokerOn(n, fmt.Sprint("host", i)))
	}
	program := func(i int, args ...any) *rig.Cmd {
		c := r.Command(args...)
		c.Broker, c.On, c.Told, c.Flags = brokers[i], ends[i], i == 1, []string{"--quic", "require", "--on-broker-missing", "fail"}
		return c
	}
	port := r.FreePort()
	program(0, "python3", script("server.py"), "blocking", port, "10.98.76.1").Start().Says("listening")
	p := program(1, "python3", "-u", script("client.py"), "10.98.76.1").Start()
	p.Says("ready")
	c := &client{Proc: p, h: &host{Rig: r}}
	c.must("ok", "socket s")
	c.must("ok", "connect s %d", port)
	c.must("hello", "echo s hello")
	for _, end := range ends {
		ip(t, "-n", string(end), "link", "set", "pq0", "down")
		c.tell("echo s across") // on its way when there is none
		time.Sleep(2 * time.Second)
		ip(t, "-n", string(end), "link", "set", "pq0", "up")
		if got := c.heard(); got != "across" {
			t.Errorf("an exchange while the interface was away: %s", got)
		}
	}
	c.must("after", "echo s after")
}
