package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/poemq/poemq/broker/config"
)

// asPoemqd has the test binary be poemqd.
const asPoemqd = "TEST_AS_POEMQD"

func TestMain(m *testing.M) {
	if os.Getenv(asPoemqd) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// poemqd is a command that runs this program with a plain environment.
func poemqd(t *testing.T, env []string, args ...string) *exec.Cmd {
	t.Helper()
	c := exec.CommandContext(t.Context(), os.Args[0], args...)
	// An empty home: the user's own configuration is not looked at.
	c.Env = append([]string{asPoemqd + "=1", "PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}, env...)
	return c
}

// run runs it to its end.
func run(t *testing.T, env []string, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	c := poemqd(t, env, args...)
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	if err := c.Run(); err != nil && !errors.As(err, new(*exec.ExitError)) {
		t.Fatal(err)
	}
	return c.ProcessState.ExitCode(), out.String(), errs.String()
}

func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestCheckConfig(t *testing.T) {
	dir := t.TempDir()
	good := write(t, filepath.Join(dir, "good.toml"), "[qlog]\nmax_files = 5\n")
	bad := write(t, filepath.Join(dir, "bad.toml"), "[pool]\nidel = \"5s\"\n[wire]\nmax_idle = \"x\"\n")
	unsafe := write(t, filepath.Join(dir, "unsafe.toml"), "[[allow]]\npeer = \"a.example\"\nport = 80\n")
	nameless := write(t, filepath.Join(dir, "nameless.toml"), "[[expose]]\nlisten = \"udp/0.0.0.0:5432\"\nto = \"127.0.0.1:5432\"\nidentity = \"*.web.example\"\n")
	twice := write(t, filepath.Join(dir, "twice.toml"), strings.Repeat("[[forward]]\nlisten = \"tcp/127.0.0.1:5433\"\nto = \"db.example.com:5432\"\n", 2))
	write(t, filepath.Join(dir, "good.d", "20.toml"), "[pool]\nidle = 5\n")
	for _, tc := range []struct {
		name           string
		env, args      []string
		status         int
		stdout, stderr string
	}{
		{"a good file", nil, []string{"check-config", good}, 0, "ok: " + good, ""},
		{"a bad one", nil, []string{"check-config", bad}, 1, "", "poemqd: " + bad + ":2: pool.idel: unknown key; did you mean pool.idle?\n" + bad + ":4: wire.max_idle: "},
		{"both", nil, []string{"check-config", good, bad}, 1, "", bad + ":2: "},
		{"one that cannot be held to", nil, []string{"check-config", unsafe}, 1, "", unsafe + ":1: [[allow]] needs [tls]"},
		{"a name that no peer can have", nil, []string{"check-config", nameless}, 1, "", nameless + ":1: identity in [[expose]] needs [tls]"},
		{"two fronts at one port", nil, []string{"check-config", twice}, 1, "", twice + ":4: [[forward]] listens on 127.0.0.1:5433, as the one at " + twice + ":1 does"},
		{"one that is not there", nil, []string{"check-config", filepath.Join(dir, "none")}, 1, "", "none: no such file"},
		{"what would be read, with drop-ins", nil, []string{"check-config", "--config", good}, 1, "", filepath.Join(dir, "good.d", "20.toml") + ":2: pool.idle: is a number"},
		{"by the environment", []string{"POEMQ_CONFIG=" + bad}, []string{"check-config"}, 1, "", bad + ":2: "},
		{"a flag stands above it", []string{"POEMQ_CONFIG=" + bad}, []string{"check-config", "--config", unsafe}, 1, "", unsafe + ":1: "},
		{"a variable", []string{"POEMQ_POOL_IDEL=1s"}, []string{"check-config", "--config", unsafe}, 1, "", "POEMQ_POOL_IDEL: unknown key"},
		{"serve", nil, []string{"serve", "--config", bad}, 1, "", bad + ":2: pool.idel"},
		{"a private broker", nil, []string{"private", "--config", bad, "--session-fd", "0"}, 1, "", bad + ":2: pool.idel"},
		{"an unknown command", nil, []string{"chek-config"}, 1, "", "unknown command"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			status, stdout, stderr := run(t, tc.env, tc.args...)
			if status != tc.status || !strings.Contains(stdout, tc.stdout) || !strings.Contains(stderr, tc.stderr) {
				t.Errorf("status %d\nstdout: %s\nstderr: %s", status, stdout, stderr)
			}
		})
	}
}

func TestPrintConfig(t *testing.T) {
	file := write(t, filepath.Join(t.TempDir(), "c.toml"), "[pool]\nidle = \"5s\"\n[[rule]]\nport = 80\nmode = \"off\"\n")
	status, first, stderr := run(t, []string{"POEMQ_FALLBACK_ENTRIES=9", "POEMQ_LOG=debug"}, "--print-config", "--config", file, "--state-dir", "/s")
	if status != 0 {
		t.Fatalf("%d: %s", status, stderr)
	}
	words := strings.Join(strings.Fields(first), " ")
	for _, want := range []string{
		`idle = "5s" # ` + file + ":2", "entries = 9 # POEMQ_FALLBACK_ENTRIES", `dir = "/s" # --state-dir`,
		`level = "debug" # POEMQ_LOG`, "fast_open = true # default", "[[rule]] # " + file + ":3",
	} {
		if !strings.Contains(words, want) {
			t.Errorf("no %s in\n%s", want, first)
		}
	}
	again := write(t, filepath.Join(t.TempDir(), "c.toml"), first)
	if status, second, stderr := run(t, nil, "--print-config", "--config", again); status != 0 || noComments(second) != noComments(first) {
		t.Errorf("what is printed is not what it is read as: %s\n%s", stderr, second)
	}
}

func noComments(s string) string {
	var b strings.Builder
	for line := range strings.Lines(s) {
		line, _, _ = strings.Cut(line, "#")
		b.WriteString(strings.TrimSpace(line) + "\n")
	}
	return b.String()
}

// TestUserFile: an ordinary user's own file stands in place of the system's.
func TestUserFile(t *testing.T) {
	home := t.TempDir()
	file := write(t, filepath.Join(home, ".config", "poemq", "poemq.toml"), "[pool]\nidle = \"7s\"\n")
	write(t, filepath.Join(home, ".config", "poemq", "poemq.d", "a.toml"), "[pool]\nmax_connections = 7\n")
	o := options{}
	t.Setenv("HOME", home)
	t.Setenv("XDG_CONFIG_HOME", "")
	if s := o.sources(true); s.File != file || s.Required || !s.Lenient {
		t.Errorf("%+v", s)
	}
	if c, err := config.Load(o.sources(true)); err != nil || c.Pool.MaxConnections != 7 || len(c.Files()) != 2 {
		t.Errorf("%+v, %v", c, err)
	}
	if s := o.sources(false); s.File != "/etc/poemq/poemq.toml" || s.Lenient {
		t.Errorf("%+v", s)
	}
}

// lines is a log that is written while it is read.
type lines struct {
	mu   sync.Mutex // guards b
	b    bytes.Buffer
	more chan struct{} // has an element when there is more
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case l.more <- struct{}{}:
	default:
	}
	return l.b.Write(p)
}

// await waits for words, and gives the line that has them; what it has passed
// is not found again.
func (l *lines) await(t *testing.T, words string) string {
	t.Helper()
	late := time.After(20 * time.Second)
	var passed strings.Builder
	for {
		l.mu.Lock()
		for {
			line, err := l.b.ReadString('\n')
			if err != nil {
				rest := l.b.String()
				l.b.Reset()
				l.b.WriteString(line + rest)
				break
			}
			passed.WriteString(line)
			if strings.Contains(line, words) {
				l.mu.Unlock()
				return line
			}
		}
		l.mu.Unlock()
		select {
		case <-l.more:
		case <-late:
			t.Fatalf("no %q in the log:\n%s", words, passed.String())
		}
	}
}

// TestReload sends SIGHUP after changes, good and bad ones.
func TestReload(t *testing.T) {
	dir, err := os.MkdirTemp("", "pq") // short, as sockets' names must be
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	file := write(t, filepath.Join(dir, "c.toml"), "[log]\nlevel = \"info\"\n")
	log := &lines{more: make(chan struct{}, 1)}
	c := poemqd(t, nil, "serve", "--config", file, "--socket", dir+"/s", "--control", dir+"/c", "--state-dir", dir+"/state", "--runtime-dir", dir)
	c.Stderr = log
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	reload := func(text string) {
		write(t, file, text)
		if err := c.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	log.await(t, "poemqd serves")
	reload("[pool]\nidle = \"5s\"\n[[rule]]\nport = 1\nmode = \"off\"\n")
	if line := log.await(t, "settings wait for a restart"); !strings.Contains(line, "[pool.idle]") {
		t.Error(line)
	}
	if line := log.await(t, "configuration read again"); !strings.Contains(line, "rules=1") {
		t.Error(line)
	}
	reload("[pool]\nidle = 5\n[x]\n")
	if line := log.await(t, "the one in force stays"); !strings.Contains(line, file+":2: pool.idle") || !strings.Contains(line, file+":3: x: unknown") {
		t.Error(line)
	}
	reload("[log]\nlevel = \"error\"\n")
	// At this level nothing tells of success: the next fault does.
	reload("[log]\nlevel = \"error\"\n[x]\n")
	log.await(t, "the one in force stays")
	if err := c.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err != nil {
		t.Errorf("SIGTERM: %v", err)
	}
}
