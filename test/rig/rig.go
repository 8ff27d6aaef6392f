package rig

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Rig is one test's bench: directory, ports and processes.
type Rig struct {
	testing.TB

	// Dir is the test's own directory, open to every user on the machine so
	// that programs which drop privileges can reach it.
	Dir string

	mu     sync.Mutex // guards what follows
	procs  []*Proc    // every process started, for logs when the test fails
	serial int
	shared *Broker // POEMQ_TEST_SHARED
}

// Native reports whether programs run on kernel TCP, without poemq.
func Native() bool { return os.Getenv("POEMQ_TEST_NATIVE") == "1" }

// ViaZpoline reports whether poemq-launch has the hook library catch the programs'
// calls (POEMQ_VIA).
func ViaZpoline() bool { return os.Getenv("POEMQ_VIA") == "zpoline" }

// Long reports whether tests that wait take their long form.
func Long() bool { return os.Getenv("POEMQ_LONG") == "1" }

// New makes a Rig and skips the test when one of the programs it needs is not
// installed.
func New(t testing.TB, programs ...string) *Rig {
	t.Helper()
	if testing.Short() {
		t.Skip("runs real programs: not with -short")
	}
	r := &Rig{TB: t}
	for _, p := range programs {
		if Find(p) == "" {
			r.missing("%s is not installed (scripts/deps-apps.sh installs it)", p)
		}
	}
	if !Native() {
		for _, p := range []string{"poemq-launch", "poemqd"} {
			if _, err := os.Stat(filepath.Join(BinDir(), p)); err != nil {
				r.missing("no %s (make build; or POEMQ_TEST_NATIVE=1): %v", p, err)
			}
		}
	}
	// Not t.TempDir: its parent is closed to other users.
	dir, err := os.MkdirTemp("", "poemq-")
	if err != nil {
		t.Fatal(err)
	}
	r.Dir = dir
	t.Cleanup(func() {
		r.sweep()
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove the test's directory: %v", err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(r.Mkdir("tmp", ""), 0o777|os.ModeSticky); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.showLogs)
	if os.Getenv("POEMQ_TEST_SHARED") == "1" && !Native() {
		r.share()
	}
	return r
}

// missing ends the test for want of something on the machine.
func (r *Rig) missing(format string, args ...any) {
	r.Helper()
	if os.Getenv("POEMQ_TEST_STRICT") == "1" {
		r.Fatalf(format, args...)
	}
	r.Skipf(format, args...)
}

// Root returns the repository's top directory.
func Root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..")
}

// Program returns the path of a source file in test/programs.
func Program(name string) string { return filepath.Join(Root(), "test", "programs", name) }

// BinDir is where poemq's own programs are; a relative POEMQ_BIN counts from
// the repository's top, wherever a test's directory is.
func BinDir() string {
	d := os.Getenv("POEMQ_BIN")
	if filepath.IsAbs(d) {
		return d
	}
	if d == "" {
		d = "bin"
	}
	return filepath.Join(Root(), d)
}

// searchPath is what the programs see as PATH: Debian's own places before any
// version manager's shims, which other users could not run.
var searchPath = sync.OnceValue(func() []string {
	pg, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	return append(pg, "/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
})

// Find returns a program's absolute path, or "".
func Find(program string) string {
	if strings.Contains(program, "/") {
		return program
	}
	for _, d := range searchPath() {
		path := filepath.Join(d, program)
		if st, err := os.Stat(path); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return path
		}
	}
	return ""
}

// Path joins a name to the test's directory.
func (r *Rig) Path(name string) string { return filepath.Join(r.Dir, name) }

// Write makes a file, and the directories to it, in the test's directory.
func (r *Rig) Write(name, content string) string {
	r.Helper()
	path := r.Path(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		r.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		r.Fatal(err)
	}
	return path
}

// Mkdir makes a directory that belongs to the named user ("" for ours).
func (r *Rig) Mkdir(name, owner string) string {
	r.Helper()
	path := r.Path(name)
	if err := os.MkdirAll(path, 0o755); err != nil {
		r.Fatal(err)
	}
	if owner != "" {
		uid, gid := r.ids(owner)
		if err := os.Chown(path, int(uid), int(gid)); err != nil {
			r.Fatal(err)
		}
	}
	return path
}

// Random makes a file of size bytes that do not compress and returns its path
// and SHA-256.
func (r *Rig) Random(name string, size int64) (path, sum string) {
	r.Helper()
	var seed [32]byte
	copy(seed[:], name)
	path = r.Write(name, "")
	f, err := os.Create(path)
	if err != nil {
		r.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.CopyN(io.MultiWriter(f, h), rand.NewChaCha8(seed), size); err != nil {
		r.Fatal(err)
	}
	return path, hex.EncodeToString(h.Sum(nil))
}

// Sum returns a file's SHA-256.
func (r *Rig) Sum(path string) string {
	r.Helper()
	f, err := os.Open(path)
	if err != nil {
		r.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		r.Fatal(err)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Build compiles a Go package of this module (without cgo, so statically) or a
// C file of test/programs, and returns the program's path.
func (r *Rig) Build(source string, flags ...string) string {
	r.Helper()
	out := r.Path("built-" + strings.TrimSuffix(filepath.Base(source), ".c"))
	var cmd *exec.Cmd
	if strings.HasSuffix(source, ".c") {
		args := append([]string{"-O2", "-Wall", "-Werror", "-pthread", "-o", out, Program(source)}, flags...)
		cmd = exec.Command("gcc", args...)
	} else {
		args := append(append([]string{"build", "-o", out}, flags...), source)
		cmd = exec.Command("go", args...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		cmd.Dir = Root()
	}
	if text, err := cmd.CombinedOutput(); err != nil {
		r.Fatalf("%s: %v\n%s", cmd, err, text)
	}
	return out
}

// FreePort returns a port that is free for TCP and UDP and stays this test's
// until it ends. It lies below the ephemeral range, so no connection of any
// other program has it as its own end.
func (r *Rig) FreePort() int {
	r.Helper()
	for range 1000 {
		port := 20000 + rand.IntN(12000)
		// The name says "taken" to the other test processes on this machine.
		claim, err := net.Listen("unix", fmt.Sprintf("@poemq-test-port-%d", port))
		if err != nil {
			continue
		}
		if !portIsFree(port) {
			claim.Close()
			continue
		}
		r.Cleanup(func() { claim.Close() })
		return port
	}
	r.Fatal("no free port found")
	return 0
}

func portIsFree(port int) bool {
	addr := ":" + strconv.Itoa(port)
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return false
	}
	l.Close()
	p, err := net.ListenPacket("udp", addr)
	if err != nil {
		return false
	}
	p.Close()
	return true
}

// Port is [Rig.FreePort], with the loopback wire watched for that port: at the
// end of the test it must have carried UDP and no TCP.
func (r *Rig) Port() int {
	r.Helper()
	port := r.FreePort()
	r.watch(port)
	return port
}

// Eventually polls cond until it is true, and fails the test after the limit.
func (r *Rig) Eventually(limit time.Duration, what string, cond func() bool) {
	r.Helper()
	if !poll(limit, cond) {
		r.Fatalf("not within %v: %s", limit, what)
	}
}

func poll(limit time.Duration, cond func() bool) bool {
	deadline := time.Now().Add(limit)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		if time.Now().After(deadline) {
			return false
		}
		<-tick.C
	}
	return true
}

// Owner returns the named user when the test may become it (we are root and it
// exists), else "" for the test's own.
func Owner(name string) string {
	if os.Geteuid() != 0 {
		return ""
	}
	if _, err := user.Lookup(name); err != nil {
		return ""
	}
	return name
}

// Group is the number of the named user's group, -1 when there is no such user.
func Group(name string) int {
	u, err := user.Lookup(name)
	if err != nil {
		return -1
	}
	gid, err := strconv.Atoi(u.Gid)
	if err != nil {
		return -1
	}
	return gid
}

func (r *Rig) ids(name string) (uid, gid uint32) {
	r.Helper()
	u, err := user.Lookup(name)
	if err != nil {
		r.Fatal(err)
	}
	uid64, _ := strconv.ParseUint(u.Uid, 10, 32)
	gid64, _ := strconv.ParseUint(u.Gid, 10, 32)
	return uint32(uid64), uint32(gid64)
}

// showLogs prints the end of each program's output when the test has failed.
func (r *Rig) showLogs() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.procs {
		for _, line := range p.warnings() {
			r.Logf("%s: %s", p, line)
		}
	}
	if !r.Failed() {
		return
	}
	for _, p := range r.procs {
		text := []byte(p.Stdout() + p.Stderr())
		if len(text) > 3000 {
			text = append([]byte("…"), text[len(text)-3000:]...)
		}
		r.Logf("%s: %s\n%s", p, p.state(), bytes.TrimSpace(text))
	}
}
