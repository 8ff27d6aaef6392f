package doctor

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"github.com/poemq/poemq/notify"
	"golang.org/x/sys/unix"
)

// seccomp tries each thing that answering a program's calls needs.
func seccomp() []Check {
	f := notify.Probe()
	const newer = "a kernel of 5.14 or newer is needed, with CONFIG_SECCOMP_FILTER; in a container the engine's seccomp profile must allow seccomp(2)"
	var all []Check
	nested := errors.Is(f.Listener, unix.EBUSY)
	switch {
	case nested:
		all = append(all, one("nested listener", Fail, "this process tree has a seccomp listener already",
			"a second one is not possible: run outside of poemq-launch, of the container's agent, or of LXC or WSL that brought it")...)
	case f.Listener == nil:
		all = append(all, one("nested listener", OK, "none", "")...)
	}
	for _, t := range []struct {
		name string
		err  error
		less bool // poemq works without it
	}{
		{"seccomp USER_NOTIF", f.Listener, false},
		{"seccomp CONTINUE", f.Continue, false},
		{"seccomp ADDFD", f.AddFD, false},
		{"seccomp ADDFD_SEND", f.AddSend, false},
		{"seccomp SYNC_WAKE_UP", f.SyncWake, true},
	} {
		c := Check{Name: t.name, State: OK, Found: "works"}
		switch {
		case errors.Is(t.err, notify.ErrNotTried):
			c = Check{Name: t.name, State: Warn, Found: "not tried, since what comes before does not work", Do: "see above"}
		case nested && t.err != nil:
			c = Check{Name: t.name, State: Warn, Found: "not tried, since there is a listener already", Do: "see above"}
		case t.err != nil && t.less:
			c = Check{Name: t.name, State: Warn, Found: t.err.Error(), Do: "nothing must be done; socket calls are quicker with a kernel of 6.6 or newer"}
		case t.err != nil:
			c = Check{Name: t.name, State: Fail, Found: t.err.Error(), Do: newer}
		}
		all = append(all, c)
	}
	return all
}

// access tries on a child what a broker has to do with a program: take a copy of
// its descriptor and read its memory.
func access(child []string) []Check {
	const name, do = "access to programs", "a private broker needs Yama ptrace_scope 0 or 1 (sysctl kernel.yama.ptrace_scope=1), or CAP_SYS_PTRACE; in a container allow pidfd_getfd and process_vm_readv"
	if len(child) == 0 {
		return nil
	}
	c := exec.Command(child[0], child[1:]...)
	in, err := c.StdinPipe()
	if err == nil {
		c.Stdout = io.Discard
		err = c.Start()
	}
	if err != nil {
		return one(name, Warn, "not tried: "+err.Error(), "run poemqctl where it may start itself")
	}
	defer func() {
		in.Close()
		_ = c.Wait() // its standard input ends, so it does
	}()
	pidfd, err := unix.PidfdOpen(c.Process.Pid, 0)
	if err != nil {
		return one(name, Fail, "pidfd_open: "+err.Error(), do)
	}
	defer unix.Close(pidfd)
	fd, err := unix.PidfdGetfd(pidfd, 0, 0)
	if err != nil {
		return one(name, Fail, "pidfd_getfd of a child: "+err.Error(), do)
	}
	unix.Close(fd)
	if err := readsMemory(c.Process.Pid); err != nil {
		return one(name, Fail, "process_vm_readv of a child: "+err.Error(), do)
	}
	return one(name, OK, "descriptors and memory of a child can be reached", "")
}

// readsMemory reads the first octets of a process's memory.
func readsMemory(pid int) error {
	var at uint64
	if _, err := fmt.Sscanf(firstLine(fmt.Sprintf("/proc/%d/maps", pid)), "%x-", &at); err != nil {
		return fmt.Errorf("/proc/%d/maps does not tell where it is", pid)
	}
	var b [8]byte
	local := []unix.Iovec{{Base: &b[0], Len: uint64(len(b))}}
	_, err := unix.ProcessVMReadv(pid, local, []unix.RemoteIovec{{Base: uintptr(at), Len: len(b)}}, 0)
	return err
}

// yama tells what the kernel lets others than root trace.
func yama() []Check {
	const name = "ptrace scope"
	scope := firstLine("/proc/sys/kernel/yama/ptrace_scope")
	if scope == "" {
		return one(name, OK, "no Yama: a user's programs can be reached by his own broker", "")
	}
	n, err := strconv.Atoi(scope)
	switch {
	case err != nil:
		return one(name, Warn, "kernel.yama.ptrace_scope is "+scope, "")
	case n == 0:
		return one(name, OK, "0: a user's programs can be reached by his own broker", "")
	case n == 1:
		return one(name, OK, "1: a private broker works as the programs' ancestor; a system broker needs CAP_SYS_PTRACE", "")
	case n == 2 && root():
		return one(name, OK, "2: only with CAP_SYS_PTRACE, which a system broker has", "")
	case n == 2:
		return one(name, Fail, "2: private brokers of ordinary users do not work", "use a system broker, or sysctl kernel.yama.ptrace_scope=1")
	}
	return one(name, Fail, scope+": nobody may reach a program", "it stays so until the next boot; then set kernel.yama.ptrace_scope to 1")
}

// Capabilities that a system broker has a use for (capabilities(7)).
var wanted = []struct {
	bit  uint
	name string
	why  string
}{
	{unix.CAP_SYS_PTRACE, "CAP_SYS_PTRACE", "to reach programs of other users"},
	{unix.CAP_SYS_ADMIN, "CAP_SYS_ADMIN", "to enter network namespaces of containers"},
	{unix.CAP_NET_ADMIN, "CAP_NET_ADMIN", "for large UDP buffers whatever net.core.rmem_max says"},
	{unix.CAP_NET_BIND_SERVICE, "CAP_NET_BIND_SERVICE", "for ports below 1024"},
}

func capabilities() []Check {
	const name = "capabilities"
	set, err := strconv.ParseUint(statusField("CapEff"), 16, 64)
	if err != nil {
		return one(name, Warn, "/proc/self/status does not tell them", "mount /proc")
	}
	var lacks []string
	for _, w := range wanted {
		if set&(1<<w.bit) == 0 {
			lacks = append(lacks, w.name+" ("+w.why+")")
		}
	}
	switch {
	case len(lacks) == 0:
		return one(name, OK, "all that a system broker has a use for", "")
	case !root():
		return one(name, OK, fmt.Sprintf("an ordinary user's (%d of %d that a system broker has a use for): a private broker works for your own programs", len(wanted)-len(lacks), len(wanted)), "")
	}
	return one(name, Warn, "root without "+strings.Join(lacks, ", "), "add those that you need to the container or unit that poemqd runs in")
}

// container tells in what we are.
func container() []Check {
	found := ""
	switch kind := os.Getenv("container"); {
	case kind != "":
		found = kind
	case there("/.dockerenv"):
		found = "docker"
	case there("/run/.containerenv"):
		found = "podman"
	case there("/run/systemd/container"):
		found = firstLine("/run/systemd/container")
	case strings.Contains(strings.ToLower(firstLine("/proc/sys/kernel/osrelease")), "microsoft"):
		return one("container", Warn, "WSL", "its mirrored networking holds a seccomp listener; use NAT networking if that is told above")
	}
	if found == "" {
		return one("container", OK, "none", "")
	}
	return one("container", OK, found+": programs get a broker by its socket mounted, or a private one (docs/containers.md)", "")
}

func there(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// mostConnections is what the limit of open files should allow.
const mostConnections = 10_000

// files looks at the limit of open files: two for each connection.
func files() []Check {
	const name = "open files"
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		return one(name, Warn, err.Error(), "")
	}
	found := fmt.Sprintf("%d, enough for %d connections", lim.Max, lim.Max/2)
	if lim.Max < 2*mostConnections {
		return one(name, Warn, found, "raise the hard limit (LimitNOFILE= of a unit, limits.conf of a user, --ulimit of a container)")
	}
	return one(name, OK, found, "")
}
