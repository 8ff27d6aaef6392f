package rig

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Broker is a poemqd of its own, for tests that look at the broker itself. On
// a native run there is none and it is nil; its methods then measure nothing.
type Broker struct {
	*Proc
	socket string
}

// StartBroker starts a poemqd. Commands with it in their Broker field are
// served by it.
func (r *Rig) StartBroker(name string) *Broker {
	r.Helper()
	if Native() {
		return nil
	}
	dir := r.Mkdir("broker-"+name, "")
	b := &Broker{socket: filepath.Join(dir, "s")}
	c := r.Command(filepath.Join(binDir(), "poemqd"), "serve", "--socket", b.socket,
		"--state-dir", r.Mkdir("broker-"+name+"/state", ""), "--control", filepath.Join(dir, "c"))
	c.Outside = true
	b.Proc = c.Start()
	b.until(serveLimit, "make its socket", func() bool {
		_, err := os.Stat(b.socket)
		return err == nil
	})
	return b
}

// FDs counts the broker's open file descriptors.
func (b *Broker) FDs() int {
	b.rig.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", b.Pid()))
	if err != nil {
		b.rig.Fatalf("the broker's fds: %v", err)
	}
	return len(entries)
}

// Memory is the broker's anonymous resident memory in bytes.
func (b *Broker) Memory() int {
	b.rig.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", b.Pid()))
	if err != nil {
		b.rig.Fatalf("the broker's status: %v", err)
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			n, err := strconv.Atoi(strings.Fields(rest)[0])
			if err != nil {
				b.rig.Fatal(err)
			}
			return n << 10 // the kernel says kB
		}
	}
	b.rig.Fatalf("the broker's status has no RssAnon")
	return 0
}
