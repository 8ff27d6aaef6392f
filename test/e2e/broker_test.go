package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// broker is a system broker (poemqd serve) that a test owns.
type broker struct {
	*process
	socket  string
	control string
}

// startBroker runs poemqd serve on h; programs started there afterwards use it.
func startBroker(t *testing.T, h *host) *broker {
	t.Helper()
	dir := shortDir(t)
	b := &broker{socket: filepath.Join(dir, "broker.sock"), control: filepath.Join(dir, "control.sock")}
	var argv []string
	if h.netns != "" {
		argv = append(argv, tool("ip"), "netns", "exec", h.netns)
	}
	argv = append(argv, filepath.Join(binDir, "poemqd"), "serve", "--socket", b.socket, "--state-dir", h.state, "--control", b.control)
	if h.config != "" {
		argv = append(argv, "--config", h.config)
	}
	b.process = startProcess(t, 10*time.Minute, input{}, nil, h.cred, argv...)
	b.name = "poemqd"
	eventually(t, 15*time.Second, "poemqd listens on "+b.socket, func() bool {
		if b.ended() {
			t.Fatalf("poemqd ended at once: %v", b.waited)
		}
		// Looking must not be taken for a handover: the control socket
		// is asked, the session socket only has to exist.
		c, err := net.Dial("unix", b.control)
		if err != nil {
			return false
		}
		c.Close()
		_, err = os.Stat(b.socket)
		return err == nil
	})
	h.broker = b.socket
	return b
}

// usage is what a broker holds.
type usage struct {
	fds        int
	goroutines int
	rss        int // MiB
}

func (u usage) String() string {
	return fmt.Sprintf("%d fds, %d goroutines, %d MiB", u.fds, u.goroutines, u.rss)
}

// usage counts what the broker holds now.
func (b *broker) usage(t *testing.T) usage {
	t.Helper()
	return usage{fds: b.fds(t), goroutines: b.goroutines(t), rss: b.memory(t, "VmRSS")}
}

// fds counts the broker's open descriptors.
func (b *broker) fds(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", b.pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// memory reads a size from /proc/PID/status (VmRSS, VmHWM), in MiB.
func (b *broker) memory(t *testing.T, field string) int {
	t.Helper()
	for line := range strings.Lines(readAll(fmt.Sprintf("/proc/%d/status", b.pid))) {
		if rest, ok := strings.CutPrefix(line, field+":"); ok {
			kib, err := strconv.Atoi(strings.Fields(rest)[0])
			if err != nil {
				t.Fatal(err)
			}
			return kib >> 10
		}
	}
	t.Fatalf("no %s in the status of the broker", field)
	return 0
}

// goroutines asks the broker through poemqctl.
func (b *broker) goroutines(t *testing.T) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, filepath.Join(binDir, "poemqctl"), "--control", b.control, "--json", "status").Output()
	if err != nil {
		t.Fatalf("poemqctl status: %v\n%s", err, out)
	}
	var status struct {
		Goroutines int `json:"goroutines"`
	}
	if err := json.Unmarshal(out, &status); err != nil {
		t.Fatalf("poemqctl status: %v\n%s", err, out)
	}
	if status.Goroutines == 0 {
		t.Fatalf("poemqctl status tells no goroutines: %s", out)
	}
	return status.Goroutines
}

// returnsTo waits until the broker holds what it held before, give or take what
// a runtime keeps: a few descriptors and goroutines, some memory of the heap.
func (b *broker) returnsTo(t *testing.T, before usage) {
	t.Helper()
	// The broker keeps between 16 and 32 sockets in stock.
	const moreFds, moreGoroutines, moreMiB = 20, 8, 64
	var now usage
	back := holdsWithin(30*time.Second, func() bool {
		now = b.usage(t)
		return now.fds <= before.fds+moreFds && now.goroutines <= before.goroutines+moreGoroutines && now.rss <= before.rss+moreMiB
	})
	t.Logf("%s: %v before, %v after", b.socket, before, now)
	if !back {
		t.Errorf("the broker does not return to where it was: %v before, %v after", before, now)
	}
}

// kill ends the broker as a crash would.
func (b *broker) kill(t *testing.T) {
	t.Helper()
	b.signal(t, syscall.SIGKILL)
	b.exitCode(t, 5*time.Second)
}

// complaints counts the warnings and errors in the broker's log.
func (b *broker) complaints() int {
	n := 0
	for line := range strings.Lines(b.stderr()) {
		if strings.Contains(line, "level=WARN") || strings.Contains(line, "level=ERROR") {
			n++
		}
	}
	return n
}
