package container

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/poemq/poemq/test/rig"
)

// podman is podman with storage of the test's own.
type podman struct {
	*bench
	runtime  string
	rootless bool
	dir      string
}

// nobody is whom rootless containers belong to.
const nobody = 65534

func (p *podman) command(args ...string) *rig.Cmd {
	p.Helper()
	all := []any{"unshare", "-m", "sh", "-c", legacyCgroups + `exec "$@"`, "sh"}
	if p.rootless {
		all = append(all, "setpriv", "--reuid", nobody, "--regid", nobody, "--clear-groups")
	}
	all = append(all, "podman", "--log-level", "error", "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs",
		"--events-backend", "none", "--runtime", p.runtime)
	if !p.rootless {
		all = append(all, "--root", p.dir+"/root", "--runroot", p.dir+"/run", "--tmpdir", p.dir+"/tmp")
	}
	for _, a := range args {
		all = append(all, a)
	}
	c := p.outside(all...)
	c.Env = []string{"HOME=" + p.dir, "XDG_RUNTIME_DIR=" + p.dir + "/run"}
	return c
}

// idle starts a container in the background.
func (p *podman) idle(name, profile string, command []string) {
	p.Helper()
	root := p.rootfs()
	if p.rootless {
		p.tool("chown", "-R", fmt.Sprintf("%d:%d", nobody, nobody), root)
	}
	args := []string{
		"run", "-d", "--name", name, "--network", "none",
		// Else it wants to raise limits, which needs CAP_SYS_RESOURCE.
		"--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000",
		"--security-opt", "seccomp=" + profile,
	}
	if p.rootless && p.runtime == "crun" {
		args = append(args, "--cgroups", "disabled")
	}
	args = append(args, "--rootfs", root)
	c := p.command(append(args, command...)...)
	p.Cleanup(func() { p.command("rm", "-f", "-t", "0", name).Output() })
	c.Output()
}

func (p *podman) netns(name string) string {
	p.Helper()
	return "/proc/" + strings.TrimSpace(p.command("inspect", "-f", "{{.State.Pid}}", name).Output()) + "/ns/net"
}

// endPause ends the process with which rootless podman keeps its namespaces.
func (p *podman) endPause() {
	files, _ := filepath.Glob(p.dir + "/run/libpod/tmp/pause.pid")
	for _, f := range files {
		data, _ := os.ReadFile(f)
		if pid, err := strconv.Atoi(strings.TrimSpace(string(data))); err == nil && pid > 1 {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// TestPodman: unmodified file systems, the engine's profile is ours.
func TestPodman(t *testing.T) {
	for _, c := range []struct {
		runtime  string
		rootless bool
	}{{"runc", false}, {"crun", false}, {"runc", true}, {"crun", true}} {
		name := c.runtime
		if c.rootless {
			name += ", rootless"
		}
		t.Run(name, func(t *testing.T) {
			b := newBench(t, "podman", "conmon", "setpriv", c.runtime)
			p := &podman{bench: b, runtime: c.runtime, rootless: c.rootless, dir: b.Mkdir("podman", "")}
			if c.rootless {
				p.Cleanup(p.endPause)
				p.owned(p.dir, b.Mkdir("podman/run", ""))
			}
			broker := b.StartBroker("host")
			socket := broker.Dir() + "/broker.sock"
			if c.rootless { // as root's group poemq would
				p.owned(socket)
			}
			profile := b.Write("profile.json", b.tool(bin("poemqctl"), "oci-profile", "--listener", socket))
			p.idle("server", profile, server())
			p.idle("client", profile, []string{"sleep", "1000"})
			b.cable(p.netns("server"), p.netns("client"))
			b.serves(p.netns("server"))
			wire := b.listen(p.netns("server"))
			b.fetched(p.command(append([]string{"exec", "client"}, client(addrA)...)...).Output())
			wire.quic()
		})
	}
}

// owned gives files to nobody.
func (p *podman) owned(paths ...string) {
	p.Helper()
	for _, path := range paths {
		if err := os.Chown(path, nobody, nobody); err != nil {
			p.Fatal(err)
		}
	}
	if st, err := os.Stat(paths[len(paths)-1]); err == nil && st.IsDir() {
		_ = os.Chmod(paths[len(paths)-1], 0o700)
	}
}
