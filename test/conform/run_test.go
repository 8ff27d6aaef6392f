package conform

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// families are the C files, in the order of the score.
var families = []string{
	"socket", "bind", "listen", "connect", "data", "close",
	"options", "process", "names", "signals", "ways",
}

// A scenario ends itself by alarm after 25 s (600 s heavy); after these it is
// killed and counts as hanging.
const (
	deadline      = 40 * time.Second
	heavyDeadline = 11 * time.Minute
)

type testCase struct {
	family   string // of scenarios: the C file
	prog     string // compiled
	scenario string
	ip       string // v4, v6 or mapped
	heavy    bool
}

func (c testCase) name() string   { return c.family + "/" + c.scenario }
func (c testCase) String() string { return c.name() + " " + c.ip }

// buildFamilies compiles every family and asks each for its scenarios.
func buildFamilies(t *testing.T) []testCase {
	t.Helper()
	gcc, err := exec.LookPath("gcc")
	if err != nil {
		t.Skip("needs gcc")
	}
	// Readable for the scenarios that continue as another user.
	dir, err := os.MkdirTemp("", "conform-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	var cases []testCase
	for _, f := range families {
		prog := filepath.Join(dir, f)
		cc := exec.Command(gcc, "-O1", "-Wall", "-Wextra", "-pthread", "-o", prog, "scenarios/"+f+".c")
		if out, err := cc.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", cc.Args, err, out)
		}
		list, err := exec.Command(prog, "--list").Output()
		if err != nil {
			t.Fatalf("%s --list: %v", prog, err)
		}
		for line := range strings.Lines(string(list)) {
			w := strings.Fields(line)
			if slices.Contains(w[2:], "root") && os.Geteuid() != 0 {
				t.Logf("%s/%s: not run: needs root", f, w[0])
				continue
			}
			for ip := range strings.SplitSeq(w[1], ",") {
				cases = append(cases, testCase{f, prog, w[0], ip, slices.Contains(w[2:], "heavy")})
			}
		}
	}
	return cases
}

// runner runs cases one way: natively or through poemq-launch.
type runner struct {
	native bool
	via    string   // the way in: seccomp or zpoline
	launch []string // poemq-launch and its flags, up to and with "--"
	dir    string   // POEMQ_STATE_DIR
}

// newSecondRun decides how the run that is compared with the native one is
// made, and starts the broker it needs.
func newSecondRun(t *testing.T) *runner {
	t.Helper()
	launch := os.Getenv("POEMQ_LAUNCH")
	if launch == "" {
		if beside, err := filepath.Abs("../../bin/poemq-launch"); err == nil {
			if _, err := os.Stat(beside); err == nil {
				launch = beside
			}
		}
	}
	if launch == "" || os.Getenv("CONFORM_NATIVE") != "" {
		return &runner{native: true}
	}
	r := &runner{dir: t.TempDir(), via: "seccomp"}
	if via := os.Getenv("CONFORM_VIA"); via != "" {
		r.via = via
	}
	r.launch = append([]string{launch, "--via", r.via}, strings.Fields(os.Getenv("POEMQ_LAUNCH_FLAGS"))...)
	poemqd := filepath.Join(filepath.Dir(launch), "poemqd")
	if _, err := os.Stat(poemqd); err == nil && os.Getenv("CONFORM_EMBEDDED") == "" {
		r.launch = append(r.launch, "--broker", startBroker(t, poemqd, r.dir), "--on-broker-missing", "fail")
	}
	r.launch = append(r.launch, "--")
	return r
}

// mustCarry fails the test when the launcher leaves TCP sockets as they are:
// native would be compared with native.
func (r *runner) mustCarry(t *testing.T, prog string) {
	t.Helper()
	cmd := exec.Command(r.launch[0], append(slices.Clone(r.launch[1:]), prog, "--probe")...)
	cmd.Env = append(os.Environ(), "POEMQ_STATE_DIR="+r.dir)
	if out, err := cmd.CombinedOutput(); err != nil || string(out) != "carried\n" {
		t.Fatalf("%v: %v, a TCP socket is: %s", cmd.Args, err, out)
	}
}

// startBroker starts one broker for the whole run and returns its socket.
func startBroker(t *testing.T, poemqd, stateDir string) string {
	t.Helper()
	dir := t.TempDir()
	socket := filepath.Join(dir, "broker.sock")
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(poemqd, "serve", "--socket", socket, "--state-dir", stateDir,
		"--control", filepath.Join(dir, "control.sock"))
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			cmd.Process.Kill()
			t.Error("the broker did not end within 10 s of SIGTERM")
		}
		if t.Failed() {
			t.Logf("the end of the broker's log:\n%s", tail(log.Name(), 40))
		}
		log.Close()
	})
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if c, err := net.Dial("unix", socket); err == nil {
			c.Close()
			return socket
		}
		select {
		case err := <-ended:
			t.Fatalf("the broker ended: %v\n%s", err, tail(log.Name(), 40))
		default:
		}
		if time.Now().After(end) {
			t.Fatalf("no broker at %s after 20 s\n%s", socket, tail(log.Name(), 40))
		}
	}
}

// result is a run's transcript, closed by a line that tells how it ended.
type result struct {
	lines  []string
	stderr string
}

func (r result) skipped() bool { return strings.HasPrefix(r.lines[0], "SKIP:") }

// failed is true of a run that ended badly, whatever the other one did.
func (r result) failed() bool {
	return r.lines[len(r.lines)-1] != "exit 0" || slices.ContainsFunc(r.lines, func(l string) bool {
		return strings.Contains(l, "TIMED OUT") || strings.Contains(l, "SET-UP FAILED")
	})
}

func (r result) chatter() string {
	if r.stderr == "" {
		return ""
	}
	return "stderr of poemq's run:\n" + r.stderr
}

// run runs one case in a process group of its own. Output goes to files, not
// pipes: a descendant that outlives the scenario cannot hold up the test.
func (r *runner) run(t *testing.T, c testCase) result {
	dir := t.TempDir()
	args := append(slices.Clone(r.launch), c.prog, c.scenario, c.ip)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "POEMQ_STATE_DIR=" + r.dir, "CONFORM_VIA=" + r.via}
	for _, name := range []string{"POEMQ_ZPOLINE_LOADER", "POEMQ_ZPOLINE"} {
		if value := os.Getenv(name); value != "" {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
	}
	limit := deadline
	if c.heavy {
		cmd.Env = append(cmd.Env, "CONFORM_HEAVY="+os.Getenv("CONFORM_HEAVY"))
		limit = heavyDeadline
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdout, err := os.Create(filepath.Join(dir, ".stdout"))
	if err != nil {
		return result{lines: []string{err.Error()}}
	}
	defer stdout.Close()
	stderr, err := os.Create(filepath.Join(dir, ".stderr"))
	if err != nil {
		return result{lines: []string{err.Error()}}
	}
	defer stderr.Close()
	cmd.Stdout, cmd.Stderr = stdout, stderr
	if err := cmd.Start(); err != nil {
		return result{lines: []string{err.Error()}}
	}
	ended := make(chan struct{})
	go func() {
		awaitEnd(cmd.Process.Pid)
		close(ended)
	}()
	hangs := false
	select {
	case <-ended:
	case <-time.After(limit):
		hangs = true
	}
	// Not reaped yet, so the id is still this group's.
	syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	end := endText(cmd.Wait())
	if hangs {
		end = fmt.Sprintf("HANGS: killed after %v", limit)
	}
	lines := readLines(stdout.Name())
	text, _ := os.ReadFile(stderr.Name())
	return result{lines: append(lines, end), stderr: string(bytes.ToValidUTF8(text, []byte("?")))}
}

// awaitEnd waits until a child has ended and leaves it to be reaped.
func awaitEnd(pid int) {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if err != unix.EINTR {
			return
		}
	}
}

// endText names a program's end. poemq-launch passes a program's death by
// signal on as the shell does, as 128 + signal or by the signal itself.
func endText(err error) string {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		if err != nil {
			return err.Error()
		}
		return "exit 0"
	}
	status := exit.Sys().(syscall.WaitStatus)
	switch {
	case status.Signaled():
		return fmt.Sprintf("killed by signal %d", status.Signal())
	case status.ExitStatus() > 128:
		return fmt.Sprintf("killed by signal %d", status.ExitStatus()-128)
	}
	return fmt.Sprintf("exit %d", status.ExitStatus())
}

func readLines(name string) []string {
	f, err := os.Open(name)
	if err != nil {
		return []string{err.Error()}
	}
	defer f.Close()
	var lines []string
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		lines = append(lines, s.Text())
	}
	return lines
}

func tail(name string, n int) string {
	lines := readLines(name)
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
