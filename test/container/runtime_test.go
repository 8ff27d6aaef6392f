package container

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/poemq/poemq/test/link"
	"github.com/poemq/poemq/test/rig"
)

// runtime is runc or crun.
type runtime struct {
	*bench
	name string
	root string // its state
}

// command prepares the runtime's own command.
func (r *runtime) command(args ...string) *rig.Cmd {
	r.Helper()
	all := []any{"unshare", "-m", "sh", "-c", legacyCgroups + `exec "$@"`, "sh", r.name, "--root", r.root}
	for _, a := range args {
		all = append(all, a)
	}
	return r.outside(all...)
}

// legacyCgroups has crun see the old cgroups alone on a machine with both kinds,
// which it refuses ("cgroups in hybrid mode not supported"). Nothing on
// containers depends on them here. It is for a mount namespace of its own.
const legacyCgroups = "[ ! -e /sys/fs/cgroup/unified/cgroup.controllers ] || umount /sys/fs/cgroup/unified; "

// bundle makes the directory of a container that runs args in a network
// namespace, under our profile for the runtime.
func (r *runtime) bundle(netns, profile string, args ...string) string {
	r.Helper()
	root := r.rootfs()
	dir := r.Mkdir(filepath.Base(root)+"-bundle", "")
	var seccomp specs.LinuxSeccomp
	if err := json.Unmarshal([]byte(profile), &seccomp); err != nil {
		r.Fatal(err)
	}
	caps := []string{"CAP_NET_BIND_SERVICE", "CAP_KILL"}
	spec := specs.Spec{
		Version: "1.0.2",
		Root:    &specs.Root{Path: root, Readonly: true},
		Process: &specs.Process{
			Args: args, Cwd: "/", Env: []string{"PATH=/bin"}, NoNewPrivileges: true,
			Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
		},
		Hostname: "box",
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "mode=755"}},
			{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "nodev", "mode=1777"}},
		},
		Linux: &specs.Linux{
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace},
				{Type: specs.MountNamespace},
				{Type: specs.IPCNamespace},
				{Type: specs.UTSNamespace},
				{Type: specs.NetworkNamespace, Path: netns},
			},
			Seccomp: &seccomp,
		},
	}
	text, err := json.Marshal(spec)
	if err != nil {
		r.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), text, 0o644); err != nil {
		r.Fatal(err)
	}
	return dir
}

// run starts a container; the test's end deletes it.
func (r *runtime) run(id, bundle string) *rig.Proc {
	r.Helper()
	p := r.command("run", "--bundle", bundle, id).Start()
	r.Cleanup(func() {
		r.command("delete", "--force", id).Run() // its "run" may have deleted it first
		p.Wait(serveLimit)
	})
	return p
}

// profile is what poemqctl prints for the broker, for this runtime.
func (r *runtime) profile(b *rig.Broker, flags ...any) string {
	r.Helper()
	args := append([]any{bin("poemqctl"), "oci-profile", "--format", "oci", "--cap", "CAP_NET_BIND_SERVICE", "--listener", b.Dir() + "/broker.sock"}, flags...)
	return r.tool(args...)
}

// namespace makes a network namespace and returns its file's path.
func (b *bench) namespace(name string) string {
	b.Helper()
	h, err := link.NewHost(name)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(h.Close)
	f, err := h.Namespace()
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { f.Close() })
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd())
}

// TestAgent: unmodified images, the runtime hands the containers' calls over.
func TestAgent(t *testing.T) {
	for _, name := range []string{"runc", "crun"} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, name)
			r := &runtime{bench: b, name: name, root: b.Mkdir("state-of-"+name, "")}
			broker := b.StartBroker("host")
			one, two := b.namespace("one"), b.namespace("two")
			b.cable(one, two)
			profile := r.profile(broker)
			r.run("server", r.bundle(one, profile, server()...))
			r.run("client", r.bundle(two, profile, "sleep", "1000"))
			b.portOpens(one)
			b.Eventually(serveLimit, "both containers are sessions", func() bool { return broker.Status().Sessions == 2 })

			// A process that is brought into the container has a listener of its own.
			wire := b.listen(one)
			fetch := r.command(append([]string{"exec", "client"}, client(addrA)...)...).Run()
			if fetch.ExitCode() != 0 {
				t.Fatalf("exec: %s", fetch.Stderr())
			}
			b.fetched(fetch.Stdout())
			wire.quic()
			b.Eventually(serveLimit, "the brought process's session has ended", func() bool { return broker.Status().Sessions == 2 })

			r.confined()
			r.flags(two, broker)
		})
	}
}

// portOpens waits until somebody has the servers' port in UDP in a namespace.
func (b *bench) portOpens(netns string) {
	b.Helper()
	b.Eventually(serveLimit, "the server listens", func() bool {
		udp := b.tool("nsenter", "--net="+netns, "cat", "/proc/net/udp", "/proc/net/udp6")
		return strings.Contains(udp, fmt.Sprintf(":%04X ", port))
	})
}

// confined: the container cannot reach what its network namespace cannot, though
// the broker, which makes its connections, could: a server beside the broker on
// loopback, with poemq and without, and an address outside.
func (r *runtime) confined() {
	r.Helper()
	host := r.StartBroker("neighbour")
	for name, outside := range map[string]bool{"under poemq": false, "of the kernel's TCP": true} {
		c := r.Command("busybox", "httpd", "-f", "-p", fmt.Sprintf("127.0.0.1:%d", r.FreePort()), "-h", r.Dir)
		c.Broker, c.Outside = host, outside
		near := c.Args[4]
		_, number, _ := strings.Cut(near, ":")
		var n int
		fmt.Sscan(number, &n)
		c.Start().Listens(n)
		p := r.command("exec", "client", "wget", "-q", "-O", "-", "http://"+near+"/file").Run()
		if p.ExitCode() == 0 || !strings.Contains(p.Stderr(), "refused") {
			r.Errorf("a server %s on the host's loopback, from the container: exit status %d, %s", name, p.ExitCode(), p.Stderr())
		}
	}
	const documentation = "192.0.2.1" // RFC 5737
	p := r.command("exec", "client", "wget", "-q", "-O", "-", "http://"+documentation+"/").Run()
	if p.ExitCode() == 0 || !strings.Contains(p.Stderr(), "unreachable") {
		r.Errorf("an address that no route leads to: exit status %d, %s", p.ExitCode(), p.Stderr())
	}
}

// flags: the profile without flags works everywhere (it did, above); with a flag,
// an old runc refuses the container, all others take it.
func (r *runtime) flags(netns string, b *rig.Broker) {
	r.Helper()
	bundle := r.bundle(netns, r.profile(b, "--flag", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"), "true")
	p := r.command("run", "--bundle", bundle, "flagged").Run()
	refused := strings.Contains(p.Stderr(), "seccomp flags are not yet supported")
	if p.ExitCode() != 0 && !refused {
		r.Errorf("with a flag: exit status %d: %s", p.ExitCode(), p.Stderr())
	}
	r.Logf("%s and a profile with a flag: exit status %d %s", r.name, p.ExitCode(), p.Stderr())
}
