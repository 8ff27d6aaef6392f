package packages

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/poemq/poemq/test/rig"
	"golang.org/x/sys/unix"
)

// root is a Debian to install in, which is gone after the test.
type root struct {
	*rig.Rig
	dir string
}

// newRoot lays a file system over the cached one.
func newRoot(t *testing.T, programs ...string) *root {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("installing packages in a file system of its own needs root")
	}
	r := &root{Rig: rig.New(t, append(programs, "chroot", "unshare")...)}
	c := r.Command(filepath.Join(rig.Root(), "scripts/debroot.sh"))
	c.Outside, c.Limit = true, 20*limit
	if cache := os.Getenv("XDG_CACHE_HOME"); cache != "" {
		c.Env = append(c.Env, "XDG_CACHE_HOME="+cache)
	}
	lower := strings.TrimSpace(c.Output())
	// An overlay's upper layer cannot be on an overlay, as in a container.
	layers := r.Mkdir("layers", "")
	if err := unix.Mount("tmpfs", layers, "tmpfs", 0, "mode=755"); err != nil {
		t.Fatalf("mount a tmpfs: %v", err)
	}
	r.Cleanup(func() { r.unmount(layers) })
	r.dir = r.Mkdir("root", "")
	upper, work := r.Mkdir("layers/upper", ""), r.Mkdir("layers/work", "")
	if err := unix.Mount("overlay", r.dir, "overlay", 0, fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", lower, upper, work)); err != nil {
		t.Fatalf("mount an overlay on %s: %v", lower, err)
	}
	r.Cleanup(func() { r.unmount(r.dir) })
	return r
}

func (r *root) unmount(dir string) {
	r.Helper()
	if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
		r.Errorf("unmount %s: %v", dir, err)
	}
}

// in prepares a command in the file system, with its own pids, network and /proc.
func (r *root) in(script string) *rig.Cmd {
	r.Helper()
	c := r.Command("unshare", "--fork", "--kill-child", "--pid", "--net", "--mount", "sh", "-c",
		`mount -t proc proc "$1/proc" && ip link set lo up && exec chroot "$1" /bin/sh -ec "$2"`, "sh", r.dir, script)
	c.Outside, c.Limit = true, limit
	c.Env = []string{"DEBIAN_FRONTEND=noninteractive", "POEMQ_STATE_DIR=/var/lib/poemq", "POEMQ_BROKER=/run/poemq/broker.sock", "TMPDIR=/tmp", "HOME=/"}
	return c
}

// do runs a command there and returns its output.
func (r *root) do(script string) string {
	r.Helper()
	return r.in(script).Output()
}

// bring copies a file to the root's top.
func (r *root) bring(path string) (name string) {
	r.Helper()
	data, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(filepath.Join(r.dir, filepath.Base(path)), data, 0o644)
	}
	if err != nil {
		r.Fatal(err)
	}
	return "/" + filepath.Base(path)
}

// files are all that is there of poemq by name, and what the packages' systems of
// others would not clean up for us.
func (r *root) files() (found []string) {
	r.Helper()
	for line := range strings.Lines(r.do("find / -xdev -path /proc -prune -o -path /var/lib/dpkg -prune -o -path '*/rpm' -prune -o -name '*poemq*' -print | sort")) {
		if name := strings.TrimSpace(line); !strings.HasSuffix(name, ".deb") && !strings.HasSuffix(name, ".rpm") {
			found = append(found, name)
		}
	}
	return found
}

// talk has two programs under poemq talk over QUIC in the file system, with the
// programs that the package brought, found where it put them. Their brokers end by
// themselves.
const talk = `
echo "over QUIC" | poemq-launch --quic require -- nc -N -l 127.0.0.1 7000 & server=$!
until grep -q ':1B58 ' /proc/net/udp /proc/net/udp6; do kill -0 $server; done
poemq-launch --quic require -- nc -d 127.0.0.1 7000
wait $server
while pidof poemqd >/dev/null; do :; done
`

// built is the one file in dist that fits the pattern.
func built(t testing.TB, pattern string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(rig.Root(), "dist", pattern))
	if err != nil || len(found) != 1 {
		t.Fatalf("dist/%s: %q, %v; make packages makes it", pattern, found, err)
	}
	return found[0]
}
