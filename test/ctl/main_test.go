package ctl

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/poemq/poemq/test/rig"
)

// gopeer is the program that speaks TCP, built once.
var gopeer string

func TestMain(m *testing.M) { os.Exit(runAll(m)) }

func runAll(m *testing.M) int {
	dir, err := os.MkdirTemp("", "pq-ctl-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	gopeer = filepath.Join(dir, "gopeer")
	build := exec.Command("go", "build", "-buildvcs=false", "-o", gopeer, "../programs/gopeer")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "ctl: build gopeer: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// bench is a broker with poemqctl.
type bench struct {
	*rig.Rig
	broker *rig.Broker
	config string
}

func newBench(t *testing.T, config string, flags ...string) *bench {
	t.Helper()
	if rig.Native() {
		t.Skip("looks at poemq itself: not with POEMQ_TEST_NATIVE=1")
	}
	b := &bench{Rig: rig.New(t)}
	b.config = filepath.Join(b.Mkdir("config", ""), "poemq.toml")
	b.configure(config)
	b.broker = b.StartBrokerOn(nil, "ctl", append([]string{"--config", b.config}, flags...)...)
	return b
}

func (b *bench) configure(text string) {
	b.Helper()
	if err := os.WriteFile(b.config, []byte(text), 0o644); err != nil {
		b.Fatal(err)
	}
}

// program prepares gopeer under poemq, served by the broker.
func (b *bench) program(args ...any) *rig.Cmd {
	c := b.Command(append([]any{gopeer}, args...)...)
	c.Broker = b.broker
	return c
}

// serve starts gopeer as a server that goes on, and gives its address.
func (b *bench) serve() string {
	b.Helper()
	addr := fmt.Sprint("127.0.0.1:", freePort(b))
	b.program("listen", addr, "banner").Start()
	b.await("the port is served by QUIC", func() bool {
		return strings.Contains(b.broker.Stderr(), "port="+addr+" ") && strings.Contains(b.broker.Stderr(), "quic=true")
	})
	return addr
}

// freePort is a port that nobody had a moment ago, neither of TCP nor of UDP. It
// is not watched as those of the rig are: some of what is asked goes by TCP.
func freePort(t testing.TB) int {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port := l.Addr().(*net.TCPAddr).Port
		u, err := net.ListenPacket("udp4", l.Addr().String())
		l.Close()
		if err == nil {
			u.Close()
			return port
		}
	}
	t.Fatal("no port is free in both TCP and UDP")
	return 0
}

// hold starts a client that keeps n connections.
func (b *bench) hold(addr string, n int, limit time.Duration) *rig.Proc {
	b.Helper()
	c := b.program("connect", addr, "hold", n)
	c.Told = true
	p := c.Start()
	p.SaysWithin(limit, fmt.Sprint("held ", n))
	return p
}

func (b *bench) await(what string, cond func() bool) {
	b.Helper()
	for deadline := time.Now().Add(30 * time.Second); !cond(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			b.Fatalf("not within 30 s: %s\n%s", what, b.broker.Stderr())
		}
	}
}

func ctlBinary() string {
	dir := os.Getenv("POEMQ_BIN")
	if dir == "" {
		dir = "../../bin"
	}
	path, err := filepath.Abs(filepath.Join(dir, "poemqctl"))
	if err != nil {
		panic(err)
	}
	return path
}

// ctl runs poemqctl, and gives what it prints and its exit status.
func (b *bench) ctl(args ...string) (stdout, stderr string, status int) {
	b.Helper()
	return poemqctl(b, append([]string{"--control", b.broker.Control()}, args...)...)
}

func poemqctl(t testing.TB, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, ctlBinary(), args...)
	c.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	if err := c.Run(); c.ProcessState == nil {
		t.Fatal(err)
	}
	return out.String(), errs.String(), c.ProcessState.ExitCode()
}

// must is ctl that has to work.
func (b *bench) must(args ...string) string {
	b.Helper()
	out, errs, status := b.ctl(args...)
	if status != 0 || errs != "" {
		b.Fatalf("poemqctl %s: status %d: %s%s", strings.Join(args, " "), status, out, errs)
	}
	return out
}

// read decodes what poemqctl prints with --json.
func read[T any](b *bench, args ...string) (v T) {
	b.Helper()
	out := b.must(append([]string{"--json"}, args...)...)
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		b.Fatalf("poemqctl %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return v
}
