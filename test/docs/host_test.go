package docs

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/poemq/poemq/test/rig"
)

// limit is how long a command may take on a busy machine.
const limit = 90 * time.Second

// addresses of the hosts, of RFC 5737.
var addresses = map[string]string{"a": "192.0.2.1", "b": "192.0.2.2"}

// host is a set of namespaces that commands are run in.
type host struct {
	*rig.Rig
	name string
	dir  string // its home and working directory, which outlives it
	pid  int    // of its first process
	proc *rig.Proc
}

// layers lays file systems over the machine's, so that what is written there is
// the host's own, and goes with it; /etc/poemq stays for the page.
const layers = `
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/layers
for dir in etc var/lib; do
	mkdir -p "/run/layers/$dir/upper" "/run/layers/$dir/work"
	mount -t overlay overlay -o "lowerdir=/$dir,upperdir=/run/layers/$dir/upper,workdir=/run/layers/$dir/work" "/$dir"
done
mkdir -p /etc/poemq "$1/etc-poemq"
mount --bind "$1/etc-poemq" /etc/poemq
printf '127.0.0.1 localhost\n192.0.2.1 a.example\n192.0.2.2 b.example\n' >/etc/hosts
ip link set lo up
hostname "$2.example"
echo up
exec sleep infinity
`

// startHost starts a host; its directory may be that of an earlier one.
func startHost(r *rig.Rig, page, name string) *host {
	r.Helper()
	h := &host{Rig: r, name: name, dir: r.Mkdir(page+"-"+name, "")}
	c := r.Command("unshare", "--mount", "--net", "--pid", "--uts", "--fork", "--kill-child", "--mount-proc", "sh", "-ec", layers, "sh", h.dir, name)
	c.Outside = true
	h.proc = c.Start()
	h.proc.Says("up\n")
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", h.proc.Pid(), h.proc.Pid()))
	if err != nil {
		r.Fatal(err)
	}
	if _, err := fmt.Sscan(string(children), &h.pid); err != nil {
		r.Fatalf("the host's first process: %q", children)
	}
	r.Cleanup(h.stop)
	return h
}

// stop ends all that runs on the host, by the end of its first process.
func (h *host) stop() {
	h.Helper()
	if h.proc.Running() {
		_ = syscall.Kill(h.pid, syscall.SIGKILL)
		h.proc.Wait(limit)
	}
}

// join lays a cable between two hosts.
func join(a, b *host) {
	a.Helper()
	a.inside("ip link add eth0 type veth peer name eth0 netns /proc/" + fmt.Sprint(b.pid) + "/ns/net")
	for _, h := range []*host{a, b} {
		h.inside("ip address add " + addresses[h.name] + "/24 dev eth0 && ip link set eth0 up")
	}
}

// inside runs something of the test's own in the host's network.
func (h *host) inside(script string) {
	h.Helper()
	c := h.Command("nsenter", "--target", h.pid, "--net", "sh", "-c", script)
	c.Outside = true
	c.Output()
}

// command prepares one of the page's.
func (h *host) command(line, tools string) *rig.Cmd {
	h.Helper()
	c := h.Command("nsenter", "--target", h.pid, "--mount", "--net", "--pid", "--uts", "--",
		"env", "-u", "POEMQ_BROKER", "-u", "POEMQ_STATE_DIR", "-u", "TMPDIR", "bash", "-ec", `cd "$1" && eval "$2"`, "bash", h.dir, line)
	c.Outside, c.Limit = true, limit
	c.Env = []string{"HOME=" + h.dir, "PATH=" + tools + ":" + binaries() + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	return c
}

func binaries() string {
	if d := os.Getenv("POEMQ_BIN"); d != "" {
		return d
	}
	return filepath.Join(rig.Root(), "bin")
}

// serves tells whether somebody on the host has a port.
func (h *host) serves(port string) bool {
	var n int
	if _, err := fmt.Sscan(port, &n); err != nil {
		return false
	}
	for _, table := range []string{"udp", "udp6", "tcp", "tcp6"} {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", h.pid, table))
		for line := range strings.Lines(string(text)) {
			if f := strings.Fields(line); len(f) > 3 && strings.HasSuffix(f[1], fmt.Sprintf(":%04X", n)) && (table[0] == 'u' || f[3] == "0A") {
				return true
			}
		}
	}
	return false
}
