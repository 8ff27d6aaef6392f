package ctl

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// terminal is a pseudo-terminal with a program at its far end.
type terminal struct {
	b      *bench
	master *os.File
	cmd    *exec.Cmd
	ended  chan error

	mu  sync.Mutex // guards what follows
	all strings.Builder
}

// openTerminal starts a program on a terminal of rows by columns.
func openTerminal(b *bench, rows, columns uint16, args ...string) *terminal {
	b.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		b.Skipf("no pseudo-terminal: %v", err)
	}
	var number int
	raw := func(f func(fd int) error) {
		c, err := master.SyscallConn()
		if err == nil {
			cerr := c.Control(func(fd uintptr) { err = f(int(fd)) })
			if err == nil {
				err = cerr
			}
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	raw(func(fd int) error { return unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0) })
	raw(func(fd int) (err error) {
		number, err = unix.IoctlGetInt(fd, unix.TIOCGPTN)
		return err
	})
	t := &terminal{b: b, master: master, ended: make(chan error, 1)}
	t.resize(rows, columns)
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer slave.Close()
	t.cmd = exec.Command(args[0], args[1:]...)
	t.cmd.Stdin, t.cmd.Stdout, t.cmd.Stderr = slave, slave, slave
	t.cmd.Env = []string{"TERM=xterm", "PATH=" + os.Getenv("PATH")}
	t.cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true, Setctty: true}
	if err := t.cmd.Start(); err != nil {
		b.Fatal(err)
	}
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf)
			t.mu.Lock()
			t.all.Write(buf[:n])
			t.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	go func() { t.ended <- t.cmd.Wait() }()
	b.Cleanup(func() {
		_ = t.cmd.Process.Kill()
		master.Close()
	})
	return t
}

func (t *terminal) resize(rows, columns uint16) {
	c, err := t.master.SyscallConn()
	if err == nil {
		_ = c.Control(func(fd uintptr) {
			err = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns})
		})
	}
	if err != nil {
		t.b.Fatal(err)
	}
}

func (t *terminal) text() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.all.String()
}

var escapes = regexp.MustCompile(`\x1b\[[?0-9;]*[a-zA-Z]`)

// picture is the last whole one that was drawn.
func (t *terminal) picture() string {
	pictures := strings.Split(t.text(), "\x1b[H")
	if len(pictures) < 3 {
		return ""
	}
	return escapes.ReplaceAllString(strings.ReplaceAll(pictures[len(pictures)-2], "\r\n", "\n"), "")
}

func (t *terminal) shows(what string, cond func(picture string) bool) {
	t.b.Helper()
	for deadline := time.Now().Add(30 * time.Second); !cond(t.picture()); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.b.Fatalf("top does not show %s:\n%s", what, t.picture())
		}
	}
}

// TestTop watches traffic, sorts, is made narrow and ended.
func TestTop(t *testing.T) {
	b := newBench(t, "")
	addr := fmt.Sprint("127.0.0.1:", freePort(t))
	b.program("listen", addr, "sink").Start()
	b.await("the port is served", func() bool { return strings.Contains(b.broker.Stderr(), "port="+addr+" ") })
	sender := b.program("connect", addr, "endless").Start()
	top := openTerminal(b, 20, 160, ctlBinary(), "--control", b.broker.Control(), "top", "--interval", "200ms")
	carries := regexp.MustCompile(`(?m)^gopeer +\d+ +quic +\S+ +` + regexp.QuoteMeta(addr) + ` +[1-9]\S*iB/s +0B/s +`)
	top.shows("the connection and its rate", carries.MatchString)
	top.shows("the sums", func(p string) bool {
		return regexp.MustCompile(`^poemq  sockets \d+  connections 2 \(QUIC 2, TCP 0\)  sending [1-9]\S+iB/s  receiving [1-9]\S+iB/s  by rate`).MatchString(p)
	})
	for key, want := range map[string]string{"p": "by program", "t": "by rtt", "i": "by ", "a": "by age"} {
		if _, err := io.WriteString(top.master, key); err != nil {
			t.Fatal(err)
		}
		top.shows("the order after "+key, func(p string) bool { return strings.Contains(p, want) })
	}
	top.resize(6, 40)
	top.shows("no more than fits", func(p string) bool {
		lines := strings.Split(strings.TrimSuffix(p, "\n"), "\n")
		for _, line := range lines {
			if len([]rune(line)) > 40 {
				return false
			}
		}
		return len(lines) > 2 && len(lines) < 6
	})
	if _, err := io.WriteString(top.master, "q"); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-top.ended:
		if err != nil {
			t.Errorf("q: %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("q does not end it")
	}
	if !strings.HasPrefix(top.text(), "\x1b[?1049h\x1b[?25l") {
		t.Errorf("it does not begin with another screen: %.40q", top.text())
	}
	b.await("the terminal is as it was", func() bool { return strings.HasSuffix(top.text(), "\x1b[?25h\x1b[?1049l") })
	// Without a terminal: tables, one after the other.
	if said := b.must("top", "-n", "2", "--interval", "100ms", "--sort", "bytes"); strings.Count(said, "by bytes") != 2 || strings.Contains(said, "\x1b") || strings.Count(said, addr) != 4 {
		t.Errorf("%s", said)
	}
	if _, errs, status := b.ctl("top", "--sort", "colour"); status != 1 || !strings.Contains(errs, "none of rate, bytes, rtt") {
		t.Errorf("%d: %s", status, errs)
	}
	sender.Stop()
}
