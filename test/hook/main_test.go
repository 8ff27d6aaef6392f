package hook

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// limit is far more than anything here takes on a machine that is busy.
const limit = 90 * time.Second

var (
	bin     string // poemq's own programs
	program string // c/program.c, compiled
	library string // c/library.c
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if runtime.GOARCH != "amd64" {
		fmt.Println("skipped: the hook library is for x86-64 only")
		return 0
	}
	bin = os.Getenv("POEMQ_BIN")
	if _, err := os.Stat(filepath.Join(bin, "libpoemq-hook.so")); bin == "" || err != nil {
		fmt.Println("skipped: POEMQ_BIN does not name a directory with libpoemq-hook.so; see make test-hook")
		return 0
	}
	// Not below a directory that is closed to other users.
	dir, err := os.MkdirTemp("", "poemq-hook-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	program, library = filepath.Join(dir, "program"), filepath.Join(dir, "library.so")
	for _, args := range [][]string{{"-pthread", "-o", program, "c/program.c", "-ldl"}, {"-shared", "-fPIC", "-o", library, "c/library.c"}} {
		cc := exec.Command("gcc", append([]string{"-O1", "-Wall", "-Wextra", "-Werror"}, args...)...)
		if out, err := cc.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "%v\n%s", err, out)
			return 1
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// output is what a command printed; both grow while it runs.
type output struct {
	*exec.Cmd
	t        *testing.T
	in       io.WriteCloser
	out, err string // files
	ended    chan struct{}
}

// start runs a command with env added, and ends it with the test.
func start(t *testing.T, env []string, argv ...string) *output {
	t.Helper()
	dir := t.TempDir()
	o := &output{Cmd: exec.Command(argv[0], argv[1:]...), t: t, out: filepath.Join(dir, "out"), err: filepath.Join(dir, "err"), ended: make(chan struct{})}
	o.Env = append(os.Environ(), append([]string{"POEMQ_STATE_DIR=" + dir}, env...)...)
	for name, to := range map[string]*io.Writer{o.out: &o.Stdout, o.err: &o.Stderr} {
		f, err := os.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		*to = f
	}
	var err error
	if o.in, err = o.StdinPipe(); err == nil {
		err = o.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = o.Cmd.Wait()
		close(o.ended)
	}()
	t.Cleanup(func() {
		_ = o.Process.Kill()
		<-o.ended
		if t.Failed() {
			t.Logf("%v\n%s%s", o.Args, o.stdout(), o.stderr())
		}
	})
	return o
}

func (o *output) stdout() string { return read(o.out) }
func (o *output) stderr() string { return read(o.err) }

func read(name string) string {
	b, _ := os.ReadFile(name)
	return string(b)
}

// wait is the exit status.
func (o *output) wait() int {
	o.t.Helper()
	select {
	case <-o.ended:
	case <-time.After(limit):
		o.t.Fatalf("%v does not end", o.Args)
	}
	return o.ProcessState.ExitCode()
}

// await wants cond to come true while the command runs.
func await(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !cond(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

// next has the program go on, and returns the lines up to n.
func (o *output) next(n int) []string {
	o.t.Helper()
	fmt.Fprintln(o.in)
	return o.lines(n)
}

func (o *output) lines(n int) []string {
	o.t.Helper()
	var lines []string
	await(o.t, fmt.Sprintf("%d lines", n), func() bool {
		lines = nil
		said := o.stdout()
		if end := strings.LastIndex(said, "\n"); end >= 0 { // what follows is not whole yet
			lines = strings.Split(said[:end], "\n")
		}
		return len(lines) >= n
	})
	return lines
}

func wantLines(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("got\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

// broker starts a poemqd at socket and waits until it serves.
func broker(t *testing.T, socket string) *output {
	t.Helper()
	b := start(t, nil, filepath.Join(bin, "poemqd"), "serve", "--socket", socket, "--control", "", "--state-dir", t.TempDir())
	await(t, "the broker serves", func() bool { return strings.Contains(b.stderr(), "poemqd serves") })
	return b
}

// byHand is the environment that poemq-launch would make.
func byHand(socket string, more ...string) []string {
	return append([]string{
		"LD_PRELOAD=" + filepath.Join(bin, "libpoemq-zpoline.so"), "LIBZPHOOK=" + filepath.Join(bin, "libpoemq-hook.so"),
		"POEMQ_BROKER=" + socket,
	}, more...)
}

func launch(flags ...string) []string {
	return append([]string{filepath.Join(bin, "poemq-launch"), "--via", "zpoline"}, flags...)
}

func kill(o *output) {
	_ = o.Process.Signal(syscall.SIGKILL)
	<-o.ended
}

func count(text, word string) int { return bytes.Count([]byte(text), []byte(word)) }
