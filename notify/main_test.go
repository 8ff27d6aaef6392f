package notify

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"
	"unsafe"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// targetEnv makes the test binary a task whose socket(2) calls are trapped. It
// passes the listener over its descriptor 3 and then does what it is told on
// standard input.
const targetEnv = "NOTIFY_TEST_TARGET"

const patience = 20 * time.Second // for what is at once on a machine that is not busy

func TestMain(m *testing.M) {
	if os.Getenv(targetEnv) != "" {
		if err := obey(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

func obey() error {
	// Only this thread is under the filter. No signal of the Go runtime may
	// take it out of a call.
	runtime.LockOSThread()
	var all unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^all.Val[i]
	}
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &all, nil); err != nil {
		return err
	}
	if err := passListener(); err != nil {
		return err
	}
	var memory [8]byte
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		var n uintptr
		command, number, _ := strings.Cut(in.Text(), " ")
		if number != "" {
			if _, err := fmt.Sscan(number, &n); err != nil {
				return err
			}
		}
		var r uintptr
		var e unix.Errno
		switch command {
		case "socket":
			r, _, e = unix.RawSyscall(unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_STREAM, n)
		case "memory": // the second argument is an address
			copy(memory[:], "question")
			r, _, e = unix.RawSyscall(unix.SYS_SOCKET, unix.AF_INET, uintptr(unsafe.Pointer(&memory)), 0)
			fmt.Printf("%s ", memory)
		case "lowest":
			if r, _, e = unix.RawSyscall(unix.SYS_DUP, 0, 0, 0); e == 0 {
				unix.Close(int(r))
			}
		case "close":
			_, _, e = unix.RawSyscall(unix.SYS_CLOSE, n, 0, 0)
		case "flags":
			r, _, e = unix.RawSyscall(unix.SYS_FCNTL, n, unix.F_GETFD, 0)
		case "limit":
			err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(n), Max: 4096})
			e, _ = err.(unix.Errno)
		}
		fmt.Printf("%d %d\n", int(r), int(e))
	}
	return nil
}

// passListener puts the thread under a filter that traps socket(2).
func passListener() error {
	const (
		retUserNotif = 0x7fc00000
		retAllow     = 0x7fff0000
	)
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // seccomp_data.nr
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_SOCKET, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: retUserNotif},
		{Code: unix.BPF_RET | unix.BPF_K, K: retAllow},
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	fd, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, uintptr(unsafe.Pointer(&program)))
	if e != 0 {
		return fmt.Errorf("seccomp: %w", e)
	}
	if err := unix.Sendmsg(3, []byte("x"), unix.UnixRights(int(fd)), nil, 0); err != nil {
		return fmt.Errorf("pass the listener: %w", err)
	}
	return unix.Close(int(fd))
}

// target is a task under a filter.
type target struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// startTarget starts one and takes its listener.
func startTarget(t *testing.T) (*target, *Listener) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	theirs := os.NewFile(uintptr(pair[1]), "theirs")
	p := &target{t: t, cmd: exec.Command(os.Args[0])}
	p.cmd.Env = append(os.Environ(), targetEnv+"=1", "GORACE=atexit_sleep_ms=0")
	p.cmd.Stderr = os.Stderr
	p.cmd.ExtraFiles = []*os.File{theirs}
	in, err := p.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.in, p.out = in, bufio.NewReader(out)
	err = p.cmd.Start()
	theirs.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.end)

	oob := make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := unix.Recvmsg(pair[0], make([]byte, 1), oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil || n != 1 {
		t.Skipf("no filter with a listener can be loaded here: %v", err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		t.Fatal(err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		t.Fatal(err)
	}
	l, err := NewListener(fds[0])
	if err != nil {
		t.Fatal(err)
	}
	return p, l
}

// tell gives a command; hear takes its answer.
func (p *target) tell(command string) {
	p.t.Helper()
	if _, err := io.WriteString(p.in, command+"\n"); err != nil {
		p.t.Fatal(err)
	}
}

func (p *target) hear() (result int, errno unix.Errno) {
	p.t.Helper()
	line, err := p.out.ReadString('\n')
	if err != nil {
		p.t.Fatal(err)
	}
	var e int
	if _, err := fmt.Sscan(line, &result, &e); err != nil {
		p.t.Fatalf("%q: %v", line, err)
	}
	return result, unix.Errno(e)
}

func (p *target) do(command string) (int, unix.Errno) {
	p.t.Helper()
	p.tell(command)
	return p.hear()
}

// end has the target end in the ordinary way.
func (p *target) end() {
	p.in.Close()
	_ = p.cmd.Wait()
}

func (p *target) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

// serve runs l.Serve; its result comes by the channel. The test's end waits
// for it.
func serve(t *testing.T, p *target, l *Listener, handle func(*Notification)) <-chan error {
	t.Helper()
	ended := make(chan error, 1)
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		ended <- l.Serve(handle)
	}()
	t.Cleanup(func() {
		p.end()
		wait(t, stopped, "Serve's end")
	})
	return ended
}

func wait[T any](t *testing.T, c <-chan T, what string) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		t.Fatalf("not within %v: %s", patience, what)
	}
	return v
}
