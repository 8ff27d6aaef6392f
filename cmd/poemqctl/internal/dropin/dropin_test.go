package dropin

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestLaunched(t *testing.T) {
	const launch = "/usr/bin/poemq-launch --on-broker-missing fail"
	o := Options{Launch: "/usr/bin/poemq-launch"}
	for _, tc := range []struct{ value, want string }{
		{"/usr/sbin/nginx -g 'daemon on; master_process on;'", launch + " -- /usr/sbin/nginx -g 'daemon on; master_process on;'"},
		{"-/bin/a b", "-" + launch + " -- /bin/a b"},
		{"+/bin/a", "+" + launch + " -- /bin/a"},
		{"!!-:/bin/a $X ${Y} %n", "!!-:" + launch + " -- /bin/a $X ${Y} %n"},
		{"@/bin/a name x", launch + " --argv0 name -- /bin/a x"},
		{`-@"/opt/a b/c" "my name" 'x  y'`, "-" + launch + ` --argv0 "my name" -- "/opt/a b/c" 'x  y'`},
		{`/bin/sh -c "echo \"a; b\"; c"`, launch + ` -- /bin/sh -c "echo \"a; b\"; c"`},
		{"nginx", launch + " -- nginx"},
	} {
		got := commands(tc.value)
		if len(got) != 1 {
			t.Errorf("%s: %d commands", tc.value, len(got))
			continue
		}
		if l := launched(got[0], o); l != tc.want {
			t.Errorf("%s\n got %s\nwant %s", tc.value, l, tc.want)
		}
	}
	if got := commands(`/bin/a x ; -/bin/b \; y ;`); len(got) != 2 || got[0].rest != "x" || got[1].prefix != "-" || got[1].rest != `\; y` {
		t.Errorf("%+v", got)
	}
}

func TestText(t *testing.T) {
	u := Unit{
		Name: "web.service", ExecStart: []string{"-/usr/sbin/web -f"},
		Properties: map[string]string{
			"Type": "notify", "User": "www-data", "RestrictAddressFamilies": "AF_INET AF_INET6", "SystemCallFilter": "read write execve memfd_create",
			"IPAddressDeny": "::/0", "NoNewPrivileges": "no", "Sockets": "web.socket",
		},
	}
	got, notes, err := Text(u, Options{Launch: "/usr/bin/poemq-launch", Quic: "require"})
	if err != nil {
		t.Fatal(err)
	}
	want := `# Written by poemqctl enable; poemqctl disable web.service removes it.
[Unit]
Wants=poemq.socket
After=poemq.socket

[Service]
# Without the first line they would be added to those of the unit.
ExecStart=
ExecStart=-/usr/bin/poemq-launch --on-broker-missing fail --quic require -- /usr/sbin/web -f
# poemq-launch reaches the broker by a UNIX socket.
RestrictAddressFamilies=AF_UNIX
# poemq-launch loads its own filter before the program starts.
SystemCallFilter=seccomp
# The broker's socket is for this group.
SupplementaryGroups=poemq
`
	if rest, ok := strings.CutPrefix(got, want); !ok {
		t.Error(cmp.Diff(want, got))
	} else if n := strings.Count(rest, "# Note: "); n != len(notes) || n != 3 {
		t.Errorf("%d notes of %d in the file:\n%s", n, len(notes), rest)
	}
}

func TestNothingToRelax(t *testing.T) {
	for _, p := range []map[string]string{
		{},
		{"User": "root", "RestrictNetworkInterfaces": "~"},
		{"RestrictAddressFamilies": "AF_UNIX AF_INET", "SystemCallFilter": "~mount reboot"},
		{"User": "a", "SupplementaryGroups": "x poemq", "NoNewPrivileges": "yes", "SystemCallFilter": "seccomp memfd_create"},
	} {
		if lines, notes := relax(Unit{Properties: p}, Options{}); len(lines)+len(notes) != 0 {
			t.Errorf("%v: %v, %v", p, lines, notes)
		}
	}
	if lines, _ := relax(Unit{Properties: map[string]string{"SystemCallFilter": "~seccomp:EPERM", "RestrictAddressFamilies": "~AF_UNIX"}}, Options{}); len(lines) != 2 {
		t.Errorf("what is denied stays denied: %v", lines)
	}
}

func TestRefusals(t *testing.T) {
	for _, u := range []Unit{
		{Name: "none.service"},
		{Name: "twice.service", ExecStart: []string{"-/usr/bin/poemq-launch -- /bin/a"}},
		{Name: "two.service", ExecStart: []string{"/bin/a ; /bin/b"}, Properties: map[string]string{"Type": "simple"}},
	} {
		if text, _, err := Text(u, Options{Launch: "/usr/bin/poemq-launch"}); err == nil {
			t.Errorf("%s: no error, but\n%s", u.Name, text)
		}
	}
	for _, name := range []string{"", "a b", "../x", "ssh.socket", "poemq", "poemq.service"} {
		if got, err := Name(name); err == nil {
			t.Errorf("%q is taken for %s", name, got)
		}
	}
	for name, want := range map[string]string{"nginx": "nginx.service", "a.b@c": "a.b@c.service", "x.service": "x.service"} {
		if got, err := Name(name); err != nil || got != want {
			t.Errorf("%q: %s, %v", name, got, err)
		}
	}
}
