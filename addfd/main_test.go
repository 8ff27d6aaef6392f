package addfd

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// childEnv makes the test binary a process that holds a socket as descriptor 3
// and does with it what it is told on standard input.
const childEnv = "ADDFD_TEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		obey()
		return
	}
	goleak.VerifyTestMain(m)
}

func obey() {
	const fd = 3
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		command, text, _ := strings.Cut(in.Text(), " ")
		var err error
		said := ""
		switch command {
		case "write":
			err = unix.Sendto(fd, []byte(text), unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT, nil)
		case "pass": // the descriptor 3 over the socket that is descriptor 4
			err = unix.Sendmsg(4, []byte("x"), unix.UnixRights(fd), nil, unix.MSG_NOSIGNAL)
		case "read":
			b := make([]byte, 100)
			var n int
			n, _, err = unix.Recvfrom(fd, b, unix.MSG_DONTWAIT)
			said = string(b[:max(n, 0)])
		case "close":
			err = unix.Close(fd)
		}
		errno, _ := err.(unix.Errno)
		fmt.Printf("%d %s\n", int(errno), said)
	}
}

// process is another process with descriptors 3 and up.
type process struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// startProcess gives fds to a new process; the caller keeps its own copies.
func startProcess(t *testing.T, fds ...int) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command(os.Args[0])}
	p.cmd.Env = append(os.Environ(), childEnv+"=1", "GORACE=atexit_sleep_ms=0")
	p.cmd.Stderr = os.Stderr
	for _, fd := range fds {
		copied, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		f := os.NewFile(uintptr(copied), "passed on")
		defer f.Close()
		p.cmd.ExtraFiles = append(p.cmd.ExtraFiles, f)
	}
	in, err := p.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.in, p.out = in, bufio.NewReader(out)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.end)
	return p
}

// do has the process obey and returns what it says.
func (p *process) do(command string) (string, unix.Errno) {
	p.t.Helper()
	if _, err := io.WriteString(p.in, command+"\n"); err != nil {
		p.t.Fatal(err)
	}
	line, err := p.out.ReadString('\n')
	if err != nil {
		p.t.Fatal(err)
	}
	code, said, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
	errno, err := strconv.Atoi(code)
	if err != nil {
		p.t.Fatal(err)
	}
	return said, unix.Errno(errno)
}

// must is do with success.
func (p *process) must(command string) string {
	p.t.Helper()
	said, errno := p.do(command)
	if errno != 0 {
		p.t.Fatalf("%s: %v", command, errno)
	}
	return said
}

// end has the process end in the ordinary way.
func (p *process) end() {
	p.in.Close()
	_ = p.cmd.Wait()
}

// kill is SIGKILL.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

func pollBits(t *testing.T, fd int) int16 {
	t.Helper()
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN | unix.POLLPRI | unix.POLLOUT | unix.POLLRDHUP}}
	if _, err := unix.Poll(p, 0); err != nil {
		t.Fatal(err)
	}
	return p[0].Revents
}

func openDir(t *testing.T) *Dir {
	t.Helper()
	parent, err := os.MkdirTemp("", "pq")
	if err != nil {
		t.Fatal(err)
	}
	d, err := OpenDir(parent)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		if err := os.Remove(parent); err != nil {
			t.Errorf("something is left: %v", err)
		}
	})
	return d
}

func openDock(t *testing.T) *Dock {
	t.Helper()
	d, err := NewDock(openDir(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// newSocket is what a program would get.
func newSocket(t *testing.T, nonblock bool) int {
	t.Helper()
	fd, _, err := New(nonblock)
	if err != nil {
		t.Fatal(err)
	}
	closeAfter(t, &fd)
	return fd
}

// closeAfter closes *fd at the test's end, unless it is negative by then.
func closeAfter(t *testing.T, fd *int) {
	t.Cleanup(func() {
		if *fd >= 0 {
			unix.Close(*fd)
		}
	})
}

// attached is a program's socket and the broker's end of it.
func attached(t *testing.T, d *Dock) (program, end int) {
	t.Helper()
	program = newSocket(t, true)
	end, err := d.Attach(program)
	if err != nil {
		t.Fatal(err)
	}
	return program, end
}

func countFds(t *testing.T) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(fds)
}

// recvAll reads what is there: bytes of ours as dots in brackets.
func recvAll(t *testing.T, end int) string {
	t.Helper()
	var all bytes.Buffer
	for {
		b := make([]byte, 64)
		n, ours, err := Recv(end, b)
		if err == unix.EAGAIN {
			return all.String()
		}
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			return all.String() + "EOF"
		}
		if ours {
			fmt.Fprintf(&all, "[%s]", b[:n])
		} else {
			all.Write(b[:n])
		}
	}
}
