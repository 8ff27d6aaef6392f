package storm

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	calls = 100_000
	// limit is far more than a storm takes on a machine that is busy.
	limit = 3 * time.Minute
)

func TestStorm(t *testing.T) { storm(t, "seccomp", 4) }

// TestStormZpoline is the same inside of the hook library, which has state that
// the signals' handlers and the threads could meet in.
func TestStormZpoline(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("the hook library is for x86-64 only")
	}
	storm(t, "zpoline", 16)
}

func storm(t *testing.T, via string, threads int) {
	bin := binaries(t)
	program := compile(t)
	b := startBroker(t, bin)
	// The first session makes what stays: keys, pools of threads.
	b.run(t, bin, via, program, 1000, threads, "restart")
	before := b.settled(t, status{})
	for _, how := range []string{"restart", "interrupt"} {
		t.Run(how, func(t *testing.T) {
			began := time.Now()
			said := b.run(t, bin, via, program, calls, threads, how)
			after := b.settled(t, before)
			t.Logf("%s in %v; the broker before: %+v, after: %+v", said, time.Since(began).Round(time.Millisecond), before, after)
			var sockets, interrupted, signals int
			if _, err := fmt.Sscanf(said, "%d sockets, %d calls interrupted, %d signals", &sockets, &interrupted, &signals); err != nil {
				t.Fatal(err)
			}
			if sockets != calls {
				t.Errorf("%d sockets, want %d", sockets, calls)
			}
			if signals < 100 {
				t.Errorf("%d signals are no storm", signals)
			}
			// What does not wait is never EINTR in the kernel, nor in the library.
			if via == "seccomp" && how == "interrupt" && interrupted == 0 {
				t.Error("no call was interrupted: this proves nothing")
			}
			if log := b.log(); strings.Contains(log, "level=ERROR") || strings.Contains(log, "level=WARN") {
				t.Errorf("the broker complains:\n%s", log)
			}
		})
	}
}

// status is what poemqctl tells of the broker.
type status struct {
	Sessions   int `json:"sessions"`
	Sockets    int `json:"sockets"`
	Relays     int `json:"relays"`
	Goroutines int `json:"goroutines"`
	Fds        int `json:"fds"`
}

type broker struct {
	dir    string
	ctl    string
	cmd    *exec.Cmd
	exited chan struct{}
}

func (b *broker) socket() string  { return filepath.Join(b.dir, "broker") }
func (b *broker) control() string { return filepath.Join(b.dir, "control") }

func (b *broker) log() string {
	text, _ := os.ReadFile(filepath.Join(b.dir, "log"))
	return string(text)
}

func startBroker(t *testing.T, bin string) *broker {
	t.Helper()
	dir, err := os.MkdirTemp("", "pq")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	b := &broker{dir: dir, ctl: filepath.Join(bin, "poemqctl"), exited: make(chan struct{})}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	b.cmd = exec.Command(filepath.Join(bin, "poemqd"), "--state-dir", filepath.Join(dir, "state"), "--runtime-dir", dir,
		"serve", "--socket", b.socket(), "--control", b.control())
	b.cmd.Stderr = log
	if err := b.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = b.cmd.Wait()
		close(b.exited)
	}()
	t.Cleanup(func() {
		_ = b.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-b.exited:
		case <-time.After(20 * time.Second):
			t.Error("the broker does not end")
			_ = b.cmd.Process.Kill()
			<-b.exited
		}
		if t.Failed() {
			t.Logf("the broker said:\n%s", b.log())
		}
	})
	b.await(t, "the broker takes sessions", func() bool {
		// Not by connecting there: that would be a handover of nothing.
		return strings.Contains(b.log(), "poemqd serves") && isSocket(b.socket()) && isSocket(b.control())
	})
	return b
}

// await asks again and again until ok or the broker has ended.
func (b *broker) await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	every := time.NewTicker(20 * time.Millisecond)
	defer every.Stop()
	for deadline := time.After(20 * time.Second); !ok(); {
		select {
		case <-every.C:
		case <-b.exited:
			t.Fatalf("the broker has ended:\n%s", b.log())
		case <-deadline:
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

// stock is by how many the sockets vary that the broker has made in advance.
const stock = 16

// settled waits until the broker has no sessions and sockets and no more
// descriptors and goroutines than most; the zero status sets no such bound,
// but that they do not change any more.
func (b *broker) settled(t *testing.T, most status) (now status) {
	t.Helper()
	var last status
	same := 0
	defer func() {
		if t.Failed() {
			t.Logf("the broker before: %+v, now: %+v", most, now)
		}
	}()
	b.await(t, "the broker's sockets, descriptors and goroutines return to where they were", func() bool {
		last, now = now, b.status(t)
		if now.Sessions+now.Sockets+now.Relays > 0 {
			return false
		}
		if most != (status{}) {
			return now.Fds <= most.Fds+stock && now.Goroutines <= most.Goroutines
		}
		if same++; now != last {
			same = 0
		}
		return same >= 5
	})
	return now
}

func (b *broker) status(t *testing.T) (s status) {
	t.Helper()
	out, err := exec.Command(b.ctl, "--control", b.control(), "--json", "status").Output()
	if err != nil {
		t.Fatalf("poemqctl status: %v", err)
	}
	if err := json.Unmarshal(out, &s); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return s
}

// run runs the program under b and returns what it says.
func (b *broker) run(t *testing.T, bin, via, program string, calls, threads int, how string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "poemq-launch"), "--broker", b.socket(), "--on-broker-missing", "fail",
		"--via", via, "--", program, fmt.Sprint(calls), fmt.Sprint(threads), how)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, out)
	}
	return strings.TrimSpace(string(out))
}

func isSocket(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode().Type() == os.ModeSocket
}

func compile(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "storm")
	if out, err := exec.Command("gcc", "-Wall", "-Wextra", "-O2", "-pthread", "-o", program, "program/storm.c").CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s", err, out)
	}
	return program
}

func binaries(t *testing.T) string {
	t.Helper()
	if dir := os.Getenv("POEMQ_BIN"); dir != "" {
		return dir
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("make", "-C", root, "build").CombinedOutput(); err != nil {
		t.Fatalf("make build: %v\n%s", err, out)
	}
	return filepath.Join(root, "bin")
}
