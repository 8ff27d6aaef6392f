package quic

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"testing"
	"time"
)

// Tests that need another process start this binary again with the role in
// poemqChild. A child talks by lines on stdout and lives until it is killed.
const poemqChild = "POEMQ_TEST_CHILD"

func runChild() bool {
	role := os.Getenv(poemqChild)
	switch role {
	case "":
		return false
	case "server":
		childServer(os.Args[len(os.Args)-2], os.Args[len(os.Args)-1])
	case "client":
		childClient(os.Args[len(os.Args)-1])
	case "limited":
		childLimited(os.Args[len(os.Args)-1])
	case "roamer":
		childRoamer(os.Args[len(os.Args)-1])
	case "identity":
		id, err := LoadIdentity(os.Args[len(os.Args)-1])
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println(id.Fingerprint())
	}
	return true
}

func childHost(dir string) *Host {
	id, err := LoadIdentity(dir)
	if err != nil {
		panic(err)
	}
	h, err := NewHost(Config{Identity: id, Log: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		panic(err)
	}
	return h
}

func childServer(addr, dir string) {
	e, err := childHost(dir).Listen(nil, addrPort(addr), ListenOptions{}, func(in *Incoming) {
		if _, err := in.Accept(); err == nil {
			fmt.Println("accepted", in.RemoteAddr())
		}
	})
	if err != nil {
		panic(err)
	}
	fmt.Println(e.Addr())
	select {}
}

func childClient(addr string) {
	st, err := childHost("").Dial(context.Background(), Peer{Remote: addrPort(addr)}, 7, nil)
	if err != nil {
		panic(err)
	}
	fmt.Println("open")
	io.Copy(io.Discard, st)
	select {}
}

// childRoamer is a client whose connection moves to another port.
func childRoamer(addr string) {
	h := childHost("")
	st, err := h.Dial(context.Background(), Peer{Remote: addrPort(addr)}, 7, nil)
	if err != nil {
		panic(err)
	}
	h.mu.Lock()
	for l := range h.links {
		go func() {
			was := l.sock.LocalAddr().String()
			for l.side.Load() == nil {
				time.Sleep(10 * time.Millisecond)
			}
			l.fellSilent()
			for l.sock.LocalAddr().String() == was {
				time.Sleep(10 * time.Millisecond)
			}
			fmt.Println("moved")
		}()
	}
	h.mu.Unlock()
	io.Copy(io.Discard, st)
	select {}
}

type child struct {
	cmd *exec.Cmd
	in  io.Writer
	out *bufio.Scanner
}

func startChild(t *testing.T, role string, args ...string) *child {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), poemqChild+"="+role)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := &child{cmd, in, bufio.NewScanner(out)}
	t.Cleanup(c.kill)
	return c
}

func (c *child) line(t *testing.T) string {
	t.Helper()
	if !c.out.Scan() {
		t.Fatal("child ended")
	}
	return c.out.Text()
}

// kill is SIGKILL; the child cannot say good-bye.
func (c *child) kill() {
	c.cmd.Process.Kill()
	c.cmd.Wait()
}
