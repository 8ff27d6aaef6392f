package rig

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Cmd is a program to run under poemq-launch. The fields may be set until
// Start, Run or Output.
type Cmd struct {
	rig *Rig

	Args  []string
	Env   []string      // added to a small environment of our own
	Dir   string        // "" is the test's directory
	Stdin io.Reader     // nil is /dev/null
	Told  bool          // its standard input is what Proc.Tell says, in place of Stdin
	User  string        // run as this user; "" is ours
	Limit time.Duration // Run and Output fail after it; 0 is one minute

	// Outside runs the program without poemq: tools that prepare files and
	// speak to nobody.
	Outside bool
	// Flags are poemq-launch's own.
	Flags []string
	// Broker serves the program; nil leaves it to bring up a private one.
	Broker *Broker
	// On is where it runs; nil is here.
	On Place
}

// Place starts programs somewhere, as in another network namespace.
type Place interface {
	Start(*exec.Cmd) error
}

// Proc is a started program. Its Rig ends it.
type Proc struct {
	rig    *Rig
	name   string
	native bool // without poemq
	cmd    *exec.Cmd
	out    string        // file with its standard output
	err    string        // file with its standard error
	in     io.Writer     // what Tell writes to; closed with the process's end
	done   chan struct{} // closed when it has been waited for
}

// Command prepares a program and its arguments; numbers are printed.
func (r *Rig) Command(args ...any) *Cmd {
	c := &Cmd{rig: r}
	for _, a := range args {
		c.Args = append(c.Args, fmt.Sprint(a))
	}
	return c
}

// marker is in the environment of all that a Rig starts, so that what is left
// over can be found.
func (r *Rig) marker() string { return "POEMQ_TEST_RIG=" + r.Dir }

// environ is what the program sees: nothing of the caller's but its PATH's
// system part.
func (c *Cmd) environ(state string) []string {
	env := []string{
		"PATH=" + strings.Join(searchPath(), ":"),
		"HOME=" + c.rig.Dir,
		"LANG=C.UTF-8",
		"TMPDIR=" + c.rig.Path("tmp"),
		"POEMQ_STATE_DIR=" + state,
		c.rig.marker(),
	}
	if ViaZpoline() {
		env = append(env, "POEMQ_VIA=zpoline")
	}
	// Never the machine's own broker.
	broker := c.rig.Path("no-broker.sock")
	switch {
	case c.Broker != nil:
		broker = c.Broker.socket
	case c.rig.shared != nil && c.User == "": // its socket is for its owner
		broker = c.rig.shared.socket
	}
	env = append(env, "POEMQ_BROKER="+broker)
	return append(env, c.Env...)
}

// argv returns the command line, wrapped unless it runs natively.
func (c *Cmd) argv() []string {
	args := append([]string(nil), c.Args...)
	if path := Find(args[0]); path != "" {
		args[0] = path // sshd insists on an absolute path
	}
	if Native() || c.Outside {
		return args
	}
	wrap := append([]string{filepath.Join(c.rig.launchers(c.User), "poemq-launch")}, c.Flags...)
	return append(append(wrap, "--"), args...)
}

// launchers returns a directory with the binaries that the user can reach: the
// repository may lie below a closed home directory.
func (r *Rig) launchers(user string) string {
	r.Helper()
	if user == "" {
		return BinDir()
	}
	dir := r.Mkdir("bin", "")
	names := []string{"poemq-launch", "poemqd"}
	if ViaZpoline() {
		names = append(names, "libpoemq-zpoline.so", "libpoemq-hook.so")
	}
	for _, name := range names {
		to := filepath.Join(dir, name)
		if _, err := os.Stat(to); err == nil {
			continue
		}
		data, err := os.ReadFile(filepath.Join(BinDir(), name))
		if err == nil {
			err = os.WriteFile(to, data, 0o755)
		}
		if err != nil {
			r.Fatal(err)
		}
	}
	return dir
}

// Start starts the program in a process group of its own. The end of the test
// stops it; should the test's process die, it gets SIGKILL.
func (c *Cmd) Start() *Proc {
	r := c.rig
	r.Helper()
	argv := c.argv()
	r.mu.Lock()
	r.serial++
	log := r.Path(fmt.Sprintf("log-%d-%s", r.serial, filepath.Base(c.Args[0])))
	r.mu.Unlock()

	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = c.Dir
	if cmd.Dir == "" {
		cmd.Dir = r.Dir
	}
	cmd.Stdin = c.Stdin
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if c.User != "" {
		uid, gid := r.ids(c.User)
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uid, Gid: gid}
	}
	cmd.Env = c.environ(r.Mkdir("state-"+c.User, c.User))
	stdout, stderr := r.logFile(log+".out"), r.logFile(log+".err")
	defer stdout.Close()
	defer stderr.Close()
	cmd.Stdout, cmd.Stderr = stdout, stderr

	p := &Proc{
		rig: r, name: strings.Join(c.Args, " "), cmd: cmd, out: log + ".out", err: log + ".err",
		native: Native() || c.Outside, done: make(chan struct{}),
	}
	if len(p.name) > 200 {
		p.name = p.name[:200] + "…"
	}
	if c.Told {
		var err error
		if p.in, err = cmd.StdinPipe(); err != nil {
			r.Fatal(err)
		}
	}
	start := cmd.Start
	if c.On != nil {
		start = func() error { return c.On.Start(cmd) }
	}
	if err := start(); err != nil {
		r.Fatalf("%s: %v", p, err)
	}
	go func() {
		_ = cmd.Wait() // the state tells
		close(p.done)
	}()
	r.mu.Lock()
	r.procs = append(r.procs, p)
	r.mu.Unlock()
	r.Cleanup(p.Stop)
	return p
}

func (r *Rig) logFile(path string) *os.File {
	r.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o666)
	if err != nil {
		r.Fatal(err)
	}
	return f
}

// Run runs the program to its end and returns it, however it ended. It fails
// the test when the program is not done within the limit.
func (c *Cmd) Run() *Proc {
	c.rig.Helper()
	limit := c.Limit
	if limit == 0 {
		limit = time.Minute
	}
	p := c.Start()
	p.Wait(limit)
	return p
}

// Output runs the program to its end, fails the test unless it exits with 0,
// and returns its standard output.
func (c *Cmd) Output() string {
	c.rig.Helper()
	p := c.Run()
	if code := p.ExitCode(); code != 0 {
		c.rig.Fatalf("%s: %s\n%s%s", p, p.state(), p.Stdout(), p.Stderr())
	}
	return p.Stdout()
}

func (p *Proc) String() string { return p.name }

func (p *Proc) state() string {
	if p.Running() {
		return "running"
	}
	return p.cmd.ProcessState.String()
}

// Pid is the id of the process that was started, and of its process group.
func (p *Proc) Pid() int { return p.cmd.Process.Pid }

// Stdout returns what the program has printed so far.
func (p *Proc) Stdout() string { return readLog(p.out) }

// Stderr returns what the program has printed so far to its standard error.
func (p *Proc) Stderr() string { return readLog(p.err) }

func readLog(path string) string {
	data, _ := os.ReadFile(path) // gone only after the test
	return string(bytes.ToValidUTF8(data, []byte("?")))
}

// Running reports whether the program has not ended yet.
func (p *Proc) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Wait waits for the program's end and fails the test after the limit.
func (p *Proc) Wait(limit time.Duration) {
	p.rig.Helper()
	select {
	case <-p.done:
	case <-time.After(limit):
		p.rig.Fatalf("%s: still running after %v", p, limit)
	}
}

// ExitCode is the ended program's exit status, -1 when a signal ended it.
func (p *Proc) ExitCode() int { return p.cmd.ProcessState.ExitCode() }

// Signal sends a signal to the program alone.
func (p *Proc) Signal(sig syscall.Signal) {
	p.rig.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.rig.Errorf("%s: %v: %v", p, sig, err)
	}
}

// Stop ends the program: SIGTERM, and SIGKILL when that does not help. What it
// has forked must end by itself; the end of the test looks after that.
func (p *Proc) Stop() {
	p.rig.Helper()
	if !p.Running() {
		return
	}
	p.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(10 * time.Second):
		p.rig.Logf("%s: SIGTERM did not end it", p)
		p.Signal(syscall.SIGKILL)
		<-p.done
	}
}

// Tell writes a line to the standard input of a program started with Told.
func (p *Proc) Tell(line any) {
	p.rig.Helper()
	if _, err := fmt.Fprintln(p.in, line); err != nil {
		p.rig.Errorf("tell %s: %v", p, err)
	}
}

// serveLimit is how long a server may take to come up on a busy machine.
const serveLimit = 30 * time.Second

// Says waits until the program's output, of either kind, contains the text.
func (p *Proc) Says(text string) {
	p.rig.Helper()
	p.SaysWithin(serveLimit, text)
}

// SaysWithin is Says with a limit for long work.
func (p *Proc) SaysWithin(limit time.Duration, text string) {
	p.rig.Helper()
	p.until(limit, fmt.Sprintf("say %q", text), func() bool {
		return strings.Contains(p.Stdout(), text) || strings.Contains(p.Stderr(), text)
	})
}

// Listens waits until the program listens on the port. It looks into the
// kernel's tables: a connection to find out would be seen on the wire.
func (p *Proc) Listens(port int) {
	p.rig.Helper()
	p.until(serveLimit, fmt.Sprintf("listen on port %d", port), func() bool { return p.listening(port) })
}

// until polls for something the program is to do before it ends.
func (p *Proc) until(limit time.Duration, what string, cond func() bool) {
	p.rig.Helper()
	ok := false
	poll(limit, func() bool {
		running := p.Running()
		ok = cond()
		return ok || !running
	})
	if !ok {
		p.rig.Fatalf("%s (%s) did not %s", p, p.state(), what)
	}
}

// listening reports whether somebody in the program's network namespace listens
// on the port: UDP under poemq, where QUIC comes in, and TCP without.
func (p *Proc) listening(port int) bool {
	const listen = "0A"
	tables := []string{"udp", "udp6"}
	if p.native {
		tables = []string{"tcp", "tcp6"}
	}
	suffix := fmt.Sprintf(":%04X", port)
	for _, table := range tables {
		data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", p.Pid(), table))
		for line := range strings.Lines(string(data)) {
			f := strings.Fields(line)
			if len(f) > 3 && strings.HasSuffix(f[1], suffix) && (!p.native || f[3] == listen) {
				return true
			}
		}
	}
	return false
}

// sweep looks for processes that outlived the test, such as a private broker
// or a child that left its group, ends them and fails the test.
func (r *Rig) sweep() {
	if poll(10*time.Second, func() bool { return len(r.leftovers()) == 0 }) {
		return
	}
	for _, pid := range r.leftovers() {
		line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		r.Errorf("outlived the test: pid %d, %s", pid, bytes.ReplaceAll(line, []byte{0}, []byte{' '}))
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

// leftovers are the processes of this test that still run: those with its
// marker and, since some programs write over their environment, those in the
// process groups it made. Others make the environment of what they start
// themselves (podman's conmon, which cleans up after its container has been
// removed): those with a path in the test's directory on their command line.
func (r *Rig) leftovers() (pids []int) {
	r.mu.Lock()
	groups := make(map[string]bool)
	for _, p := range r.procs {
		groups[strconv.Itoa(p.Pid())] = true
	}
	r.mu.Unlock()
	want, path := []byte(r.marker()+"\x00"), []byte(r.Dir+"/")
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		env, _ := os.ReadFile(dir + "/environ") // another user's, or gone
		line, _ := os.ReadFile(dir + "/cmdline")
		if !bytes.Contains(env, want) && !groups[group(dir)] && !bytes.Contains(line, path) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(dir)); err == nil && pid != os.Getpid() {
			pids = append(pids, pid)
		}
	}
	return pids
}

// group returns the process group of a process that is no zombie (proc(5)).
func group(dir string) string {
	stat, _ := os.ReadFile(dir + "/stat")
	f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:])) // behind the name
	if len(f) < 3 || f[0] == "Z" {
		return ""
	}
	return f[2]
}
