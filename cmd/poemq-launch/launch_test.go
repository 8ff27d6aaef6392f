package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestExitStatus(t *testing.T) {
	b := newBroker(t, "")
	run(t, nil, launch, "--broker", b.path, "sh", "-c", "exit 42").wantExit(t, 42)
	run(t, nil, launch, "--broker", b.path, "--", "true").wantExit(t, 0)
	if r := run(t, nil, launch, "--broker", b.path, probe, "raise", "9"); r.state.Sys().(syscall.WaitStatus).Signal() != unix.SIGKILL {
		t.Errorf("want death by SIGKILL: %v", r)
	}
	run(t, nil, launch, "--broker", b.path, "echo", "--quic", "off").wantOut(t, "--quic off\n")
	run(t, environment("POEMQ_BROKER="+b.path, "POEMQ_ON_BROKER_MISSING=fail"), launch, "echo", "hi").wantOut(t, "hi\n")
	if r := run(t, nil, launch, "--version"); !strings.HasPrefix(r.stdout, "poemq-launch ") {
		t.Errorf("%v", r)
	}
	if r := run(t, nil, launch, "--help"); !strings.Contains(r.stdout, "--on-broker-missing") || strings.Contains(r.stdout, "inherited") {
		t.Errorf("%v", r)
	}
}

func TestErrorsInWords(t *testing.T) {
	b := newBroker(t, "")
	none := filepath.Join(dir, "none.sock")
	format := filepath.Join(t.TempDir(), "format")
	if err := os.WriteFile(format, []byte("echo no first line\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("#!/no/interpreter\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	stale := filepath.Join(t.TempDir(), "stale.sock")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: stale}); err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)

	for _, c := range []struct {
		name   string
		args   []string
		status int
		words  []string
	}{
		{"missing", []string{"--broker", none, "--on-broker-missing", "fail", "true"}, 125, []string{none, "no broker is running", "; start poemqd"}},
		{"stale", []string{"--broker", stale, "--on-broker-missing", "fail", "true"}, 125, []string{stale, "no broker is running"}},
		{"not found", []string{"--broker", b.path, "nosuchcommand"}, 127, []string{"command not found: nosuchcommand", "PATH"}},
		{"no path", []string{"--broker", b.path, "/no/such"}, 127, []string{"command not found: /no/such"}},
		{"empty name", []string{"--broker", b.path, ""}, 127, []string{"command not found"}},
		{"mode", []string{"--broker", b.path, "/etc/passwd"}, 126, []string{"not executable: /etc/passwd", "permission denied"}},
		{"directory", []string{"--broker", b.path, "/etc/"}, 126, []string{"not executable: /etc/"}},
		{"format", []string{"--broker", b.path, format}, 126, []string{format + ": not executable: exec format error"}},
		{"interpreter", []string{"--broker", b.path, script}, 127, []string{"interpreter or loader is missing"}},
		{"no command", []string{"--broker", b.path}, 125, []string{"no command given"}},
		{"flag", []string{"--nosuch", "true"}, 125, []string{"unknown flag", "--help"}},
		{"quic", []string{"--quic", "maybe", "true"}, 125, []string{"maybe", "require, prefer or off"}},
		{"policy", []string{"--on-broker-missing", "x", "true"}, 125, []string{"embedded, fail or plain"}},
		{"match", []string{"--match", "inet,strean,tcp", "true"}, 125, []string{"--match", "strean", "type"}},
		{"contradiction", []string{"--quic", "require", "--on-broker-missing", "plain", "true"}, 125, []string{"forbids"}},
		{"long path", []string{"--broker", "/" + strings.Repeat("x", 200), "true"}, 125, []string{"107 bytes"}},
		{"poemqd", []string{"--broker", none, "--poemqd", "/no/poemqd", "true"}, 125, []string{"embedded broker: /no/poemqd", "--poemqd"}},
		{"poemqd format", []string{"--broker", none, "--poemqd", format, "true"}, 125, []string{"embedded broker: " + format, "exec format error"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			run(t, nil, append([]string{launch}, c.args...)...).wantWords(t, c.status, c.words...)
		})
	}
}

func TestBrokerAnswers(t *testing.T) {
	for _, c := range []struct{ answer, words string }{
		{`{"poemq":1,"error":"uid 0 is not wanted"}`, "it refused: uid 0 is not wanted"},
		{`{"poemq":1}`, "refused without a reason"},
		{`{"poemq":2,"ok":true}`, "does not understand"},
		{`hello`, "does not understand"},
		{"none", "went away"},
	} {
		b := newBroker(t, c.answer)
		run(t, nil, launch, "--broker", b.path, "true").wantWords(t, 125, c.words)
	}
}

func TestPermissionDenied(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to leave a socket to it alone")
	}
	b := newBroker(t, "")
	if err := os.Chmod(b.path, 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, ordinary(), launch, "--broker", b.path, "true").wantWords(t, 125, b.path, "permission denied", "group")
}

func TestKernelTooOld(t *testing.T) {
	b := newBroker(t, "")
	for _, errno := range []string{"38", "22"} {
		run(t, nil, probe, "old", errno, launch, "--broker", b.path, "true").wantWords(t, 125, "kernel is too old", "Linux 5.14")
	}
}

func TestNested(t *testing.T) {
	b := newBroker(t, "")
	run(t, nil, launch, "--broker", b.path, launch, "--broker", b.path, "true").wantWords(t, 125, "already has a seccomp listener", "only once")
}

func TestBrokerMissing(t *testing.T) {
	none := filepath.Join(dir, "none.sock")
	r := run(t, nil, launch, "--broker", none, "--on-broker-missing", "plain", "grep", "Seccomp:", "/proc/self/status")
	r.wantWords(t, 0, "plain TCP")
	r.wantOut(t, "Seccomp:\t0\n")
	r = run(t, nil, launch, "--broker", none, "--quic", "off", "grep", "Seccomp:", "/proc/self/status")
	r.wantOut(t, "Seccomp:\t0\n")
}

func TestHandover(t *testing.T) {
	b := newBroker(t, "")
	r := run(t, nil, launch, "--broker", b.path, "--quic", "require", "--match", "inet,stream,quic", "sh", "-c", "echo $$")
	b.mu.Lock()
	defer b.mu.Unlock()
	raw, _ := json.Marshal(b.state)
	pid := strings.TrimSpace(r.stdout)
	want := `{"fds":["seccompFd"],"metadata":"{\"poemq\":1,\"quic\":\"require\",\"match\":[[2,1,261]],\"netns\":true,\"cmd\":\"sh\"}","ociVersion":"1.0.2","pid":` + pid +
		`,"state":{"bundle":"/","id":"poemq-` + pid + `","ociVersion":"1.0.2","pid":` + pid + `,"status":"creating"}}`
	if string(raw) != want {
		t.Errorf("handover\n%s, want\n%s", raw, want)
	}
}

// The real filter: what reaches the broker, and what the program gets.
func TestFilterInTheKernel(t *testing.T) {
	b := newBroker(t, "")
	r := run(t, nil, launch, "--broker", b.path, probe, "calls")
	r.wantOut(t, "inet 0 0\nunix 0 0\ndgram 0 0\nnodelay 0 0\ntype 0 0\nlisten 0 0\nio_uring -1 38\nx32 -1 38\n")
	var got []int32
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, n := range b.calls {
		got = append(got, n.nr)
	}
	want := []int32{unix.SYS_SOCKET, unix.SYS_GETSOCKOPT, unix.SYS_LISTEN}
	if !slices.Equal(got, want) {
		t.Errorf("trapped %v, want %v", got, want)
	}
}

func TestForeignCalls(t *testing.T) {
	if r := run(t, nil, probe, "i386"); r.state.ExitCode() != 0 {
		t.Skip("this kernel runs no i386 programs (CONFIG_IA32_EMULATION)")
	}
	b := newBroker(t, "")
	run(t, nil, launch, "--broker", b.path, probe, "i386").wantOut(t, "i386 0 0\n")
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.calls) != 1 || b.calls[0].nr != 359 || b.calls[0].arch != 0x40000003 {
		t.Errorf("trapped %+v", b.calls)
	}
}

// What the program inherits is what it would have without the launcher.
func TestNothingElseChanges(t *testing.T) {
	b := newBroker(t, "")
	for name, modes := range modes(b) {
		for _, c := range []struct {
			name   string
			before []string // what starts the launcher, or the program
			args   []string
		}{
			{"signals", []string{probe, "signals"}, []string{"/bin/grep", "^S..[PBIC]", "/proc/self/status"}},
			{"signals default", nil, []string{"/bin/grep", "^S..[PBIC]", "/proc/self/status"}},
			{"descriptors", nil, []string{"/bin/ls", "/proc/self/fd"}},
			{"closed stdin", []string{probe, "closed"}, []string{"/bin/sh", "-c", "ls -l /proc/$$/fd/0 || true"}},
			{
				"more descriptors",
				[]string{"/bin/sh", "-c", `exec 3</etc/passwd 5</etc/group; exec "$@"`, "sh"},
				[]string{"/bin/sh", "-c", "readlink /proc/self/fd/3 /proc/self/fd/5; ls /proc/$$/fd"},
			},
			{"limits", []string{"/bin/sh", "-c", `ulimit -Sn 123; exec "$@"`, "sh"}, []string{probe, "nofile"}},
			{"limits default", nil, []string{probe, "nofile"}},
			{"children", nil, []string{probe, "wait"}},
			{"environment", nil, []string{probe, "env"}},
			{"argv0", []string{"/bin/sh", "-c", `cd / && umask 027 && exec "$@"`, "sh"}, []string{"/bin/sh", "-c", "echo $0; pwd; umask; id", "argv0"}},
			{"argv0 by PATH", nil, []string{"sh", "-c", "cat /proc/$$/cmdline | tr '\\0' ' '"}},
		} {
			t.Run(name+"/"+c.name, func(t *testing.T) {
				native := run(t, all(modes.prepare, stdin("x")), append(slices.Clone(c.before), c.args...)...)
				launched := run(t, all(modes.prepare, stdin("x")), slices.Concat(c.before, modes.launch, c.args)...)
				if native.stdout != launched.stdout || native.state.ExitCode() != launched.state.ExitCode() {
					t.Errorf("launched: %v\nnative: %v", launched, native)
				}
			})
		}
	}
}

func TestOddEnvironment(t *testing.T) {
	run(t, nil, probe, "oddenv", launch, "--quic", "off", probe, "env").wantOut(t, "A=1\nnovalue\nA=2\nPOEMQ_BROKER=/x\n")
}

// A mode is a way to a broker.
type mode struct {
	launch  []string
	prepare func(*exec.Cmd)
}

func modes(b *fakeBroker) map[string]mode {
	none := filepath.Join(dir, "none.sock")
	ms := map[string]mode{
		"broker":  {[]string{launch, "--broker", b.path}, nil},
		"user":    {[]string{launch, "--broker", b.path}, ordinary()},
		"off":     {[]string{launch, "--quic", "off"}, nil},
		"inplace": {[]string{launch, "--broker", none}, environment("POEMQ_EMBEDDED_MODE=inplace")},
		"chain":   {[]string{launch, "--broker", none}, environment("POEMQ_EMBEDDED_MODE=chain")},
		"chain of a user": {
			[]string{launch, "--broker", none},
			all(environment("POEMQ_EMBEDDED_MODE=chain"), ordinary()),
		},
		"inplace of a user": {
			[]string{launch, "--broker", none},
			all(environment("POEMQ_EMBEDDED_MODE=inplace"), ordinary()),
		},
	}
	return ms
}

func stdin(s string) func(*exec.Cmd) {
	return func(c *exec.Cmd) {
		if c.Stdin == nil {
			c.Stdin = strings.NewReader(s)
		}
	}
}

func TestEmptyChroot(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root for chroot(2)")
	}
	b := newBroker(t, "")
	root := t.TempDir()
	for to, from := range map[string]string{"launch": launch, "probe": probe} {
		if err := copyFile(filepath.Join(root, to), from); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Link(b.path, filepath.Join(root, "broker")); err != nil {
		t.Fatal(err)
	}
	run(t, nil, probe, "chroot", root, "/launch", "--broker", "/broker", "/probe", "argv0").wantOut(t, "/probe\n")
	run(t, nil, probe, "chroot", root, "/launch", "--broker", "/none", "/probe", "argv0").wantWords(t, 125, "not found in /poemqd")
}
