package container

import (
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/poemq/poemq/test/rig"
)

// Addresses of the veth pair's ends.
const (
	addrA = "10.77.0.1"
	addrB = "10.77.0.2"
)

// cable joins two network namespaces, given by their files, with a veth pair,
// eth0 at both ends.
func (b *bench) cable(a, z string) {
	b.Helper()
	b.tool("nsenter", "--net="+a, "ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", z)
	for ns, addr := range map[string]string{a: addrA, z: addrB} {
		b.tool("nsenter", "--net="+ns, "ip", "address", "add", addr+"/24", "dev", "eth0")
		b.tool("nsenter", "--net="+ns, "ip", "link", "set", "eth0", "up")
		b.tool("nsenter", "--net="+ns, "ip", "link", "set", "lo", "up")
	}
}

// capture is a packet capture of one end of a cable.
type capture struct {
	b    *bench
	proc *rig.Proc
	file string
}

// listen captures what passes eth0 of a namespace.
func (b *bench) listen(ns string) *capture {
	b.Helper()
	b.serial++
	c := &capture{b: b, file: b.Path(fmt.Sprintf("capture-%d.pcap", b.serial))}
	c.proc = b.outside("nsenter", "--net="+ns, "tcpdump", "-i", "eth0", "-n", "-s", 96, "-B", 16384, "-Z", "root", "--immediate-mode", "-U", "-w", c.file, "tcp or udp").Start()
	c.proc.Says("listening on")
	return c
}

// quic ends the capture and fails the test unless the file, at least, has passed
// by UDP on the servers' port, and nothing by TCP.
func (c *capture) quic() {
	c.b.Helper()
	// On a busy machine tcpdump is behind, and an end would lose what it has not
	// written. If this never comes true, the test fails below.
	limit := time.Now().Add(serveLimit)
	for octets := 0; octets < fileSize && time.Now().Before(limit); {
		_, octets = c.count(fmt.Sprintf("udp port %d", port))
	}
	c.proc.Signal(syscall.SIGINT)
	c.proc.Wait(serveLimit)
	datagrams, octets := c.count(fmt.Sprintf("udp port %d", port))
	segments, _ := c.count("tcp")
	c.b.Logf("on the wire: %d octets in %d UDP packets, %d TCP segments", octets, datagrams, segments)
	if octets < fileSize {
		c.b.Errorf("%d octets by UDP on the wire, less than the file's %d", octets, fileSize)
	}
	if segments > 0 {
		c.b.Errorf("%d TCP segments on the wire, want none", segments)
	}
}

// count counts packets, and the octets in them.
func (c *capture) count(filter string) (packets, octets int) {
	c.b.Helper()
	// While it is being written, the file may end within a packet: no error then.
	for line := range strings.Lines(c.b.outside("tcpdump", "-n", "-r", c.file, filter).Run().Stdout()) {
		packets++
		if _, length, ok := strings.Cut(strings.TrimSpace(line), "length "); ok {
			n, _ := strconv.Atoi(strings.Fields(length)[0]) // "length 0, …" of TCP counts nothing
			octets += n
		}
	}
	return packets, octets
}
