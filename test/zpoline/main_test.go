package zpoline

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// patience is for a machine that is very busy; nothing here takes long.
const patience = 2 * time.Minute

// loader and hook are the libraries under test, work is where programs are built.
var loader, hook, work string

func TestMain(m *testing.M) {
	os.Exit(setUp(m))
}

func setUp(m *testing.M) int {
	if runtime.GOARCH != "amd64" {
		fmt.Println("skipped: libpoemq-zpoline.so is for x86-64 only")
		return 0
	}
	loader = filepath.Join(os.Getenv("POEMQ_BIN"), "libpoemq-zpoline.so")
	if _, err := os.Stat(loader); os.Getenv("POEMQ_BIN") == "" || err != nil {
		fmt.Println("skipped: POEMQ_BIN does not name a directory with libpoemq-zpoline.so; see make test-zpoline")
		return 0
	}
	dir, err := os.MkdirTemp("", "poemq-zpoline-")
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer os.RemoveAll(dir)
	work = dir
	if err := os.Chmod(dir, 0o755); err != nil { // other users run what is here
		fmt.Println(err)
		return 1
	}
	hook = filepath.Join(dir, "count_hook.so")
	if err := cc(hook, "c/count_hook.c", "-shared", "-fPIC", "-fvisibility=hidden", "-mavx"); err != nil {
		fmt.Println(err)
		return 1
	}
	return m.Run()
}

func cc(out, source string, flags ...string) error {
	args := append([]string{"-std=gnu11", "-O2", "-g", "-Wall", "-Wextra", "-Werror", "-o", out, source}, flags...)
	if said, err := exec.Command("cc", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("cc %s: %w\n%s", strings.Join(args, " "), err, said)
	}
	return nil
}

// build compiles c/NAME.c, and returns the program's path.
func build(t *testing.T, name string, flags ...string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), name)
	if err := cc(out, "c/"+name+".c", append(flags, "-pthread")...); err != nil {
		t.Fatal(err)
	}
	return out
}

// mode is what POEMQ_ZPOLINE says.
type mode string

const (
	byDefault mode = ""
	rewrite   mode = "rewrite"
	dispatch  mode = "dispatch"
)

// eachMode runs the test in all of them.
func eachMode(t *testing.T, test func(t *testing.T, m mode)) {
	for _, m := range []mode{byDefault, rewrite, dispatch} {
		name := string(m)
		if m == byDefault {
			name = "default"
		}
		t.Run(name, func(t *testing.T) { test(t, m) })
	}
}

// command is a program under the loader.
func command(t *testing.T, m mode, argv ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	c := exec.CommandContext(ctx, argv[0], argv[1:]...)
	c.Env = append(os.Environ(), "LD_PRELOAD="+loader, "LIBZPHOOK="+hook, "POEMQ_TEST_SESSION=1")
	if !mapsZero() {
		c.Env = append(c.Env, "POEMQ_ZPOLINE_TOLD=1") // TestNoPage looks at what is said
	}
	if m != byDefault {
		c.Env = append(c.Env, "POEMQ_ZPOLINE="+string(m))
	}
	c.WaitDelay = 5 * time.Second
	return c
}

// run starts a program under the loader, wants it to end with 0 and to say nothing
// on stderr, and returns what it printed.
func run(t *testing.T, m mode, argv ...string) string {
	t.Helper()
	return wantGood(t, command(t, m, argv...))
}

func wantGood(t *testing.T, c *exec.Cmd) string {
	t.Helper()
	var out, said bytes.Buffer
	c.Stdout, c.Stderr = &out, &said
	if err := c.Run(); err != nil || said.Len() > 0 {
		t.Fatalf("%s: %v\n%s%s", strings.Join(c.Args, " "), err, out.String(), said.String())
	}
	return out.String()
}

// unreadable tells whether page 0 can be executed and not read here.
func unreadable(t *testing.T) bool {
	t.Helper()
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Contains(info, []byte(" ospke"))
}

// mapsZero tells whether page 0 can be mapped; without it nothing is rewritten.
func mapsZero() bool {
	least, err := os.ReadFile("/proc/sys/vm/mmap_min_addr")
	return os.Getuid() == 0 || err == nil && strings.TrimSpace(string(least)) == "0"
}
