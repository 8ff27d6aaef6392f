package packages

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/poemq/poemq/test/rig"
)

// script is the first process of the arm64 machine: it has two programs talk over
// QUIC by a system broker, tells what the kernel counted, and turns it off.
const script = `#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin:/sbin HOME=/
mount -t proc proc /proc
mount -t devtmpfs dev /dev
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
ip link set lo up
uname -srm
poemqd serve 2>/tmp/log &
until poemqctl status >/dev/null 2>&1; do sleep 0.1; done
poemq-launch --quic require -- httpd -f -p 8080 -h /www &
until grep -q ':1F90 ' /proc/net/udp /proc/net/udp6; do sleep 0.1; done
poemq-launch --quic require -- wget -q -O /tmp/got http://127.0.0.1:8080/file && cmp /tmp/got /www/file && echo the same file
grep -E '^(Tcp|Udp): [0-9]' /proc/net/snmp
cat /tmp/log
echo the end
poweroff -f
`

// TestArm64Boots runs the arm64 tarball's programs on a Debian kernel for arm64,
// in an emulated machine: the filter, the notifications and the sockets are that
// kernel's own.
func TestArm64Boots(t *testing.T) {
	r := rig.New(t, "qemu-system-aarch64", "busybox", "gzip")
	c := r.Command(filepath.Join(rig.Root(), "scripts/arm64-tree.sh"), "linux-image-cloud-arm64", "busybox-static")
	c.Outside, c.Limit = true, 10*limit
	if cache := os.Getenv("XDG_CACHE_HOME"); cache != "" {
		c.Env = append(c.Env, "XDG_CACHE_HOME="+cache)
	}
	tree := strings.TrimSpace(c.Output())
	kernels, err := filepath.Glob(tree + "/boot/vmlinuz-*")
	if err != nil || len(kernels) != 1 {
		t.Fatalf("kernels: %q, %v", kernels, err)
	}

	root := r.Mkdir("machine", "")
	for _, d := range []string{"bin", "sbin", "proc", "dev", "run", "tmp", "var/lib", "www"} {
		r.Mkdir("machine/"+d, "")
	}
	dir := unpacked(r, "arm64")
	for from, to := range map[string]string{
		tree + "/bin/busybox": "bin", dir + "/bin/poemq-launch": "bin", dir + "/bin/poemqctl": "bin", dir + "/sbin/poemqd": "sbin",
	} {
		data, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(filepath.Join(root, to, filepath.Base(from)), data, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	r.Random("machine/www/file", 3<<20)
	if err := os.Chmod(r.Write("machine/init", script), 0o755); err != nil {
		t.Fatal(err)
	}
	pack := r.Command("sh", "-ec", `cd "$1" && find . | busybox cpio -o -H newc | gzip -1 >"$2"`, "sh", root, r.Path("initrd"))
	pack.Outside = true
	pack.Output()

	machine := r.Command("qemu-system-aarch64", "-M", "virt", "-cpu", "cortex-a72", "-m", 1024, "-smp", 2, "-nographic", "-no-reboot",
		"-nic", "none", "-kernel", kernels[0], "-initrd", r.Path("initrd"), "-append", "console=ttyAMA0 quiet panic=-1")
	machine.Outside, machine.Limit = true, 5*limit
	said := strings.ReplaceAll(machine.Output(), "\r", "")
	t.Logf("the machine said:\n%s", said)
	for _, want := range []string{"aarch64", "the same file\n", "the end\n"} {
		if !strings.Contains(said, want) {
			t.Errorf("it did not say %q", want)
		}
	}
	counts := map[string][]string{}
	for line := range strings.Lines(said) {
		if name, rest, ok := strings.Cut(line, ": "); ok && (name == "Tcp" || name == "Udp") {
			counts[name] = strings.Fields(rest)
		}
	}
	// The columns of /proc/net/snmp: OutSegs of Tcp, OutDatagrams of Udp.
	if tcp := counts["Tcp"]; len(tcp) < 11 || tcp[10] != "0" {
		t.Errorf("TCP: %q, want no segments", tcp)
	}
	if udp := counts["Udp"]; len(udp) < 4 || udp[3] == "0" {
		t.Errorf("UDP: %q, want datagrams", udp)
	}
}
