package packages

import (
	"debug/elf"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/poemq/poemq/test/rig"
)

// unpacked is a tarball's directory.
func unpacked(r *rig.Rig, arch string) string {
	r.Helper()
	to := r.Mkdir("unpacked-"+arch, "")
	c := r.Command("tar", "-C", to, "-xzf", built(r, "poemq-*-linux-"+arch+".tar.gz"))
	c.Outside = true
	c.Output()
	found, err := filepath.Glob(to + "/*")
	if err != nil || len(found) != 1 {
		r.Fatalf("the tarball has %q at its top, %v", found, err)
	}
	return found[0]
}

var programs = map[string]string{"poemq-launch": "bin", "poemqctl": "bin", "poemqd": "sbin"}

// TestTarballs: all programs are static and of the right machine.
func TestTarballs(t *testing.T) {
	r := rig.New(t, "tar")
	for arch, machine := range map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64} {
		dir := unpacked(r, arch)
		for name, in := range programs {
			f, err := elf.Open(filepath.Join(dir, in, name))
			if err != nil {
				t.Fatal(err)
			}
			if f.Machine != machine {
				t.Errorf("%s %s is for %v", arch, name, f.Machine)
			}
			for _, p := range f.Progs {
				if p.Type == elf.PT_INTERP {
					t.Errorf("%s %s is not static", arch, name)
				}
			}
			f.Close()
		}
	}
}

// TestTarballRuns: it works where it is unpacked, on a machine of its kind in an
// empty file system, too.
func TestTarballRuns(t *testing.T) {
	r := rig.New(t, "tar", "nc")
	dir := unpacked(r, "amd64")
	port := r.Port()
	launch := filepath.Join(dir, "bin/poemq-launch")
	run := func(args ...any) *rig.Cmd {
		c := r.Command(append([]any{launch, "--quic", "require", "--"}, args...)...)
		c.Outside = true
		return c
	}
	server := run("sh", "-c", "echo hello | exec nc -N -l 127.0.0.1 "+itoa(port)).Start()
	r.Eventually(limit, "nc listens", func() bool { return udpOpen(port) })
	if out := run("nc", "-d", "127.0.0.1", port).Output(); out != "hello\n" {
		t.Errorf("the client got %q", out)
	}
	server.Wait(limit)
	if os.Geteuid() != 0 {
		t.Skip("an empty file system needs root")
	}
	for name, in := range programs {
		c := r.Command("chroot", dir, "/"+in+"/"+name, "--version")
		c.Outside = true
		if out := c.Output(); !strings.Contains(out, name) {
			t.Errorf("%s --version in an empty file system: %q", name, out)
		}
	}
}

// TestTarballArm64 runs the arm64 programs as far as an emulated processor goes:
// the socket calls are another kernel's, so nothing is carried here.
func TestTarballArm64(t *testing.T) {
	r := rig.New(t, "tar", "qemu-aarch64-static")
	dir := unpacked(r, "arm64")
	emulated := func(args ...any) string {
		c := r.Command(append([]any{"qemu-aarch64-static"}, args...)...)
		c.Outside = true
		return c.Output()
	}
	for name, in := range programs {
		if out := emulated(filepath.Join(dir, in, name), "--version"); !strings.Contains(out, name) {
			t.Errorf("%s --version: %q", name, out)
		}
	}
	if out := emulated(filepath.Join(dir, "bin/poemq-launch"), "--quic", "off", "--", "/bin/echo", "hello"); out != "hello\n" {
		t.Errorf("poemq-launch ran echo: %q", out)
	}
	if out := emulated(filepath.Join(dir, "sbin/poemqd"), "--print-config"); !strings.Contains(out, "[policy]") {
		t.Errorf("poemqd --print-config: %q", out)
	}
	if out := emulated(filepath.Join(dir, "bin/poemqctl"), "oci-profile", "--format", "oci"); !strings.Contains(out, "SCMP_ARCH_AARCH64") {
		t.Error("the profile is not for arm64")
	}
}
