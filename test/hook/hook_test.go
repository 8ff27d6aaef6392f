package hook

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/poemq/poemq/launcher/filter"
	"golang.org/x/sys/unix"
)

// Children, threads, handlers, closed descriptors: the library is still there,
// and never in the way of what is not the broker's.
func TestInPrograms(t *testing.T) {
	t.Run("as built", func(t *testing.T) {
		inPrograms(t, func(socket string, argv ...string) *output {
			return start(t, nil, append(launch("--broker", socket, "--"), argv...)...)
		})
	})
	t.Run("undefined behaviour is a trap", func(t *testing.T) {
		trapping := filepath.Join(filepath.Dir(program), "libpoemq-hook-ubsan.so")
		if out, err := exec.Command("make", "-s", "-C", "../..", "hook-ubsan", "UBSAN_OUT="+trapping).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		inPrograms(t, func(socket string, argv ...string) *output {
			const session = "POEMQ_SESSION=00112233445566778899aabbccddeeff"
			return start(t, byHand(socket, session, "LIBZPHOOK="+trapping), argv...)
		})
	})
}

func inPrograms(t *testing.T, start func(socket string, argv ...string) *output) {
	socket := filepath.Join(t.TempDir(), "b")
	b := broker(t, socket)
	words := []string{"socket", "library", library, "fork", "vfork", "foreign", "handler", "closeall", "socket", "reopen", "socket", "exec", "socket", "bomb", "crowd"}
	want := []string{
		"socket: carried", "library: carried", "fork: carried", "vfork: carried", "pipe: ENOTSOCK", "closed: EBADF", "fault: EFAULT", "fault: EFAULT",
		"nested: well", "accept: EINTR", "socket: carried", "socket: carried", "socket: carried", "500 children: 0 bad", "1000 threads: well",
	}
	if os.Geteuid() == 0 {
		words, want = append(words, "confined"), append(want, "confined: 0")
	} else {
		t.Log("not run: a child in another root and of another user (needs root)")
	}
	words, want = append(words, "nowritev"), append(want, "name: well", "fault: EFAULT")
	p := start(socket, append([]string{program}, words...)...)
	if status := p.wait(); status != 0 {
		t.Errorf("exit status %d", status)
	}
	wantLines(t, p.lines(len(want)), want...)
	if s := p.stderr(); s != "" {
		t.Errorf("stderr: %s", s)
	}
	await(t, "the session ends", func() bool { return strings.Contains(b.stderr(), "session ends") })
	if n := count(b.stderr(), "session begins"); n != 1 {
		t.Errorf("%d sessions of one process tree", n)
	}
	for _, bad := range []string{"level=WARN", "level=ERROR"} {
		if strings.Contains(b.stderr(), bad) {
			t.Errorf("the broker complains: %s", b.stderr())
		}
	}
}

// A program with a JIT, workers and children, and a server and client in it.
func TestNode(t *testing.T) {
	if _, err := exec.LookPath("node"); err != nil {
		t.Skip("node is not installed")
	}
	socket := filepath.Join(t.TempDir(), "b")
	b := broker(t, socket)
	p := start(t, nil, append(launch("--broker", socket, "--quic", "require", "--"), "node", "../zpoline/testdata/work.js")...)
	if status := p.wait(); status != 0 || p.stdout() != "ok\n" || p.stderr() != "" {
		t.Errorf("exit status %d: %s%s", status, p.stdout(), p.stderr())
	}
	await(t, "the session ends", func() bool { return strings.Contains(b.stderr(), "session ends") })
	if !strings.Contains(b.stderr(), " connections=2 ") {
		t.Errorf("the broker carried other than one connection, of which it has both ends: %s", b.stderr())
	}
}

// Without a broker it is said once, and done what was asked for.
func TestWithoutBroker(t *testing.T) {
	nowhere := filepath.Join(t.TempDir(), "none")
	for _, c := range []struct{ missing, socket string }{{"", "socket: ENOSYS"}, {"fail", "socket: ENOSYS"}, {"plain", "socket: native"}} {
		t.Run("missing "+c.missing, func(t *testing.T) {
			p := start(t, byHand(nowhere, "POEMQ_ON_BROKER_MISSING="+c.missing), program, "socket", "socket", "foreign")
			p.wait()
			if got := p.lines(3)[:2]; got[0] != c.socket || got[1] != c.socket {
				t.Errorf("%q, want twice %q", got, c.socket)
			}
			if s := p.stderr(); count(s, "poemq: broker: "+nowhere+": no broker is running there; ") != 1 || count(s, "\n") != 1 {
				t.Errorf("stderr, want one line about the broker: %s", s)
			}
		})
	}
	t.Run("no hook", func(t *testing.T) {
		p := start(t, nil, program, "socket")
		p.wait()
		wantLines(t, p.lines(1), "socket: native")
	})
}

// What the environment says is done, and what it does not say rightly is told.
func TestEnvironment(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "b")
	b := broker(t, socket)
	for _, c := range []struct{ set, socket, told string }{
		{"POEMQ_MATCH=2,1,0;10,1,6", "carried", ""},
		{"POEMQ_MATCH=10,1,0", "native", ""},
		{"POEMQ_MATCH=2,1", "carried", "poemq: POEMQ_MATCH: 2,1: want DOMAIN,TYPE,PROTO in numbers"},
		{"POEMQ_QUIC=maybe", "carried", "poemq: POEMQ_QUIC: maybe: it is none of require, prefer and off"},
		{"POEMQ_SESSION=7", "carried", "poemq: POEMQ_SESSION: it is not 32 hexadecimal digits"},
		{"POEMQ_NAME=other", "carried", ""},
	} {
		p := start(t, byHand(socket, c.set), program, "socket")
		p.wait()
		wantLines(t, p.lines(1), "socket: "+c.socket)
		if s := p.stderr(); !strings.HasPrefix(s, c.told) || (c.told == "") != (s == "") {
			t.Errorf("%s: stderr %q, want %q", c.set, s, c.told)
		}
	}
	if !strings.Contains(b.stderr(), "program=other") {
		t.Error("POEMQ_NAME is not in the log")
	}
}

// A broker is killed while a call waits for it.
func TestBrokerIsKilledInACall(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "b")
	b := broker(t, socket)
	p := start(t, nil, append(launch("--broker", socket, "--", program), "listen", "accept")...)
	p.lines(1)
	await(t, "the program waits for an answer", func() bool { return inCall(p, syscall.SYS_RECVMSG) })
	kill(b)
	p.wait()
	wantLines(t, p.lines(2), "listen: 0", "accept: ENOSYS")
}

// A broker is killed in the middle, and another one comes.
func TestBrokerIsKilled(t *testing.T) {
	for missing, without := range map[string]string{"fail": "socket: ENOSYS", "plain": "socket: native"} {
		t.Run(missing, func(t *testing.T) {
			socket := filepath.Join(t.TempDir(), "b")
			b := broker(t, socket)
			p := start(t, nil, append(launch("--broker", socket, "--on-broker-missing", missing, "--", program),
				"socket", "listen", "wait", "socket", "fork", "socket", "accept", "wait", "socket", "accept", "wait")...)
			p.lines(2)
			kill(b)
			p.next(6)
			broker(t, socket)
			// A listening socket whose broker is gone gets no connection any more.
			want := []string{"socket: carried", "listen: 0", without, "fork: bad", without, "accept: ENOSYS", "socket: carried", "accept: ENOSYS"}
			wantLines(t, p.next(8), want...)
			fmt.Fprintln(p.in)
			p.wait()
			// The child's own words are its own.
			if n := count(p.stderr(), "poemq: broker: "); n < 1 || n > 2 {
				t.Errorf("stderr, want a line about the broker: %s", p.stderr())
			}
		})
	}
}

// A private broker serves the tree and leaves nothing behind.
func TestPrivateBroker(t *testing.T) {
	dir := t.TempDir()
	none := filepath.Join(dir, "none")
	p := start(t, []string{"XDG_RUNTIME_DIR=" + dir}, append(launch("--broker", none, "--", program), "socket", "fork", "exec", "socket", "wait")...)
	wantLines(t, p.lines(3), "socket: carried", "fork: carried", "socket: carried")
	doors, err := filepath.Glob(filepath.Join(dir, "poemq-door-*", "s"))
	if err != nil || len(doors) != 1 {
		t.Fatalf("the private broker's sockets: %q, %v", doors, err)
	}
	// Whoever does not know the session's id is not let in.
	stranger := start(t, byHand(doors[0]), program, "socket")
	stranger.wait()
	if s := stranger.stderr(); !strings.Contains(s, "it refused: this broker serves another process tree; ") || count(s, "\n") != 1 || strings.Contains(stranger.stdout(), "carried") {
		t.Errorf("a stranger: %s%s", stranger.stdout(), s)
	}
	fmt.Fprintln(p.in)
	if status := p.wait(); status != 0 {
		t.Errorf("exit status %d", status)
	}
	await(t, "the private broker's socket goes", func() bool {
		left, _ := filepath.Glob(filepath.Join(dir, "poemq-door-*"))
		return len(left) == 0
	})
}

// Who reads the program's output to its end does not wait for the private broker,
// which stays a little longer.
func TestPrivateBrokerLetsGo(t *testing.T) {
	for range 10 { // a machine that is busy may take as long as it stays
		dir := t.TempDir()
		argv := launch("--broker", filepath.Join(dir, "none"), "--", program, "socket")
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+dir, "POEMQ_STATE_DIR="+dir)
		if out, err := cmd.CombinedOutput(); err != nil || string(out) != "socket: carried\n" {
			t.Fatalf("%v: %s", err, out)
		}
		left := func() []string {
			doors, _ := filepath.Glob(filepath.Join(dir, "poemq-door-*"))
			return doors
		}
		there := len(left())
		await(t, "the private broker's socket goes", func() bool { return len(left()) == 0 })
		if there == 1 {
			return
		}
	}
	t.Error("the output of the program ended only when its private broker did")
}

// What the dynamic loader takes no library into is told before it runs.
func TestRefusedPrograms(t *testing.T) {
	dir := t.TempDir()
	static := filepath.Join(dir, "static")
	if out, err := exec.Command("gcc", "-static", "-o", static, "c/program.c").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	script := filepath.Join(dir, "script")
	if err := os.WriteFile(script, []byte("#!"+static+" x\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for path, why := range map[string]string{static: "statically linked", script: "statically linked"} {
		p := start(t, nil, launch("--broker", filepath.Join(dir, "none"), "--", path, "socket")...)
		if status := p.wait(); status != 125 || !strings.Contains(p.stderr(), why) || !strings.Contains(p.stderr(), "use --via seccomp") {
			t.Errorf("%s: exit status %d: %s", path, status, p.stderr())
		}
	}
	if os.Geteuid() == 0 {
		setuid := filepath.Join(dir, "setuid")
		copied, err := os.ReadFile(program)
		if err != nil || os.WriteFile(setuid, copied, 0o755) != nil || os.Chown(setuid, 65534, 65534) != nil || unix.Chmod(setuid, 0o4755) != nil {
			t.Fatal("a set-user-ID program cannot be made")
		}
		p := start(t, nil, launch("--broker", filepath.Join(dir, "none"), "--", setuid, "socket")...)
		if status := p.wait(); status != 125 || !strings.Contains(p.stderr(), "set-user-ID") {
			t.Errorf("set-user-ID: exit status %d: %s", status, p.stderr())
		}
	}
}

// --via auto takes the filter where there can be one, and the libraries under
// another listener.
func TestAuto(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "b")
	broker(t, socket)
	auto := []string{filepath.Join(bin, "poemq-launch"), "--via", "auto", "--broker", socket, "--"}
	show := []string{"sh", "-c", `echo "${LIBZPHOOK:+libraries}"; exec "$0" socket`, program}
	p := start(t, nil, append(slices.Clone(auto), show...)...)
	p.wait()
	wantLines(t, p.lines(2), "", "socket: carried")
	outer := []string{filepath.Join(bin, "poemq-launch"), "--via", "seccomp", "--broker", socket, "--match", "inet,dgram,0", "--"}
	p = start(t, nil, slices.Concat(outer, auto, show)...)
	p.wait()
	wantLines(t, p.lines(2), "libraries", "socket: carried")
}

// The library asks the broker about the calls that the filter traps.
func TestSameCalls(t *testing.T) {
	driver := filepath.Join(t.TempDir(), "driver")
	cc := exec.Command("gcc", "-D_GNU_SOURCE", "-I../../zpoline", "-o", driver, "c/wanted.c", "../../zpoline/hook_calls.c")
	if out, err := cc.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	ask := func(call string, level, name uint32) bool {
		out, err := exec.Command(driver, call, fmt.Sprint(level), fmt.Sprint(name)).Output()
		if err != nil {
			t.Fatal(err)
		}
		return string(out) == "1\n"
	}
	for name := range uint32(100) {
		if got, want := ask("get", unix.SOL_SOCKET, name), slices.Contains(filter.GetOptions, name); got != want {
			t.Errorf("getsockopt of SOL_SOCKET %d: asked %v, trapped %v", name, got, want)
		}
		if got, want := ask("set", unix.SOL_SOCKET, name), slices.Contains(filter.SetOptions, name); got != want {
			t.Errorf("setsockopt of SOL_SOCKET %d: asked %v, trapped %v", name, got, want)
		}
	}
	trapped := map[uint32]bool{}
	for _, r := range (filter.Spec{}).Rules() {
		if r.Call == "ioctl" {
			trapped[r.Conds[0].Value] = true
		}
	}
	for _, base := range []uint32{0x5400, 0x8900} {
		for what := base; what < base+0x60; what++ {
			if got := ask("ioctl", what, 0); got != trapped[what] {
				t.Errorf("ioctl %#x: asked %v, trapped %v", what, got, trapped[what])
			}
		}
	}
	if !ask("get", unix.IPPROTO_TCP, 1) || !ask("set", 999, 1) {
		t.Error("an option of another level is not asked for")
	}
}
