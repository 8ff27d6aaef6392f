package container

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/poemq/poemq/test/rig"
	"go.yaml.in/yaml/v3"
)

// daemonSet is what the tests look at in deploy/container/poemq.yaml.
type daemonSet struct {
	Spec struct {
		Template struct{ Spec podSpec }
	}
}

type podSpec struct {
	HostPID         bool `yaml:"hostPID"`
	HostNetwork     bool `yaml:"hostNetwork"`
	SecurityContext securityContext
	InitContainers  []containerSpec `yaml:"initContainers"`
	Containers      []containerSpec
	Volumes         []struct {
		Name     string
		HostPath *struct{ Path string } `yaml:"hostPath"`
	}
}

type containerSpec struct {
	Name            string
	Command, Args   []string
	SecurityContext securityContext `yaml:"securityContext"`
	ReadinessProbe  struct {
		Exec struct{ Command []string }
	} `yaml:"readinessProbe"`
	VolumeMounts []struct {
		Name      string
		MountPath string `yaml:"mountPath"`
	} `yaml:"volumeMounts"`
}

type securityContext struct {
	ReadOnlyRootFilesystem bool `yaml:"readOnlyRootFilesystem"`
	SeccompProfile         struct {
		Type             string
		LocalhostProfile string `yaml:"localhostProfile"`
	} `yaml:"seccompProfile"`
	Capabilities struct{ Drop, Add []string }
}

// manifests reads the file, by kind.
func manifests(t *testing.T) map[string]*yaml.Node {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(rig.Root(), "deploy/container/poemq.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]*yaml.Node{}
	for dec := yaml.NewDecoder(bytes.NewReader(text)); ; {
		var doc yaml.Node
		if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		var head struct{ Kind string }
		if err := doc.Decode(&head); err != nil {
			t.Fatal(err)
		}
		all[head.Kind] = &doc
	}
}

func theDaemonSet(t *testing.T) podSpec {
	t.Helper()
	doc := manifests(t)["DaemonSet"]
	if doc == nil {
		t.Fatal("poemq.yaml has no DaemonSet")
	}
	var ds daemonSet
	if err := doc.Decode(&ds); err != nil {
		t.Fatal(err)
	}
	s := ds.Spec.Template.Spec
	if len(s.Containers) != 1 || len(s.InitContainers) != 1 {
		t.Fatalf("the DaemonSet has %d containers and %d init containers, want one each", len(s.Containers), len(s.InitContainers))
	}
	return s
}

// TestDaemonSetFitsTogether: what its parts say of each other.
func TestDaemonSetFitsTogether(t *testing.T) {
	s := theDaemonSet(t)
	var pod struct {
		Spec struct {
			SecurityContext securityContext `yaml:"securityContext"`
		}
	}
	if err := manifests(t)["Pod"].Decode(&pod); err != nil {
		t.Fatal(err)
	}
	profile := pod.Spec.SecurityContext.SeccompProfile
	wrote := s.InitContainers[0].Command[slices.Index(s.InitContainers[0].Command, "--output")+1]
	if profile.Type != "Localhost" || profile.LocalhostProfile != filepath.Base(wrote) {
		t.Errorf("the pod's profile is %+v, the init container writes %s", profile, wrote)
	}
	paths := map[string]string{}
	for _, v := range s.Volumes {
		if v.HostPath != nil {
			paths[v.Name] = v.HostPath.Path
		}
	}
	// The runtime on the node and the broker mean the same socket.
	if paths["run"] != "/run/poemq" || paths["profiles"] != "/var/lib/kubelet/seccomp" {
		t.Errorf("host paths: %v", paths)
	}
	if !s.HostPID || !s.HostNetwork {
		t.Errorf("hostPID %t, hostNetwork %t, want both", s.HostPID, s.HostNetwork)
	}
	if c := s.Containers[0].ReadinessProbe.Exec.Command; strings.Join(c, " ") != "/poemqctl status" {
		t.Errorf("ready by %q", c)
	}
}

// dockerFlags are the DaemonSet's container as flags of docker run, with dirs in
// place of what it mounts from the host.
func dockerFlags(s podSpec, c containerSpec, dirs map[string]string) (flags []string) {
	if s.HostPID {
		flags = append(flags, "--pid", "host")
	}
	if s.HostNetwork {
		flags = append(flags, "--network", "host")
	}
	if c.SecurityContext.ReadOnlyRootFilesystem {
		flags = append(flags, "--read-only")
	}
	if c.SecurityContext.SeccompProfile.Type == "Unconfined" {
		flags = append(flags, "--security-opt", "seccomp=unconfined")
	}
	for _, capability := range c.SecurityContext.Capabilities.Drop {
		flags = append(flags, "--cap-drop", capability)
	}
	for _, capability := range c.SecurityContext.Capabilities.Add {
		flags = append(flags, "--cap-add", capability)
	}
	for _, m := range c.VolumeMounts {
		if dir := dirs[m.Name]; dir != "" {
			flags = append(flags, "-v", dir+":"+m.MountPath)
		}
	}
	if len(c.Command) > 0 {
		flags = append(flags, "--entrypoint", c.Command[0])
	}
	return flags
}

// TestBrokerInContainer runs the DaemonSet's containers, as they are written
// there, under Docker: the init container writes the profile, the broker comes
// up and says so to the readiness probe, and serves two containers: one that runc
// hands over by that profile, one with poemq-launch for an entrypoint.
func TestBrokerInContainer(t *testing.T) {
	s := theDaemonSet(t)
	d := startDocker(t)
	dirs := map[string]string{"run": d.Mkdir("run", ""), "state": d.Mkdir("state", ""), "profiles": d.Mkdir("profiles", "")}
	first := s.InitContainers[0]
	d.docker(append(append(append([]string{"run", "--rm", "--network", "none"}, dockerFlags(podSpec{}, first, dirs)...), "poemq"), first.Command[1:]...)...)
	written, err := os.ReadFile(filepath.Join(dirs["profiles"], "poemq.json"))
	if err != nil {
		t.Fatal(err)
	}

	c := s.Containers[0]
	d.docker(append(append(append([]string{"run", "-d", "--name", "poemqd"}, dockerFlags(s, c, dirs)...), "poemq"), c.Args...)...)
	ready := append([]string{"exec", "poemqd"}, c.ReadinessProbe.Exec.Command...)
	d.Eventually(serveLimit, "the readiness probe succeeds", func() bool { return d.command(ready...).Run().ExitCode() == 0 })

	d.wrapped("Dockerfile.entrypoint", "app-quic")
	d.idle("server", "app-quic", []string{"-v", dirs["run"] + ":/run/poemq"}, server())
	r := &runtime{bench: d.bench, name: "runc", root: d.Mkdir("state-of-runc", "")}
	two := d.namespace("two")
	d.cable(d.netns("server"), two)
	// The profile names /run/poemq on the node; here that is a directory of ours.
	profile := strings.ReplaceAll(string(written), "/run/poemq/broker.sock", dirs["run"]+"/broker.sock")
	d.serves(d.netns("server"))
	wire := d.listen(two)
	got := r.run("client", r.bundle(two, profile, client(addrA)...))
	got.Wait(serveLimit)
	d.fetched(got.Stdout())
	wire.quic()
}
