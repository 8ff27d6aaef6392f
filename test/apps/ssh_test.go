package apps

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/poemq/poemq/test/rig"
)

// sshSite is an sshd with keys of its own and what a client needs to get in.
type sshSite struct {
	rig    *rig.Rig
	port   int
	user   string // whom the client logs in as
	remote string // a directory that user owns
	server *rig.Proc
}

// startSSHD starts sshd. As root the login is another user's, so that sshd
// drops its privileges for the session as it does in real life.
func startSSHD(r *rig.Rig) *sshSite {
	r.Helper()
	s := &sshSite{rig: r, port: r.Port(), user: rig.Owner("postgres")}
	s.remote = r.Mkdir("remote", s.user)
	pam := "no"
	if s.user != "" {
		pam = "yes" // else sshd refuses an account without a password
	}
	if s.user == "" {
		me, err := user.Current()
		if err != nil {
			r.Fatal(err)
		}
		s.user = me.Username
	}
	for _, key := range []string{"hostkey", "userkey"} {
		if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", r.Path(key)).CombinedOutput(); err != nil {
			r.Fatalf("ssh-keygen: %v\n%s", err, out)
		}
	}
	if os.Geteuid() == 0 {
		// sshd's empty directory, which its service would make.
		if err := os.Mkdir("/run/sshd", 0o755); err == nil {
			r.Cleanup(func() { os.Remove("/run/sshd") })
		} else if !errors.Is(err, os.ErrExist) {
			r.Fatal(err)
		}
	}
	conf := r.Write("sshd_config", fmt.Sprintf(`
Port %d
ListenAddress 127.0.0.1
HostKey %s
AuthorizedKeysFile %s
PidFile none
UsePAM %s
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitUserEnvironment no
PrintMotd no
UseDNS no
LogLevel VERBOSE
Subsystem sftp internal-sftp
`, s.port, r.Path("hostkey"), r.Path("userkey.pub"), pam))
	s.server = r.Command("sshd", "-D", "-e", "-f", conf).Start()
	s.server.Listens(s.port)
	return s
}

// options are what ssh and scp share; they call the port by different letters.
func (s *sshSite) options(port string) []any {
	return []any{
		port, s.port, "-F", "none", "-i", s.rig.Path("userkey"), "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes",
		"-o", "UserKnownHostsFile=" + s.rig.Path("known_hosts"), "-o", "StrictHostKeyChecking=accept-new",
	}
}

func (s *sshSite) ssh(flags []any, command ...any) *rig.Cmd {
	args := append([]any{"ssh"}, s.options("-p")...)
	args = append(append(args, flags...), s.user+"@127.0.0.1")
	return s.rig.Command(append(args, command...)...)
}

func TestSSH(t *testing.T) {
	r := rig.New(t, "sshd", "ssh", "scp", "ssh-keygen")
	s := startSSHD(r)

	names := strings.Fields(s.ssh(nil, "echo $SSH_CONNECTION").Output())
	if len(names) != 4 || names[0] != "127.0.0.1" || names[1] == "0" || names[2] != "127.0.0.1" || names[3] != fmt.Sprint(s.port) {
		t.Errorf("SSH_CONNECTION is %q", names)
	}
	if got := strings.TrimSpace(s.ssh(nil, "id", "-un").Output()); got != s.user {
		t.Errorf("logged in as %q, want %q", got, s.user)
	}
	if code := s.ssh(nil, "exit 7").Run().ExitCode(); code != 7 {
		t.Errorf("the command exited with 7, ssh with %d", code)
	}
	if os.Geteuid() == 0 { // only root's sshd may give a terminal away
		if got := s.ssh([]any{"-tt"}, "tty").Output(); !strings.HasPrefix(got, "/dev/pts/") {
			t.Errorf("a terminal was asked for, got %q", got)
		}
	}

	file, sum := r.Random("file", bigFile)
	in, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	count := s.ssh(nil, "sha256sum")
	count.Stdin = in
	if got := strings.Fields(count.Output())[0]; got != sum {
		t.Errorf("20 MiB through ssh: checksum %s, want %s", got, sum)
	}

	scp := func(from, to string) {
		t.Helper()
		r.Command(append(append([]any{"scp", "-q"}, s.options("-P")...), from, to)...).Output()
	}
	there := s.user + "@127.0.0.1:" + s.remote + "/file"
	scp(file, there)
	scp(there, r.Path("back"))
	for _, path := range []string{filepath.Join(s.remote, "file"), r.Path("back")} {
		if got := r.Sum(path); got != sum {
			t.Errorf("%s copied by scp: checksum %s, want %s", path, got, sum)
		}
	}
}

// What both sides print about addresses.
func TestSSHPrintsTheAddresses(t *testing.T) {
	r := rig.New(t, "sshd", "ssh", "ssh-keygen")
	s := startSSHD(r)
	client := s.ssh([]any{"-v"}, "true").Run()
	if code := client.ExitCode(); code != 0 {
		t.Errorf("ssh -v exited with %d", code)
	}
	for _, line := range []string{
		fmt.Sprintf("debug1: Connecting to 127.0.0.1 [127.0.0.1] port %d.", s.port),
		"debug1: Connection established.",
		fmt.Sprintf("Authenticated to 127.0.0.1 ([127.0.0.1]:%d) using", s.port),
	} {
		if !strings.Contains(client.Stderr(), line) {
			t.Errorf("ssh -v does not print %q:\n%s", line, client.Stderr())
		}
	}
	m := regexp.MustCompile(fmt.Sprintf(`Connection from 127\.0\.0\.1 port ([1-9]\d*) on 127\.0\.0\.1 port %d `, s.port)).FindStringSubmatch(s.server.Stderr())
	if m == nil {
		t.Fatalf("sshd does not know its client:\n%s", s.server.Stderr())
	}
	s.server.Says(fmt.Sprintf("Accepted publickey for %s from 127.0.0.1 port %s ssh2", s.user, m[1]))
}

// rsync speaks over ssh's pipes: the socket is a grandchild's on one side and
// a privilege-separated child's on the other.
func TestRsyncOverSSH(t *testing.T) {
	r := rig.New(t, "sshd", "ssh", "rsync", "ssh-keygen")
	s := startSSHD(r)
	want := make(map[string]string)
	for i := range 200 {
		name := fmt.Sprintf("tree/%d/%d", i%10, i)
		r.Write(name, "")
		_, sum := r.Random(name, int64(i*500))
		want[strings.TrimPrefix(name, "tree/")] = sum
	}
	_, want["big"] = r.Random("tree/big", 5<<20)

	words := []string{"ssh"}
	for _, o := range s.options("-p") {
		words = append(words, fmt.Sprint(o))
	}
	rsync := func(from, to string) {
		t.Helper()
		r.Command("rsync", "-a", "--no-owner", "--no-group", "-e", strings.Join(words, " "), from, to).Output()
	}
	host := s.user + "@127.0.0.1:"
	rsync(r.Path("tree")+"/", host+s.remote+"/tree/")
	rsync(host+s.remote+"/tree/", r.Path("back")+"/")
	for name, sum := range want {
		for _, dir := range []string{s.remote + "/tree", r.Path("back")} {
			if got := r.Sum(filepath.Join(dir, name)); got != sum {
				t.Errorf("%s/%s: checksum %s, want %s", dir, name, got, sum)
			}
		}
	}
}
