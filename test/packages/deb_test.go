package packages

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// limit is how long one step may take on a busy machine.
const limit = 2 * time.Minute

// older makes a package of an earlier version of the same files.
func (r *root) older(deb string) string {
	r.Helper()
	tree := r.Path("older")
	r.tool("dpkg-deb", "-R", deb, tree)
	control := filepath.Join(tree, "DEBIAN/control")
	text, err := os.ReadFile(control)
	if err != nil {
		r.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	for i := range lines {
		if strings.HasPrefix(lines[i], "Version:") {
			lines[i] = "Version: 0.0.1-1"
		}
	}
	if err := os.WriteFile(control, []byte(strings.Join(lines, "\n")), 0o644); err != nil {
		r.Fatal(err)
	}
	to := r.Path("poemq_0.0.1-1_amd64.deb")
	r.tool("dpkg-deb", "-Znone", "-b", tree, to)
	return to
}

func (r *root) tool(args ...any) string {
	r.Helper()
	c := r.Command(args...)
	c.Outside = true
	c.Env = []string{"TMPDIR=/tmp"} // rpm uses it inside the root
	return c.Output()
}

func TestDeb(t *testing.T) {
	r := newRoot(t, "dpkg-deb")
	before := r.files()
	deb := built(t, "poemq_*_amd64.deb")
	r.do("dpkg -i " + r.bring(r.older(deb)))

	// What an administrator and a broker leave there.
	const mine = "[policy]\ndefault = \"require\"\n"
	r.put("etc/poemq/poemq.toml", mine)
	r.do("mkdir -p /var/lib/poemq && echo key >/var/lib/poemq/identity.pem")

	r.do("dpkg -i " + r.bring(deb))
	if v := r.do("dpkg-query -W -f '${Version}' poemq"); strings.HasPrefix(v, "0.0.1-1") {
		t.Errorf("the version is still %s", v)
	}
	if changed := r.do("dpkg --verify poemq"); changed != "" {
		t.Errorf("files are not as packaged:\n%s", changed)
	}
	if got := r.read("etc/poemq/poemq.toml"); got != mine {
		t.Errorf("the upgrade changed the configuration to %q", got)
	}
	r.read("var/lib/poemq/identity.pem")
	r.read("usr/share/man/man8/poemqd.8.gz")
	if _, err := os.Stat(filepath.Join(r.dir, "usr/lib/sysusers.d/poemq.conf")); err == nil {
		r.do("getent passwd poemq && getent group poemq")
		r.do("systemctl is-enabled poemq.socket")
	}
	r.do("rm /etc/poemq/poemq.toml /var/lib/poemq/identity.pem")
	if out := r.do(talk); !strings.Contains(out, "over QUIC") {
		t.Errorf("the installed programs said %q", out)
	}
	r.put("etc/poemq/poemq.toml", mine)
	r.do("touch /var/lib/poemq/identity.pem")

	r.do("dpkg -r poemq")
	left := slices.DeleteFunc(r.files(), func(f string) bool { return slices.Contains(before, f) })
	for _, keep := range []string{"/etc/poemq", "/etc/poemq/poemq.toml", "/var/lib/poemq"} {
		if i := slices.Index(left, keep); i < 0 {
			t.Errorf("removing took %s with it", keep)
		} else {
			left = slices.Delete(left, i, i+1)
		}
	}
	if len(left) > 0 && !slices.Equal(left, []string{"/etc/poemq/poemq.d"}) {
		t.Errorf("left after removing: %q", left)
	}

	r.do("dpkg -P poemq")
	left = slices.DeleteFunc(r.files(), func(f string) bool { return slices.Contains(before, f) })
	if len(left) > 0 {
		t.Errorf("left after purging: %q", left)
	}
}

func (r *root) put(name, text string) {
	r.Helper()
	if err := os.WriteFile(filepath.Join(r.dir, name), []byte(text), 0o644); err != nil {
		r.Fatal(err)
	}
}

func (r *root) read(name string) string {
	r.Helper()
	text, err := os.ReadFile(filepath.Join(r.dir, name))
	if err != nil {
		r.Error(err)
	}
	return string(text)
}

func TestRPM(t *testing.T) {
	r := newRoot(t, "rpm")
	before := r.files()
	rpm := built(t, "poemq-*.x86_64.rpm")
	// Debian's database is dpkg's: rpm knows of no /bin/sh there.
	r.tool("rpm", "--root", r.dir, "--dbpath", "/var/lib/rpm", "--nodeps", "-i", rpm)
	r.tool("rpm", "--root", r.dir, "--dbpath", "/var/lib/rpm", "-q", "poemq")
	r.put("etc/poemq/poemq.toml", "[policy]\n")
	if out := r.do(talk); !strings.Contains(out, "over QUIC") {
		t.Errorf("the installed programs said %q", out)
	}
	// The same again is an upgrade to it: the scripts see 2, then 1.
	r.tool("rpm", "--root", r.dir, "--dbpath", "/var/lib/rpm", "--nodeps", "-U", "--replacepkgs", rpm)
	if out := r.tool("rpm", "--root", r.dir, "--dbpath", "/var/lib/rpm", "-V", "--nodeps", "poemq"); strings.TrimSpace(out) != "" {
		t.Errorf("files are not as packaged:\n%s", out)
	}
	r.do("rm -r /var/lib/poemq /etc/poemq/poemq.toml")
	r.tool("rpm", "--root", r.dir, "--dbpath", "/var/lib/rpm", "--nodeps", "-e", "poemq")
	if left := slices.DeleteFunc(r.files(), func(f string) bool { return slices.Contains(before, f) }); len(left) > 0 {
		t.Errorf("left after erasing: %q", left)
	}
}
