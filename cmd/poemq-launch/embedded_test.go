package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// embedded runs the launcher without a system broker, in one of the two modes.
func embedded(mode string, vars ...string) func(*exec.Cmd) {
	return environment(append(vars, "POEMQ_EMBEDDED_MODE="+mode, "POEMQ_BROKER="+filepath.Join(dir, "none.sock"))...)
}

func TestEmbedded(t *testing.T) {
	for _, mode := range []string{"inplace", "chain"} {
		for user, as := range map[string]func(*exec.Cmd){"root": nil, "user": ordinary()} {
			t.Run(mode+"/"+user, func(t *testing.T) {
				p := all(embedded(mode), as)
				run(t, p, launch, "sh", "-c", "exit 42").wantExit(t, 42)
				run(t, p, launch, probe, "calls").wantOut(t, "inet 0 0\nunix 0 0\ndgram 0 0\nnodelay 0 0\ntype 0 0\nlisten 0 0\nio_uring -1 38\nx32 -1 38\n")
				run(t, all(p, stdin("through\n")), launch, "cat").wantOut(t, "through\n")
				run(t, p, launch, "grep", "Seccomp:", "/proc/self/status").wantOut(t, "Seccomp:\t2\n")
				for _, sig := range []syscall.Signal{unix.SIGKILL, unix.SIGTERM, unix.SIGSEGV, unix.SIGABRT, unix.SIGPIPE} {
					r := run(t, p, launch, probe, "raise", fmt.Sprint(int(sig)))
					if ws := r.state.Sys().(syscall.WaitStatus); !ws.Signaled() || ws.Signal() != sig {
						t.Errorf("want death by %v: %v", sig, r)
					}
				}
				run(t, p, launch, "/no/such").wantWords(t, 127, "command not found")
			})
		}
	}
}

// poemqd gets a timer slack of its own, for it may not give one to its threads by
// itself; the program's is what it was.
func TestTimerSlack(t *testing.T) {
	const file = "/proc/self/timerslack_ns"
	own, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, mode := range []string{"inplace", "chain"} {
		run(t, embedded(mode), launch, "cat", file).wantOut(t, string(own))
	}
	if string(own) != "50000\n" {
		t.Skipf("somebody chose a timer slack of %s ns, which then stays poemqd's", strings.TrimSpace(string(own)))
	}
	tells := filepath.Join(t.TempDir(), "poemqd")
	if err := os.WriteFile(tells, []byte("#!/bin/sh\ncat "+file+" >\"$0.slack\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	run(t, embedded("inplace"), launch, "--poemqd", tells, "true") // which fails, for want of a broker
	if slack, err := os.ReadFile(tells + ".slack"); string(slack) != "500000\n" {
		t.Errorf("poemqd has a timer slack of %q ns (%v)", slack, err)
	}
}

// In place the embedded broker is found where packages put it.
func TestFindsPoemqd(t *testing.T) {
	top := t.TempDir()
	for _, place := range []string{"bin/poemqd", "libexec/poemq/poemqd", "sbin/poemqd", "path/poemqd"} {
		root := filepath.Join(top, strings.ReplaceAll(place, "/", "-"))
		for to, from := range map[string]string{"bin/poemq-launch": launch, place: poemqd} {
			to = filepath.Join(root, to)
			if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := copyFile(to, from); err != nil {
				t.Fatal(err)
			}
		}
		vars := environment("POEMQ_BROKER=/none", "PATH="+root+"/path:"+os.Getenv("PATH"))
		run(t, vars, filepath.Join(root, "bin/poemq-launch"), "echo", place).wantOut(t, place+"\n")
	}
}

func TestChainErrors(t *testing.T) {
	run(t, embedded("chain", "FAKE_ERROR=1"), launch, "true").wantWords(t, 125, "embedded broker: no room for it")
	run(t, embedded("chain"), launch, "--poemqd", "/etc/passwd", "true").wantWords(t, 125, "/etc/passwd", "permission denied")
	r := run(t, embedded("chain", "FAKE_DIE=1"), launch, "true")
	r.wantExit(t, 125)
	if !strings.Contains(r.stderr, "poemqd was killed by killed") {
		t.Errorf("%v", r)
	}
}

// A running is a launched "probe serve".
type running struct {
	t         *testing.T
	cmd       *exec.Cmd
	out       *bufio.Reader
	pid, ppid int // of the program
}

func serve(t *testing.T, prepare func(*exec.Cmd), args ...string) *running {
	t.Helper()
	if len(args) == 0 {
		args = []string{launch, probe, "serve"}
	}
	r := &running{t: t, cmd: exec.Command(args[0], args[1:]...)}
	prepare(r.cmd)
	pipe, err := r.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	r.out = bufio.NewReader(pipe)
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	watch := time.AfterFunc(20*time.Second, func() { _ = r.cmd.Process.Kill() })
	t.Cleanup(func() { watch.Stop(); _ = r.cmd.Process.Kill(); _ = r.cmd.Wait() })
	if _, err := fmt.Sscanf(r.line(), "pid %d ppid %d", &r.pid, &r.ppid); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *running) line() string {
	r.t.Helper()
	s, err := r.out.ReadString('\n')
	if err != nil {
		r.t.Fatalf("the program's output ended: %v", err)
	}
	return s
}

// await waits for the program's end, seen by its standard output.
func (r *running) await() string {
	rest, _ := io.ReadAll(r.out)
	_ = r.cmd.Wait()
	return string(rest)
}

func TestSignalsArePassedOn(t *testing.T) {
	for _, mode := range []string{"inplace", "chain"} {
		t.Run(mode, func(t *testing.T) {
			r := serve(t, embedded(mode))
			if inPlace := r.pid == r.cmd.Process.Pid; inPlace != (mode == "inplace") {
				t.Errorf("the program is pid %d, the launcher %d", r.pid, r.cmd.Process.Pid)
			}
			for sig := unix.Signal(1); sig < 32; sig++ {
				switch sig {
				case unix.SIGKILL, unix.SIGSTOP, unix.SIGTERM, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU, unix.SIGCONT:
					continue
				}
				if err := r.cmd.Process.Signal(sig); err != nil {
					t.Fatal(err)
				}
				if got, want := r.line(), fmt.Sprintf("got %02d\n", int(sig)); got != want {
					t.Errorf("signal %d: program says %q", int(sig), got)
				}
			}
			_ = r.cmd.Process.Signal(unix.SIGTERM)
			if rest := r.await(); rest != "got 15\n" || r.cmd.ProcessState.ExitCode() != 7 {
				t.Errorf("%q, %v", rest, r.cmd.ProcessState)
			}
		})
	}
}

// A timer set before execve(2) is the program's.
func TestAlarmIsPassedOn(t *testing.T) {
	for _, mode := range []string{"inplace", "chain"} {
		r := serve(t, embedded(mode), probe, "alarm", launch, probe, "serve")
		if got := r.line(); got != "got 14\n" {
			t.Errorf("%s: %q", mode, got)
		}
		_ = r.cmd.Process.Signal(unix.SIGTERM)
		r.await()
	}
}

func TestKilledLauncherTakesTheProgramAlong(t *testing.T) {
	r := serve(t, embedded("chain"))
	program, err := unix.PidfdOpen(r.pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(program)
	_ = r.cmd.Process.Kill()
	fds := []unix.PollFd{{Fd: int32(program), Events: unix.POLLIN}}
	for fds[0].Revents == 0 {
		if n, err := unix.Poll(fds, 10_000); n == 0 {
			t.Fatal("the program still runs")
		} else if err != nil && !errors.Is(err, unix.EINTR) {
			t.Fatal(err)
		}
	}
}

// state is the state letter of a process, as ps(1) shows it.
func state(pid int) string {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	_, after, _ := strings.Cut(string(stat), ") ")
	return after[:1]
}

// On a terminal of its own: the program is in the foreground, ^C reaches it
// once, ^Z stops the job and SIGCONT to the group starts it again.
func TestTerminal(t *testing.T) {
	for _, mode := range []string{"inplace", "chain"} {
		t.Run(mode, func(t *testing.T) {
			master, slave := openPTY(t)
			r := serve(t, all(embedded(mode), func(c *exec.Cmd) {
				c.Stdin = slave
				c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
			}), probe, "job", launch, probe, "serve")
			job := r.pid // printed by the job's shell-like parent: the launcher's pid
			var program, parent int
			if _, err := fmt.Sscanf(r.line(), "pid %d ppid %d", &program, &parent); err != nil {
				t.Fatal(err)
			}
			if got, err := unix.Getpgid(program); err != nil || got != job {
				t.Errorf("program's group %d, job %d", got, job)
			}
			write(t, master, "\x03")
			if got := r.line(); got != "got 02\n" {
				t.Errorf("after ^C: %q", got)
			}
			write(t, master, "\x1a")
			if got := r.line(); got != "stopped 20\n" {
				t.Errorf("after ^Z: %q", got)
			}
			for deadline := time.Now().Add(5 * time.Second); state(program) != "T"; runtime.Gosched() {
				if time.Now().After(deadline) {
					t.Fatalf("program's state after ^Z: %s", state(program))
				}
			}
			_ = unix.Kill(-job, unix.SIGCONT)
			write(t, master, "\x1c")
			if got := r.line(); got != "got 03\n" { // and no second ^C before
				t.Errorf("after ^\\: %q", got)
			}
			_ = unix.Kill(job, unix.SIGTERM)
			if rest := r.await(); rest != "got 15\nexit 7\n" {
				t.Errorf("at the end: %q", rest)
			}
		})
	}
}

func write(t *testing.T, f *os.File, s string) {
	t.Helper()
	if _, err := f.WriteString(s); err != nil {
		t.Fatal(err)
	}
}

func openPTY(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip("no pseudo terminals: ", err)
	}
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close(); slave.Close() })
	return master, slave
}
