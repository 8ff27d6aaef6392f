package faults

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strings"

	"github.com/poemq/poemq/test/rig"
)

// sshd is a server with a key of its own, and what its client sends and expects.
type sshd struct {
	h    *host
	port int
	user string
	file string // the client's standard input
	sum  string // of file
}

// sshServer starts one under the broker; nil: it is not installed. As root the
// login is another user's where there is one, so that sshd drops its privileges.
func (l *load) sshServer() *sshd {
	h := l.h
	h.Helper()
	for _, program := range []string{"sshd", "ssh", "ssh-keygen"} {
		if rig.Find(program) == "" {
			return nil
		}
	}
	s := &sshd{h: h, port: h.FreePort(), user: rig.Owner("postgres")}
	if s.user == "" {
		me, err := user.Current()
		if err != nil {
			h.Fatal(err)
		}
		s.user = me.Username
	}
	s.file, s.sum = h.Random("ssh-input", 200<<10)
	for _, key := range []string{"hostkey", "userkey"} {
		if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", h.Path(key)).CombinedOutput(); err != nil {
			h.Fatalf("ssh-keygen: %v\n%s", err, out)
		}
	}
	public, err := os.ReadFile(h.Path("hostkey.pub"))
	if err != nil {
		h.Fatal(err)
	}
	h.Write("known_hosts", fmt.Sprintf("[127.0.0.1]:%d %s", s.port, public))
	pam := "no"
	if os.Geteuid() == 0 {
		pam = "yes" // else accounts without a password are refused
		// sshd's empty directory, which its service would make.
		if err := os.Mkdir("/run/sshd", 0o755); err == nil {
			h.Cleanup(func() { os.Remove("/run/sshd") })
		} else if !errors.Is(err, os.ErrExist) {
			h.Fatal(err)
		}
	}
	conf := h.Write("sshd_config", fmt.Sprintf(`Port %d
ListenAddress 127.0.0.1
HostKey %s
AuthorizedKeysFile %s
PidFile none
UsePAM %s
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
StrictModes no
PrintMotd no
UseDNS no
`, s.port, h.Path("hostkey"), h.Path("userkey.pub"), pam))
	c := h.Command("sshd", "-D", "-e", "-f", conf)
	c.Broker, c.Flags = h.broker, []string{"--on-broker-missing", "fail"}
	c.Start().Listens(s.port)
	return s
}

// start starts a session whose command reads all of the input, and tells its sum.
func (s *sshd) start() *talker {
	s.h.Helper()
	c := s.h.Command("ssh", "-p", s.port, "-F", "none", "-i", s.h.Path("userkey"), "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes",
		"-o", "UserKnownHostsFile="+s.h.Path("known_hosts"), "-o", "StrictHostKeyChecking=yes", s.user+"@127.0.0.1", "sha256sum")
	c.Broker, c.Flags = s.h.broker, s.h.flags()
	in, err := os.Open(s.file)
	if err != nil {
		s.h.Fatal(err)
	}
	defer in.Close()
	c.Stdin = in
	return &talker{c.Start(), func(said string) bool { return strings.HasPrefix(said, s.sum) }}
}
