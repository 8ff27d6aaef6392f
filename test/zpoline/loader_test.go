package zpoline

import (
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// pagesRewritten says which of c/pages.c's instructions are rewritten; the others
// stay, each for a reason told in zpoline/loader_rewrite.c.
var pagesRewritten = map[string]bool{
	"plain":             true,
	"writable":          true,
	"execute-only":      true,
	"two-lines":         true,
	"two-pages":         true,
	"immediate":         false,
	"red-zone":          false,
	"red-zone-argument": false,
	"shared":            false,
	"file":              true,
	"file-execute-only": true,
	"jit":               true,
	"other-user":        true,
	"other-user-file":   true,
	"threads-anonymous": false,
	"threads-file":      true,
	"threads-two-lines": false,
}

func TestPages(t *testing.T) {
	pages := build(t, "pages")
	for _, m := range []mode{rewrite, dispatch} {
		t.Run(string(m), func(t *testing.T) {
			if m == rewrite && !mapsZero() {
				t.Skip("not root: page 0 cannot be mapped")
			}
			got := map[string]bool{}
			for line := range strings.Lines(run(t, m, pages)) {
				name, what, _ := strings.Cut(strings.TrimSpace(line), " ")
				got[name] = what == "rewritten"
			}
			want := maps.Clone(pagesRewritten)
			if m == dispatch {
				for name := range want {
					want[name] = false
				}
			}
			if os.Getuid() != 0 {
				delete(want, "other-user")
				delete(want, "other-user-file")
			}
			if !maps.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
}

// Programs that check themselves, in each mode.
func TestPrograms(t *testing.T) {
	dir := t.TempDir()
	library := filepath.Join(dir, "own_calls.so")
	early := filepath.Join(dir, "libearly.so")
	for out, source := range map[string]string{library: "c/own_calls.c", early: "c/early.c"} {
		if err := cc(out, source, "-shared", "-fPIC", "-pthread"); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range []struct {
		name  string
		argv  []string
		flags []string
	}{
		{name: "threads"},
		{name: "race"},
		{name: "storm"},
		{name: "forks"},
		{name: "signals"},
		{name: "numbers"},
		{name: "execs"},
		{name: "cancel", flags: []string{"-fexceptions"}},
		{name: "loads", argv: []string{library}},
		{name: "early_main", flags: []string{early, "-Wl,-rpath," + dir}},
	} {
		t.Run(p.name, func(t *testing.T) {
			program := build(t, p.name, p.flags...)
			eachMode(t, func(t *testing.T, m mode) { run(t, m, append([]string{program}, p.argv...)...) })
		})
	}
}

// The same under sanitizers, and with a loader that traps at undefined behaviour.
func TestSanitizers(t *testing.T) {
	trapping := filepath.Join(work, "libpoemq-zpoline-ubsan.so")
	target := exec.Command("make", "-s", "-C", "../..", "zpoline-ubsan", "UBSAN_OUT="+trapping)
	if said, err := target.CombinedOutput(); err != nil {
		t.Fatalf("make zpoline-ubsan: %v\n%s", err, said)
	}
	for _, name := range []string{"threads", "storm", "forks", "signals"} {
		t.Run(name, func(t *testing.T) {
			program := build(t, name, "-fsanitize=address,undefined", "-static-libasan", "-static-libubsan", "-fno-sanitize-recover=all")
			for _, m := range []mode{byDefault, rewrite} {
				c := command(t, m, program)
				c.Env = append(c.Env, "LD_PRELOAD="+trapping)
				wantGood(t, c)
			}
		})
	}
}

// TestNull: what is done to a null pointer is a SIGSEGV as without us. Where the
// processor has no protection keys that holds for reading only in programs that
// handle SIGSEGV (docs/zpoline.md).
func TestNull(t *testing.T) {
	nulls := build(t, "nulls")
	readable := mapsZero() && !unreadable(t)
	for _, what := range []string{"call", "call-rax", "call-rax-124", "read", "write"} {
		t.Run(what, func(t *testing.T) {
			eachMode(t, func(t *testing.T, m mode) {
				if what != "read" || m == dispatch || !readable {
					wantSegv(t, command(t, m, nulls, what))
				}
				if what == "read" && m == rewrite && readable {
					t.Skip("reading page 0 does not fault: no protection keys here, and rewriting is forced")
				}
				if got := run(t, m, nulls, what, "handled"); !strings.HasPrefix(got, "signal 11 at ") {
					t.Errorf("printed %q", got)
				}
			})
		})
	}
}

func wantSegv(t *testing.T, c *exec.Cmd) {
	t.Helper()
	out, err := c.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGSEGV {
		t.Errorf("%s: %v, want SIGSEGV\n%s", strings.Join(c.Args, " "), err, out)
	}
}

// TestNoPage: a process that may not map page 0 says how to change that, once, and
// all works by dispatch.
func TestNoPage(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("not root: capabilities cannot be dropped")
	}
	if least, err := os.ReadFile("/proc/sys/vm/mmap_min_addr"); err != nil || strings.TrimSpace(string(least)) == "0" {
		t.Skipf("vm.mmap_min_addr is %q (%v): everybody may map page 0", least, err)
	}
	pages := build(t, "pages")
	if err := os.Chmod(filepath.Dir(pages), 0o755); err != nil {
		t.Fatal(err)
	}
	lib := t.TempDir() // where another user can read it
	for dir := lib; dir != "/" && dir != os.TempDir(); dir = filepath.Dir(dir) {
		_ = os.Chmod(dir, 0o755)
	}
	mine := filepath.Join(lib, "loader.so")
	content, err := os.ReadFile(loader)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(mine, content, 0o755); err != nil {
		t.Fatal(err)
	}
	// Through a shell: what is said is said once in a tree.
	c := command(t, rewrite, "/bin/sh", "-c", `"$0" && "$0"`, pages)
	c.Env = append(c.Env, "LD_PRELOAD="+mine)
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	text := string(out)
	if n := strings.Count(text, "vm.mmap_min_addr"); n < 1 || strings.Count(text, "poemq-zpoline:") != 1 || !strings.Contains(text, "CAP_SYS_RAWIO") {
		t.Errorf("says:\n%s", text)
	}
	if strings.Contains(text, "rewritten") || !strings.Contains(text, "plain kept") {
		t.Errorf("rewrites without page 0:\n%s", text)
	}
}

// TestNoHook: without a hook library the program runs as it is, or not at all if it
// must be hooked; either is said.
func TestNoHook(t *testing.T) {
	for _, c := range []struct{ hook, want string }{
		{"", "LIBZPHOOK: it does not name a hook library"},
		{"/nowhere/hook.so", "/nowhere/hook.so"},
		{"libm.so.6", "no __hook_init"},
	} {
		plain := command(t, byDefault, "/bin/echo", "there")
		plain.Env = append(plain.Env, "LIBZPHOOK="+c.hook)
		out, err := plain.CombinedOutput()
		if err != nil || !strings.Contains(string(out), c.want) || !strings.Contains(string(out), "there") {
			t.Errorf("hook %q: %v\n%s", c.hook, err, out)
		}
		must := command(t, "must", "/bin/echo", "there")
		must.Env = append(must.Env, "LIBZPHOOK="+c.hook)
		out, err = must.CombinedOutput()
		if err == nil || must.ProcessState.ExitCode() != 127 || !strings.Contains(string(out), c.want) || strings.Contains(string(out), "there") {
			t.Errorf("must, hook %q: %v\n%s", c.hook, err, out)
		}
	}
}

// TestNoDispatch: a kernel without Syscall User Dispatch.
func TestNoDispatch(t *testing.T) {
	denied := build(t, "denied")
	const want = "Syscall User Dispatch: this kernel has none"
	out, err := command(t, byDefault, denied, loader, "/bin/echo", "there").CombinedOutput()
	if err != nil || !strings.Contains(string(out), want) || !strings.Contains(string(out), "there") {
		t.Errorf("%v\n%s", err, out)
	}
	must := command(t, "must", denied, loader, "/bin/echo", "there")
	out, err = must.CombinedOutput()
	if err == nil || must.ProcessState.ExitCode() != 127 || !strings.Contains(string(out), want) || strings.Contains(string(out), "there") {
		t.Errorf("must: %v\n%s", err, out)
	}
}

// TestGo: raw system calls on goroutines' stacks, which are small.
func TestGo(t *testing.T) {
	for name, flags := range map[string][]string{
		"pie": {"CGO_ENABLED=0", "-buildmode=pie"},
		"cgo": {"CGO_ENABLED=1", "-ldflags=-linkmode=external"},
	} {
		t.Run(name, func(t *testing.T) {
			program := filepath.Join(t.TempDir(), "gosys")
			c := exec.Command("go", "build", flags[1], "-o", program, "./gosys")
			c.Env = append(os.Environ(), flags[0])
			if said, err := c.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, said)
			}
			eachMode(t, func(t *testing.T, m mode) {
				argv := []string{program}
				if m == rewrite && !unreadable(t) {
					argv = append(argv, "nofault")
				}
				if got := run(t, m, argv...); got != "ok\n" {
					t.Errorf("printed %q", got)
				}
			})
		})
	}
}

// TestNode: a program with a JIT, threads, children, and its own ideas of memory.
func TestNode(t *testing.T) {
	if _, err := exec.LookPath("node"); err != nil {
		t.Skip("node is not installed")
	}
	eachMode(t, func(t *testing.T, m mode) {
		if got := run(t, m, "node", "testdata/work.js"); got != "ok\n" {
			t.Errorf("printed %q", got)
		}
	})
}

// TestJava: a program that lives by the fault of reading a null pointer.
func TestJava(t *testing.T) {
	if _, err := exec.LookPath("java"); err != nil {
		t.Skip("java is not installed")
	}
	for _, m := range []mode{byDefault, dispatch} {
		if got := run(t, m, "java", "testdata/Nulls.java"); got != "ok\n" {
			t.Errorf("mode %q printed %q", m, got)
		}
	}
}

// TestShell: many small programs, pipes and jobs.
func TestShell(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		got := run(t, m, "/bin/sh", "-c", `for i in 1 2 3 4 5; do echo $i | env -i cat; done | sort -r | head -2; (sleep 0 & wait); env -i sh -c 'echo $LIBZPHOOK'`)
		if want := "5\n4\n" + hook + "\n"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

// TestNames: nothing is exported by chance, and nothing is needed but libc.
func TestNames(t *testing.T) {
	out, err := exec.Command("nm", "-D", "--defined-only", loader).Output()
	if err != nil || len(strings.TrimSpace(string(out))) > 0 {
		t.Errorf("exports (%v):\n%s", err, out)
	}
	out, err = exec.Command("objdump", "-p", loader).Output()
	if err != nil {
		t.Fatal(err)
	}
	var needed []string
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == "NEEDED" {
			needed = append(needed, f[1])
		}
	}
	if !slices.Equal(needed, []string{"libc.so.6"}) {
		t.Errorf("needs %v", needed)
	}
}
