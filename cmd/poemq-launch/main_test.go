package main

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// What the tests run, built once in a folder that ordinary users can read.
var dir, launch, probe, poemqd string

func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "poemqd" {
		os.Exit(fakePoemqd(os.Args[1:]))
	}
	status := 1
	if err := prepare(); err != nil {
		fmt.Fprintln(os.Stderr, err)
	} else {
		status = m.Run()
	}
	_ = os.RemoveAll(dir)
	os.Exit(status)
}

func prepare() error {
	for _, v := range os.Environ() { // the tests say themselves what they want
		if name, _, _ := strings.Cut(v, "="); strings.HasPrefix(name, "POEMQ_") {
			_ = os.Unsetenv(name)
		}
	}
	// The race detector lets a process sleep 1 s at its end: not every fake poemqd.
	if err := os.Setenv("GORACE", "atexit_sleep_ms=0"); err != nil {
		return err
	}
	var err error
	if dir, err = os.MkdirTemp("", "poemq-launch-test"); err != nil {
		return err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	launch, probe, poemqd = dir+"/poemq-launch", dir+"/probe", dir+"/poemqd"
	build := exec.Command("go", "build", "-tags", "netgo,osusergo", "-trimpath",
		"-ldflags", "-s -w -linkmode external -extldflags -static", "-o", launch, ".")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build poemq-launch: %w\n%s", err, out)
	}
	if out, err := exec.Command("gcc", "-static", "-O2", "-o", probe, "testdata/probe.c").CombinedOutput(); err != nil {
		return fmt.Errorf("build probe: %w\n%s", err, out)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	return copyFile(poemqd, self)
}

func copyFile(to, from string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(dst, src); err != nil {
		return err
	}
	return dst.Close()
}

// A result is how a command ended.
type result struct {
	stdout, stderr string
	state          *os.ProcessState
}

func (r result) String() string {
	return fmt.Sprintf("%v\nstdout: %s\nstderr: %s", r.state, r.stdout, r.stderr)
}

// run runs a command for at most 20 s.
func run(t *testing.T, prepare func(*exec.Cmd), args ...string) result {
	t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = 5 * time.Second
	if prepare != nil {
		prepare(cmd)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	watch := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
	defer watch.Stop()
	var exit *exec.ExitError
	if err := cmd.Wait(); err != nil && !errors.As(err, &exit) && !errors.Is(err, exec.ErrWaitDelay) {
		t.Fatal(err)
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState}
}

func (r result) wantExit(t *testing.T, status int) {
	t.Helper()
	if r.state.ExitCode() != status {
		t.Errorf("exit status %d wanted: %v", status, r)
	}
}

func (r result) wantOut(t *testing.T, want string) {
	t.Helper()
	if r.stdout != want {
		t.Errorf("output %q wanted: %v", want, r)
	}
}

// wantWords checks an error message of the launcher's.
func (r result) wantWords(t *testing.T, status int, words ...string) {
	t.Helper()
	r.wantExit(t, status)
	for _, w := range append(words, "poemq-launch: ") {
		if !strings.Contains(r.stderr, w) {
			t.Errorf("no %q in %q", w, r.stderr)
		}
	}
	if n := strings.Count(r.stderr, "\n"); n != 1 {
		t.Errorf("%d lines of error: %q", n, r.stderr)
	}
}

// ordinary makes a command run as an ordinary user.
func ordinary() func(*exec.Cmd) {
	if os.Getuid() != 0 {
		return nil
	}
	return func(c *exec.Cmd) {
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
}

func environment(vars ...string) func(*exec.Cmd) {
	return func(c *exec.Cmd) { c.Env = append(os.Environ(), vars...) }
}

func all(fs ...func(*exec.Cmd)) func(*exec.Cmd) {
	return func(c *exec.Cmd) {
		for _, f := range fs {
			if f != nil {
				f(c)
			}
		}
	}
}

func TestBinaryIsSmallAndStatic(t *testing.T) {
	info, err := os.Stat(launch)
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() >= 4_000_000 {
		t.Errorf("poemq-launch has %d bytes, not less than 4 MB", info.Size())
	}
	file, err := elf.Open(launch)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, p := range file.Progs {
		if p.Type == elf.PT_INTERP {
			t.Error("poemq-launch wants a dynamic loader")
		}
	}
	t.Logf("%d bytes", info.Size())
}
