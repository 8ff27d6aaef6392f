package systemd

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/poemq/poemq/test/rig"
	"golang.org/x/sys/unix"
)

// Limits for a machine that is busy with something else.
const (
	bootLimit    = 2 * time.Minute
	commandLimit = time.Minute
	soon         = 30 * time.Second
)

// machine is a booted Debian.
type machine struct {
	*testing.T
	root   string
	nspawn *exec.Cmd
	leader int
	ended  chan struct{}
	log    bytes.Buffer // of the console
}

// boot makes a machine with poemq installed; it ends with the test.
func boot(t *testing.T) *machine {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to boot a container")
	}
	if testing.Short() {
		t.Skip("boots a container: not with -short")
	}
	if _, err := exec.LookPath("systemd-nspawn"); err != nil {
		t.Skip("systemd-nspawn is not installed (scripts/deps-systemd.sh installs it)")
	}
	m := &machine{T: t, ended: make(chan struct{})}
	m.makeRoot()
	m.install()
	m.start()
	return m
}

// makeRoot mounts a tree that can be written to, over what is cached.
func (m *machine) makeRoot() {
	m.Helper()
	layers := m.host(5*time.Minute, filepath.Join(rig.Root(), "test", "systemd", "layer.sh"))
	dir, err := os.MkdirTemp("", "poemq-systemd-")
	if err != nil {
		m.Fatal(err)
	}
	m.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			m.Errorf("remove the machine's files: %v", err)
		}
	})
	for _, d := range []string{"upper", "work", "root"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			m.Fatal(err)
		}
	}
	m.root = filepath.Join(dir, "root")
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s/upper,workdir=%s/work", strings.TrimSpace(layers), dir, dir)
	if err := unix.Mount("overlay", m.root, "overlay", 0, options); err != nil {
		m.Skipf("overlayfs cannot be mounted here: %v", err)
	}
	m.Cleanup(func() {
		if err := unix.Unmount(m.root, unix.MNT_DETACH); err != nil {
			m.Errorf("unmount the machine's root: %v", err)
		}
	})
}

// install puts everything where packages do.
func (m *machine) install() {
	m.Helper()
	bin := os.Getenv("POEMQ_BIN")
	if bin == "" {
		bin = filepath.Join(rig.Root(), "bin")
	}
	units := filepath.Join(rig.Root(), "deploy", "systemd")
	for to, from := range map[string]string{
		"usr/sbin/poemqd":                          filepath.Join(bin, "poemqd"),
		"usr/bin/poemq-launch":                     filepath.Join(bin, "poemq-launch"),
		"usr/bin/poemqctl":                         filepath.Join(bin, "poemqctl"),
		"usr/lib/systemd/system/poemq.service":     filepath.Join(units, "poemq.service"),
		"usr/lib/systemd/system/poemq.socket":      filepath.Join(units, "poemq.socket"),
		"usr/lib/systemd/user/poemq.service":       filepath.Join(units, "user", "poemq.service"),
		"usr/lib/systemd/user/poemq.socket":        filepath.Join(units, "user", "poemq.socket"),
		"usr/lib/sysusers.d/poemq.conf":            filepath.Join(units, "poemq.sysusers"),
		"usr/lib/tmpfiles.d/poemq.conf":            filepath.Join(units, "poemq.tmpfiles"),
		"usr/lib/sysctl.d/60-poemq.conf":           filepath.Join(units, "60-poemq.conf"),
		"etc/systemd/system/web.service":           filepath.Join(rig.Root(), "test", "systemd", "testdata", "web.service"),
		"usr/local/bin/web.py":                     filepath.Join(rig.Root(), "test", "systemd", "testdata", "web.py"),
		"usr/local/bin/conn.py":                    filepath.Join(rig.Root(), "test", "systemd", "testdata", "conn.py"),
		"etc/systemd/system/console-getty.service": "", // as masked: nobody logs in
	} {
		path := filepath.Join(m.root, to)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			m.Fatal(err)
		}
		if from == "" {
			if err := os.Symlink("/dev/null", path); err != nil {
				m.Fatal(err)
			}
			continue
		}
		b, err := os.ReadFile(from)
		if err != nil {
			m.Fatalf("%v (make build?)", err)
		}
		mode := os.FileMode(0o644)
		if strings.Contains(to, "bin/") {
			mode = 0o755
		}
		if err := os.WriteFile(path, b, mode); err != nil {
			m.Fatal(err)
		}
	}
}

// start boots it.
func (m *machine) start() {
	m.Helper()
	m.nspawn = exec.Command("systemd-nspawn", "--quiet", "--directory="+m.root, "--boot", "--register=no", "--keep-unit",
		"--machine=poemq-"+strconv.Itoa(os.Getpid()), "--private-network", "--link-journal=no", "--console=pipe",
		// What nspawn keeps from containers, and poemqd needs.
		"--system-call-filter=@debug seccomp pidfd_getfd pidfd_open kcmp setns")
	m.nspawn.Stdout, m.nspawn.Stderr = &m.log, &m.log
	m.nspawn.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := m.nspawn.Start(); err != nil {
		m.Fatal(err)
	}
	go func() {
		_ = m.nspawn.Wait() // the state tells
		close(m.ended)
	}()
	m.Cleanup(m.stop)
	m.await(bootLimit, "boot", func() bool {
		if m.leader = m.findLeader(); m.leader == 0 {
			return false
		}
		out, _ := m.try("systemctl", "is-system-running")
		state := strings.TrimSpace(out)
		return state == "running" || state == "degraded"
	})
}

// findLeader is the pid of the machine's first process; 0: not yet.
func (m *machine) findLeader() int {
	parents := []int{m.nspawn.Process.Pid}
	for len(parents) > 0 {
		files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", parents[0]))
		parents = parents[1:]
		for _, file := range files {
			b, _ := os.ReadFile(file)
			for _, f := range strings.Fields(string(b)) {
				pid, _ := strconv.Atoi(f)
				status, _ := os.ReadFile("/proc/" + f + "/status")
				for line := range strings.Lines(string(status)) {
					if ids, ok := strings.CutPrefix(line, "NSpid:"); ok {
						if n := strings.Fields(ids); len(n) > 1 && n[len(n)-1] == "1" {
							return pid
						}
					}
				}
				parents = append(parents, pid)
			}
		}
	}
	return 0
}

func (m *machine) stop() {
	if m.Failed() {
		if m.leader != 0 {
			out, _ := m.try("journalctl", "--no-pager", "-o", "cat", "-n", "80", "-u", "poemq.service", "-u", "web.service", "-u", "nginx.service")
			m.Logf("the journal's end:\n%s", out)
			ports, _ := m.try("ss", "-tuanpe")
			m.Logf("ports:\n%s", ports)
		}
		m.Logf("the console:\n%s", m.log.String())
	}
	_ = m.nspawn.Process.Signal(syscall.SIGTERM)
	select {
	case <-m.ended:
	case <-time.After(soon):
		if m.leader != 0 {
			_ = unix.Kill(m.leader, unix.SIGKILL) // all of its processes end with it
		}
		_ = m.nspawn.Process.Kill()
		<-m.ended
	}
}

// try runs a command in the machine.
func (m *machine) try(args ...string) (string, error) {
	return run(commandLimit, append([]string{"nsenter", "--target", strconv.Itoa(m.leader), "--mount", "--uts", "--ipc", "--net", "--pid", "--"}, args...)...)
}

// do is try with success.
func (m *machine) do(args ...string) string {
	m.Helper()
	out, err := m.try(args...)
	if err != nil {
		m.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// host runs a command outside.
func (m *machine) host(limit time.Duration, args ...string) string {
	m.Helper()
	out, err := run(limit, args...)
	if err != nil {
		m.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func run(limit time.Duration, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	c := exec.CommandContext(ctx, args[0], args[1:]...)
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	err := c.Run()
	if err != nil {
		return out.String() + errs.String(), err
	}
	return out.String(), nil
}

// await polls for cond.
func (m *machine) await(limit time.Duration, what string, cond func() bool) {
	m.Helper()
	end := time.Now().Add(limit)
	for !cond() {
		select {
		case <-m.ended:
			m.Fatalf("%s: the machine has ended: %v\n%s", what, m.nspawn.ProcessState, m.log.String())
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(end) {
			m.Fatalf("not within %v: %s", limit, what)
		}
	}
}

// property is one of a unit's.
func (m *machine) property(unit, name string) string {
	m.Helper()
	return strings.TrimSpace(m.do("systemctl", "show", "-p", name, "--value", unit))
}
