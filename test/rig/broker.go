package rig

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Broker is a poemqd of its own, for tests that look at the broker itself. On
// a native run there is none and it is nil; its methods then measure nothing.
type Broker struct {
	*Proc
	socket, control string
}

// StartBroker starts a poemqd. Commands with it in their Broker field are
// served by it.
func (r *Rig) StartBroker(name string) *Broker {
	r.Helper()
	return r.StartBrokerOn(nil, name)
}

// StartBrokerOn is StartBroker for a place of its own. A second one with the
// same name has the same state: the first one's key and pins.
func (r *Rig) StartBrokerOn(place Place, name string, flags ...string) *Broker {
	r.Helper()
	if Native() {
		return nil
	}
	dir := r.Mkdir("broker-"+name, "")
	b := &Broker{socket: filepath.Join(dir, "broker.sock")}
	c := r.Command(filepath.Join(BinDir(), "poemqd"), "serve", "--socket", b.socket,
		"--state-dir", r.Mkdir("broker-"+name+"/state", ""), "--control", filepath.Join(dir, "control.sock"))
	c.Args = append(c.Args, flags...)
	c.Outside, c.On = true, place
	b.control = filepath.Join(dir, "control.sock")
	b.Proc = c.Start()
	// A broker that was killed has left its sockets; the control socket is the
	// last that is made.
	b.until(serveLimit, "serve", func() bool {
		c, err := net.Dial("unix", b.control)
		if err != nil {
			return false
		}
		c.Close()
		return true
	})
	return b
}

// Dir is where the broker's sockets are, broker.sock and control.sock.
func (b *Broker) Dir() string { return filepath.Dir(b.socket) }

// Control is the broker's control socket.
func (b *Broker) Control() string { return b.control }

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

// Status is how much a broker has under way.
type Status struct {
	Sessions, Sockets, Relays, Goroutines int
	HeapBytes                             uint64 `json:"heap_bytes"`
}

// Status asks the broker, by poemqctl.
func (b *Broker) Status() (s Status) {
	b.rig.Helper()
	out, err := exec.Command(filepath.Join(BinDir(), "poemqctl"), "--json", "--control", b.control, "status").Output()
	if err == nil {
		err = json.Unmarshal(out, &s)
	}
	if err != nil {
		b.rig.Errorf("the broker's status: %v: %s", err, out)
	}
	return s
}

// share has one broker serve all of the test's programs, and demands that
// nothing of theirs is left in it after they have ended.
func (r *Rig) share() {
	b := r.StartBroker("shared")
	r.shared = b
	r.Cleanup(func() { // before the broker's end, after that of its programs
		s := b.Status()
		if !poll(forgetLimit, func() bool { s = b.Status(); return s.Sessions+s.Sockets+s.Relays == 0 }) {
			r.Errorf("the broker still has, %v after its programs: %+v", forgetLimit, s)
		}
	})
}

// forgetLimit is how long a broker may take to notice that programs are gone.
const forgetLimit = 3 * time.Second

// warnings are the lines of a broker's log that tell of something that is not
// as it should be.
func (p *Proc) warnings() (lines []string) {
	for line := range strings.Lines(p.Stderr()) {
		if strings.Contains(line, " level=WARN ") || strings.Contains(line, " level=ERROR ") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}
