package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A fakeBroker receives handovers and lets every trapped call go on.
type fakeBroker struct {
	path   string
	answer string // instead of serving, if not empty; "none" closes without one

	mu    sync.Mutex
	state map[string]any // of the last handover
	calls []notification
	wg    sync.WaitGroup
}

// notification is struct seccomp_notif (include/uapi/linux/seccomp.h).
type notification struct {
	id         uint64
	pid, flags uint32
	nr         int32
	arch       uint32
	ip         uint64
	args       [6]uint64
}

type response struct {
	id    uint64
	val   int64
	error int32
	flags uint32
}

// newBroker serves at a socket that everyone may use, until the test's end.
func newBroker(t *testing.T, answer string) *fakeBroker {
	t.Helper()
	b := &fakeBroker{path: filepath.Join(dir, fmt.Sprintf("b%d.sock", sockets.next())), answer: answer}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: b.path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(b.path, 0o777); err != nil {
		t.Fatal(err)
	}
	b.wg.Add(1)
	go func() {
		defer b.wg.Done()
		for {
			conn, err := l.AcceptUnix()
			if err != nil {
				return
			}
			b.wg.Add(1)
			go func() { defer b.wg.Done(); b.session(conn) }()
		}
	}()
	t.Cleanup(func() { l.Close(); b.wg.Wait() })
	return b
}

type counter struct {
	mu sync.Mutex
	n  int
}

func (c *counter) next() int { c.mu.Lock(); defer c.mu.Unlock(); c.n++; return c.n }

var sockets counter

func (b *fakeBroker) session(conn *net.UnixConn) {
	defer conn.Close()
	listener, state, err := receive(conn)
	if err != nil {
		return
	}
	defer unix.Close(listener)
	b.mu.Lock()
	b.state = state
	b.mu.Unlock()
	switch b.answer {
	case "none":
		return
	case "":
		fmt.Fprintln(conn, `{"poemq":1,"ok":true}`)
		conn.Close()
	default:
		fmt.Fprintln(conn, b.answer)
		return
	}
	b.serve(listener)
}

// receive reads one JSON text and the descriptor that came with its first part.
func receive(conn *net.UnixConn) (int, map[string]any, error) {
	buf, oob := make([]byte, 64<<10), make([]byte, 64)
	n, oobn, _, _, err := conn.ReadMsgUnix(buf, oob)
	if err != nil {
		return -1, nil, err
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(msgs) != 1 {
		return -1, nil, errors.New("no descriptor")
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) != 1 {
		return -1, nil, errors.New("no descriptor")
	}
	var state map[string]any
	if err := json.NewDecoder(bytes.NewReader(buf[:n])).Decode(&state); err != nil {
		return -1, nil, err
	}
	return fds[0], state, nil
}

// serve answers every notification with CONTINUE until the tree has ended.
func (b *fakeBroker) serve(listener int) {
	runtime.LockOSThread() // and is ended with the goroutine: its signals are blocked
	var all unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^uint64(0)
	}
	_ = unix.PthreadSigmask(unix.SIG_SETMASK, &all, nil)
	for {
		fds := []unix.PollFd{{Fd: int32(listener), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, -1); err != nil {
			continue
		}
		if fds[0].Revents&unix.POLLIN == 0 {
			return // POLLHUP
		}
		var n notification
		if ioctl(listener, unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(&n)) != 0 {
			continue
		}
		b.mu.Lock()
		b.calls = append(b.calls, n)
		b.mu.Unlock()
		r := response{id: n.id, flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE}
		ioctl(listener, unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&r))
	}
}

func ioctl(fd int, request uintptr, arg unsafe.Pointer) syscall.Errno {
	_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg))
	return e
}

// fakePoemqd is what the embedded broker's binary does in these tests.
func fakePoemqd(args []string) int {
	if len(args) == 3 && args[0] == "private" && args[1] == "--session-fd" {
		fd, _ := strconv.Atoi(args[2])
		new(fakeBroker).session(unixConn(fd))
		return 0
	}
	if len(args) > 5 && args[1] == "--chain" && args[2] == "--status-fd" && args[4] == "--" {
		fd, _ := strconv.Atoi(args[3])
		return fakeChain(fd, args[5:])
	}
	fmt.Fprintln(os.Stderr, "poemqd: unknown arguments", args)
	return 2
}

func unixConn(fd int) *net.UnixConn {
	f := os.NewFile(uintptr(fd), "session")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		panic(err)
	}
	return c.(*net.UnixConn)
}

func fakeChain(statusFD int, inner []string) int {
	unix.CloseOnExec(statusFD)
	status := os.NewFile(uintptr(statusFD), "status")
	if os.Getenv("FAKE_ERROR") != "" {
		fmt.Fprintln(status, `{"error":"no room for it"}`)
		return 1
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 2
	}
	// By hand, not by ExtraFiles: inherited descriptors other than 3 are kept.
	cmd := exec.Command(inner[0], inner[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{os.NewFile(uintptr(pair[1]), "pair")}
	if err := cmd.Start(); err != nil {
		return 3
	}
	unix.Close(pair[1])
	_, _ = unix.Setsid()
	fmt.Fprintf(status, "{\"pid\":%d}\n", cmd.Process.Pid)
	go new(fakeBroker).session(unixConn(pair[0]))
	go func() { // the outer launcher is gone when the pipe has no reader
		fds := []unix.PollFd{{Fd: int32(statusFD)}}
		for fds[0].Revents&unix.POLLERR == 0 {
			_, _ = unix.Poll(fds, -1)
		}
		_ = cmd.Process.Kill()
	}()
	if os.Getenv("FAKE_DIE") != "" {
		_ = unix.Kill(os.Getpid(), unix.SIGKILL)
	}
	_ = cmd.Wait()
	ws := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if ws.Signaled() {
		fmt.Fprintf(status, "{\"signal\":%d,\"core\":%t}\n", ws.Signal(), ws.CoreDump())
	} else {
		fmt.Fprintf(status, "{\"exit\":%d}\n", ws.ExitStatus())
	}
	return 0
}
