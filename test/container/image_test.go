package container

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/poemq/poemq/test/rig"
)

// port is where servers in containers listen.
const port = 8080

// fileSize is the size of what they serve.
const fileSize = 3 << 20

// bench is one test's engine room.
type bench struct {
	*rig.Rig
	file, sum string // what servers serve, and its SHA-256
	serial    int
}

// newBench skips the test where the engines are missing or cannot run.
func newBench(t *testing.T, programs ...string) *bench {
	t.Helper()
	if rig.Native() {
		t.Skip("POEMQ_TEST_NATIVE=1: these tests are about poemq in containers")
	}
	if os.Geteuid() != 0 {
		t.Skip("container engines of one's own need root; run the tests as root to include this one")
	}
	b := &bench{Rig: rig.New(t, append(programs, "busybox", "ip", "nsenter", "tcpdump")...)}
	b.file, b.sum = b.Random("file", fileSize)
	return b
}

// bin is a program of poemq's.
func bin(name string) string {
	d := os.Getenv("POEMQ_BIN")
	if d == "" {
		d = filepath.Join(rig.Root(), "bin")
	}
	return filepath.Join(d, name)
}

// tool runs a program that has nothing to do with poemq and returns its output.
func (b *bench) tool(args ...any) string {
	b.Helper()
	return b.outside(args...).Output()
}

func (b *bench) outside(args ...any) *rig.Cmd {
	b.Helper()
	c := b.Command(args...)
	c.Outside = true
	return c
}

// rootfs makes a file system with busybox, its commands and the file in /www.
// Nothing of poemq's is in it.
func (b *bench) rootfs() string {
	b.Helper()
	b.serial++
	root := b.Mkdir(fmt.Sprintf("rootfs-%d", b.serial), "")
	for _, d := range []string{"bin", "www", "tmp", "run/poemq", "etc", "proc", "sys", "dev", "profiles", "var/lib/poemq"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			b.Fatal(err)
		}
	}
	b.copy(rig.Find("busybox"), filepath.Join(root, "bin/busybox"))
	b.copy(b.file, filepath.Join(root, "www/file"))
	applets, err := exec.Command(filepath.Join(root, "bin/busybox"), "--list").Output()
	if err != nil {
		b.Fatalf("busybox: %v", err)
	}
	for _, name := range strings.Fields(string(applets)) {
		if name != "busybox" {
			if err := os.Symlink("busybox", filepath.Join(root, "bin", name)); err != nil {
				b.Fatal(err)
			}
		}
	}
	return root
}

func (b *bench) copy(from, to string) {
	b.Helper()
	data, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, data, 0o755)
	}
	if err != nil {
		b.Fatal(err)
	}
}

// server and client are what the containers run.
func server() []string { return []string{"httpd", "-f", "-p", fmt.Sprint(port), "-h", "/www"} }

func client(addr string) []string {
	return []string{"sh", "-c", fmt.Sprintf("wget -q -O - http://%s:%d/file | sha256sum", addr, port)}
}

// fetched fails the test unless the client's output tells the right sum.
func (b *bench) fetched(output string) {
	b.Helper()
	if got, _, _ := strings.Cut(output, " "); got != b.sum {
		b.Fatalf("the client has %q, want the file's sum %s", output, b.sum)
	}
}
