package broker

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/poemq/poemq/quic/netns"
)

// heldByBroker reports that another broker of this program file has a UDP port
// in ns, and so will leave it soon: its program ended. Whatever cannot be looked
// at is not one.
func heldByBroker(ns *netns.NS, port uint16) bool {
	var sockets []string
	if ns.Do(func() error {
		sockets = append(udpSockets("/proc/thread-self/net/udp", port), udpSockets("/proc/thread-self/net/udp6", port)...)
		return nil
	}) != nil || len(sockets) == 0 {
		return false
	}
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return false
	}
	// A file that was replaced since is "… (deleted)" there.
	processes, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range processes {
		exe, err := os.Readlink(p + "/exe")
		if err != nil || strings.TrimSuffix(exe, " (deleted)") != strings.TrimSuffix(self, " (deleted)") || p == "/proc/"+strconv.Itoa(os.Getpid()) {
			continue
		}
		fds, _ := filepath.Glob(p + "/fd/*")
		for _, fd := range fds {
			if file, err := os.Readlink(fd); err == nil && slices.Contains(sockets, file) {
				return true
			}
		}
	}
	return false
}

// udpSockets lists the sockets bound to port in a table of proc_pid_net(5), as
// /proc/PID/fd names them.
func udpSockets(table string, port uint16) (sockets []string) {
	b, err := os.ReadFile(table)
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 10 {
			continue
		}
		_, hex, _ := strings.Cut(f[1], ":")
		if n, err := strconv.ParseUint(hex, 16, 16); err == nil && uint16(n) == port {
			sockets = append(sockets, "socket:["+f[9]+"]")
		}
	}
	return sockets
}
