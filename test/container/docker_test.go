package container

import (
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/poemq/poemq/test/rig"
	"golang.org/x/sys/unix"
)

// serveLimit is how long an engine may take for something on a busy machine.
const serveLimit = 60 * time.Second

// docker is a dockerd of the test's own.
type docker struct {
	*bench
	host string
}

// startDocker starts dockerd without network of its own, and builds poemq's
// image and one with busybox, "app".
func startDocker(t *testing.T) *docker {
	t.Helper()
	d := &docker{bench: newBench(t, "docker", "dockerd")}
	dir := d.Mkdir("docker", "")
	socket := filepath.Join(dir, "s")
	d.host = "unix://" + socket
	d.Cleanup(func() { d.unmount(dir) }) // after dockerd's end
	daemon := d.outside("dockerd", "--iptables=false", "--bridge=none", "--storage-driver", "vfs",
		"--data-root", filepath.Join(dir, "root"), "--exec-root", filepath.Join(dir, "exec"),
		"--pidfile", filepath.Join(dir, "pid"), "-H", d.host).Start()
	d.Cleanup(d.clear)
	daemon.SaysWithin(serveLimit, "API listen on "+socket)
	d.tool("tar", "-C", d.rootfs(), "-cf", d.Path("app.tar"), ".")
	d.docker("import", d.Path("app.tar"), "app")
	d.build("Dockerfile", "poemq", filepath.Dir(bin("poemqd")))
	return d
}

// unmount takes away what dockerd leaves mounted below dir: the namespace of
// "--network host".
func (d *docker) unmount(dir string) {
	d.Helper()
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		d.Error(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if at := strings.Fields(line)[1]; strings.HasPrefix(at, dir+"/") {
			if err := unix.Unmount(at, unix.MNT_DETACH); err != nil {
				d.Errorf("unmount %s: %v", at, err)
			}
		}
	}
}

// clear takes all containers away, before dockerd ends.
func (d *docker) clear() {
	d.Helper()
	if ids := strings.Fields(d.docker("ps", "-aq")); len(ids) > 0 {
		d.docker(append([]string{"rm", "-f"}, ids...)...)
	}
}

func (d *docker) command(args ...string) *rig.Cmd {
	d.Helper()
	all := []any{"docker", "-H", d.host}
	for _, a := range args {
		all = append(all, a)
	}
	c := d.outside(all...)
	c.Env = []string{"DOCKER_BUILDKIT=0"} // the builder that needs no plugin
	return c
}

// docker runs a command of the client's and returns its output.
func (d *docker) docker(args ...string) string {
	d.Helper()
	return d.command(args...).Output()
}

// build makes an image by a recipe of deploy/container.
func (d *docker) build(recipe, tag, context string, args ...string) {
	d.Helper()
	all := append([]string{"build", "-q", "-t", tag, "-f", filepath.Join(rig.Root(), "deploy/container", recipe)}, args...)
	d.docker(append(all, context)...)
}

// wrapped makes an image of app by a recipe, as its head tells to.
func (d *docker) wrapped(recipe, tag string) {
	d.Helper()
	d.build(recipe, tag, filepath.Join(rig.Root(), "deploy/container"), "--build-arg", "BASE=app")
}

// inspect is a field of a container's state.
func (d *docker) inspect(name, field string) string {
	d.Helper()
	return strings.TrimSpace(d.docker("inspect", "-f", "{{"+field+"}}", name))
}

// netns is the file of a running container's network namespace.
func (d *docker) netns(name string) string {
	d.Helper()
	return "/proc/" + d.inspect(name, ".State.Pid") + "/ns/net"
}

// idle starts a container that waits, with a network namespace of its own.
func (d *docker) idle(name, image string, flags, command []string) {
	d.Helper()
	args := append([]string{"run", "-d", "--network", "none", "--name", name}, flags...)
	d.docker(append(append(args, image), command...)...)
}

// serves waits until a program in the container's namespace has the port in UDP.
func (b *bench) serves(netns string) {
	b.Helper()
	table := strings.TrimSuffix(netns, "ns/net")
	b.Eventually(serveLimit, "the server listens", func() bool {
		for _, t := range []string{"net/udp", "net/udp6"} {
			data, _ := os.ReadFile(table + t)
			if strings.Contains(string(data), fmt.Sprintf(":%04X ", port)) {
				return true
			}
		}
		return false
	})
}

// TestDockerEntrypoint: images made by the recipe, the host's broker, Docker's
// default seccomp profile, no capability added.
func TestDockerEntrypoint(t *testing.T) {
	d := startDocker(t)
	broker := d.StartBroker("host")
	d.wrapped("Dockerfile.entrypoint", "app-quic")
	mount := []string{"-v", broker.Dir() + ":/run/poemq"}
	d.idle("server", "app-quic", mount, server())
	d.idle("client", "app-quic", mount, []string{"sleep", "1000"})
	d.plain("server")
	d.cable(d.netns("server"), d.netns("client"))
	d.serves(d.netns("server"))
	wire := d.listen(d.netns("server"))
	// docker exec does not go by the entrypoint.
	d.fetched(d.docker(append([]string{"exec", "client", "/poemq-launch", "--"}, client(addrA)...)...))
	wire.quic()
	if exe := d.docker("exec", "server", "readlink", "/proc/1/exe"); strings.TrimSpace(exe) != "/bin/busybox" {
		t.Errorf("pid 1 is %s, not the program", exe)
	}
	if n := broker.Status().Sessions; n != 2 {
		t.Errorf("%d sessions at the broker, want the two containers'", n)
	}
	d.stops(mount)
	d.missesBroker()
}

// plain fails the test unless the container is an ordinary one: filtered by
// Docker's default profile, with Docker's default capabilities.
func (d *docker) plain(name string) {
	d.Helper()
	d.docker("run", "-d", "--network", "none", "--name", "ordinary", "app", "sleep", "1000")
	field := func(name, key string) string {
		for line := range strings.Lines(d.docker("exec", name, "cat", "/proc/1/status")) {
			if rest, ok := strings.CutPrefix(line, key+":"); ok {
				return strings.TrimSpace(rest)
			}
		}
		d.Fatalf("no %s in the container's status", key)
		return ""
	}
	if got, want := field(name, "CapBnd"), field("ordinary", "CapBnd"); got != want {
		d.Errorf("the container's capabilities are %s, an ordinary one's %s", got, want)
	}
	if mode := field(name, "Seccomp"); mode != "2" {
		d.Errorf("the container's seccomp mode is %s, not filtered", mode)
	}
	if opts := d.inspect(name, ".HostConfig.SecurityOpt"); opts != "[]" {
		d.Errorf("the container has security options %s", opts)
	}
}

// stops: the program is pid 1 and gets SIGTERM.
func (d *docker) stops(mount []string) {
	d.Helper()
	script := "trap 'echo it is time; exit 7' TERM; echo ready; while :; do sleep 0.1; done"
	d.idle("trap", "app-quic", mount, []string{"sh", "-c", script})
	d.Eventually(serveLimit, "the program is ready", func() bool { return strings.Contains(d.docker("logs", "trap"), "ready") })
	d.docker("stop", "-t", "600", "trap")
	if code, log := d.inspect("trap", ".State.ExitCode"), d.docker("logs", "trap"); code != "7" || !strings.Contains(log, "it is time") {
		d.Errorf("docker stop: exit status %s, output %q", code, log)
	}
}

// missesBroker: a container whose broker is missing does not start, and says why.
func (d *docker) missesBroker() {
	d.Helper()
	p := d.command("run", "--rm", "--network", "none", "app-quic", "true").Run()
	if p.ExitCode() != 125 || !strings.Contains(p.Stderr(), "no broker is running there") {
		d.Errorf("without a broker: exit status %d: %s", p.ExitCode(), p.Stderr())
	}
}

// dynamic makes an image of app with nc, which is linked to the C library.
func (d *docker) dynamic(tag string) {
	d.Helper()
	root := d.rootfs()
	nc := rig.Find("nc")
	d.copy(nc, filepath.Join(root, "bin/nc.real"))
	bring := func(from, to string) {
		if err := os.MkdirAll(filepath.Join(root, filepath.Dir(to)), 0o755); err != nil {
			d.Fatal(err)
		}
		d.copy(from, filepath.Join(root, to))
	}
	for line := range strings.Lines(d.tool("ldd", nc)) {
		for _, word := range strings.Fields(line) {
			if strings.HasPrefix(word, "/") {
				bring(word, word)
				if base := filepath.Base(word); strings.HasPrefix(base, "ld-linux") {
					bring(word, "/lib/x86_64-linux-gnu/"+base) // where Debian has it, too
				}
			}
		}
	}
	d.tool("tar", "-C", root, "-cf", d.Path(tag+".tar"), ".")
	d.docker("import", d.Path(tag+".tar"), tag)
}

// TestDockerLibrary: a broker inside each container, under Docker's default
// profile and with no capability added: the hook library needs no rights over the
// program.
func TestDockerLibrary(t *testing.T) {
	d := startDocker(t)
	d.dynamic("dynamic")
	d.build("Dockerfile.embedded", "dynamic-alone", filepath.Join(rig.Root(), "deploy/container"), "--build-arg", "BASE=dynamic")
	data, err := os.ReadFile(d.file)
	if err != nil {
		t.Fatal(err)
	}
	text := hex.EncodeToString(data)
	flags := []string{"--network", "none", "-e", "POEMQ_VIA=zpoline", "-e", "POEMQ_QUIC=require"}
	serve := d.command(append(append([]string{"run", "-i", "--name", "server"}, flags...), "dynamic-alone", "/bin/nc.real", "-N", "-l", fmt.Sprint(port))...)
	serve.Stdin = strings.NewReader(text)
	server := serve.Start()
	d.docker(append(append([]string{"run", "-d", "--name", "client", "--entrypoint", "/bin/sleep"}, flags...), "dynamic-alone", "1000")...)
	d.Eventually(serveLimit, "the server's container runs", func() bool {
		if !server.Running() {
			t.Fatalf("the server has ended: %s", server.Stderr())
		}
		p := d.command("inspect", "-f", "{{.State.Running}}", "server").Run()
		return strings.TrimSpace(p.Stdout()) == "true"
	})
	d.plain("server")
	d.cable(d.netns("server"), d.netns("client"))
	d.serves(d.netns("server"))
	wire := d.listen(d.netns("server"))
	if got := d.docker("exec", "client", "/poemq-launch", "--", "/bin/nc.real", "-d", addrA, fmt.Sprint(port)); got != text {
		t.Errorf("the client has %d octets that are not the server's %d", len(got), len(text))
	}
	server.Wait(serveLimit)
	wire.quic()
}

// TestDockerEmbedded: a broker inside each container. Docker's default profile
// keeps pidfd_getfd(2) from it, which it says; ours allows it, and so does
// CAP_SYS_PTRACE.
func TestDockerEmbedded(t *testing.T) {
	d := startDocker(t)
	d.wrapped("Dockerfile.embedded", "app-alone")
	p := d.command("run", "--rm", "--network", "none", "app-alone", "true").Run()
	if p.ExitCode() != 125 || !strings.Contains(p.Stderr(), "oci-profile --embedded") {
		t.Errorf("under Docker's default profile: exit status %d: %s", p.ExitCode(), p.Stderr())
	}
	profile := d.Write("embedded.json", d.tool(bin("poemqctl"), "oci-profile", "--embedded"))
	secured := []string{"--security-opt", "seccomp=" + profile}
	d.idle("server", "app-alone", secured, server())
	d.idle("client", "app-alone", []string{"--cap-add", "SYS_PTRACE"}, []string{"sleep", "1000"})
	d.cable(d.netns("server"), d.netns("client"))
	d.serves(d.netns("server"))
	wire := d.listen(d.netns("server"))
	d.fetched(d.docker(append([]string{"exec", "client", "/poemq-launch", "--"}, client(addrA)...)...))
	wire.quic()
}
