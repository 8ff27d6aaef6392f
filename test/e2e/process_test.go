package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"
)

// process is a program that a test started. The test's cleanup ends it by pid
// and waits for it; its output goes to files, so that a broker which inherits
// them can never make Wait hang.
type process struct {
	name   string
	pid    int
	stdin  io.WriteCloser // nil unless started with pipe
	cmd    *exec.Cmd
	out    string // file with standard output
	errs   string // file with standard error, the private broker's log included
	done   chan struct{}
	waited error // result of Wait, valid once done is closed
}

// input says what a process reads on standard input.
type input struct {
	file string // a file's content; empty: nothing at all
	pipe bool   // process.stdin is a pipe that the test writes to
}

// startProcess runs argv with extra environment. Its life is bounded by the
// test and by limit, whichever ends first.
func startProcess(t *testing.T, limit time.Duration, in input, env []string, cred *syscall.Credential, argv ...string) *process {
	t.Helper()
	dir := shortDir(t)
	p := &process{name: filepath.Base(argv[0]), out: filepath.Join(dir, "out"), errs: filepath.Join(dir, "err"), done: make(chan struct{})}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	p.cmd = exec.CommandContext(ctx, argv[0], argv[1:]...)
	p.cmd.Env = append(plainEnviron(), env...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: cred}

	var files []*os.File
	open := func(path string, flags int) *os.File {
		f, err := os.OpenFile(path, flags, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
		return f
	}
	p.cmd.Stdout = open(p.out, os.O_CREATE|os.O_WRONLY|os.O_APPEND)
	p.cmd.Stderr = open(p.errs, os.O_CREATE|os.O_WRONLY|os.O_APPEND)
	switch {
	case in.pipe:
		w, err := p.cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		p.stdin = w
	case in.file != "":
		p.cmd.Stdin = open(in.file, os.O_RDONLY)
	}
	if err := p.cmd.Start(); err != nil {
		cancel()
		t.Fatalf("start %s: %v", strings.Join(argv, " "), err)
	}
	for _, f := range files {
		f.Close()
	}
	p.pid = p.cmd.Process.Pid
	go func() {
		p.waited = p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		cancel()
		<-p.done
		if t.Failed() {
			t.Logf("%s (pid %d): %v\n  $ %s\n  stdout: %s\n  stderr: %s", p.name, p.pid, p.waited, strings.Join(argv, " "), tail(p.out), tail(p.errs))
		}
	})
	return p
}

// plainEnviron is the tests' environment without poemq's own settings, which a
// developer's shell may hold.
func plainEnviron() []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "POEMQ_") })
}

// signal sends sig; a process that has already ended is no failure.
func (p *process) signal(t *testing.T, sig syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatalf("signal %s: %v", p.name, err)
	}
}

// ended tells whether the process has ended.
func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// exitCode waits for the end, at most limit, and returns the exit status
// (-1 after a signal).
func (p *process) exitCode(t *testing.T, limit time.Duration) int {
	t.Helper()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode()
	case <-timer.C:
		t.Fatalf("%s (pid %d) has not ended after %v", p.name, p.pid, limit)
		return -1
	}
}

// succeed waits for the end and wants exit status 0.
func (p *process) succeed(t *testing.T, limit time.Duration) {
	t.Helper()
	if code := p.exitCode(t, limit); code != 0 {
		t.Fatalf("%s (pid %d) ended with status %d, want 0", p.name, p.pid, code)
	}
}

// stdout returns what the process has printed so far.
func (p *process) stdout() string { return readAll(p.out) }

// stderr returns what the process has logged so far.
func (p *process) stderr() string { return readAll(p.errs) }

// says waits until standard output contains text.
func (p *process) says(t *testing.T, limit time.Duration, text string) {
	t.Helper()
	eventually(t, limit, fmt.Sprintf("%s prints %q", p.name, text), func() bool {
		return strings.Contains(p.stdout(), text)
	})
}

// write sends text to the process's standard input.
func (p *process) write(t *testing.T, text string) {
	t.Helper()
	if _, err := io.WriteString(p.stdin, text); err != nil {
		t.Fatalf("write to %s: %v", p.name, err)
	}
}

// feed copies a file to the process's standard input, which stays open.
func (p *process) feed(t *testing.T, path string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	fed := make(chan struct{})
	go func() {
		defer close(fed)
		defer f.Close()
		io.Copy(p.stdin, f) // ends with the process at the latest
	}()
	t.Cleanup(func() {
		p.stdin.Close()
		<-fed
	})
}

// eventually polls condition until it holds; after limit the test fails with
// what was waited for.
func eventually(t *testing.T, limit time.Duration, what string, condition func() bool) {
	t.Helper()
	if !holdsWithin(limit, condition) {
		t.Fatalf("not within %v: %s", limit, what)
	}
}

// holdsWithin polls condition every few milliseconds until it holds or limit
// has passed.
func holdsWithin(limit time.Duration, condition func() bool) bool {
	deadline := time.Now().Add(limit)
	for !condition() {
		if time.Now().After(deadline) {
			return condition()
		}
		<-time.After(5 * time.Millisecond)
	}
	return true
}

// shortDir is a directory of the test's own. Its name is short, as the paths of
// UNIX sockets must be, and it is open to other users.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "pq")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// endStrays ends whatever still runs with this state directory in its
// environment and fails the test for it: a private broker ends with its
// programs.
func endStrays(t *testing.T, stateDir string) {
	t.Helper()
	if holdsWithin(5*time.Second, func() bool { return len(processesWith(stateDir)) == 0 }) {
		return
	}
	for pid, command := range processesWith(stateDir) {
		t.Errorf("still running after the test: pid %d, %s", pid, command)
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Logf("kill %d: %v", pid, err)
		}
	}
}

// processesWith finds processes by POEMQ_STATE_DIR in their environment.
func processesWith(stateDir string) map[int]string {
	found := map[int]string{}
	environs, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, path := range environs {
		env, err := os.ReadFile(path)
		if err != nil || !bytes.Contains(env, []byte("POEMQ_STATE_DIR="+stateDir+"\x00")) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			continue
		}
		command := readAll(filepath.Join(filepath.Dir(path), "cmdline"))
		found[pid] = strings.ReplaceAll(command, "\x00", " ")
	}
	return found
}

func readAll(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return string(data)
}

// tail is the end of a text file, for failure messages.
func tail(path string) string {
	const most = 3000
	text := readAll(path)
	if !utf8.ValidString(text) {
		return fmt.Sprintf("(%d bytes that are no text)", len(text))
	}
	if len(text) > most {
		text = "… " + text[len(text)-most:]
	}
	return strings.ReplaceAll("\n"+strings.TrimRight(text, "\n"), "\n", "\n      ")
}
