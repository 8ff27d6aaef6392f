package network

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/poemq/poemq/test/link"
	"github.com/poemq/poemq/test/rig"
)

// device is what test/link calls the hosts' ends of the path.
const device = "path0"

// move gives the client another address in the place of the one it has.
func (s *stage) move(from, to string) {
	s.Helper()
	for _, argv := range [][]string{
		{"ip", "addr", "del", from, "dev", device},
		{"ip", "addr", "add", to, "dev", device},
	} {
		if err := s.client.Run(argv...); err != nil {
			s.Fatal(err)
		}
	}
}

// The client's address changes in the middle of a transfer, twice: nothing is
// lost, and no program notices.
func TestAddressChange(t *testing.T) {
	size := 8 << 20
	rate := 20e6
	if rig.Long() {
		size, rate = 200<<20, 100e6
	}
	for _, action := range []string{"get", "put"} {
		t.Run(action, func(t *testing.T) {
			s := newPoemqStage(t, link.Params{Delay: 10 * time.Millisecond, Rate: rate})
			server := s.server.serve(s.server.under, "serve", port)
			client := s.client.under(s.peer, action, s.server.at(port), size).Start()
			receiver := client
			if action == "put" {
				receiver = server
			}
			receiver.Says("begun")
			addr := "10.99.0.1/24"
			for i := range 2 {
				passed := s.octets(action) + uint64(size)/4
				s.Eventually(time.Minute, "the transfer goes on", func() bool {
					return s.octets(action) > passed || !client.Running()
				})
				if !client.Running() {
					t.Fatalf("the transfer ended before change %d: %s", i, client.Stdout())
				}
				next := fmt.Sprintf("10.99.0.%d/24", 11+i)
				s.move(addr, next)
				addr = next
			}
			client.Wait(2 * time.Minute)
			said := client.Stdout()
			if result := textOf(t, said, "result"); result != "ok" || numberOf(t, said, "octets") != size {
				t.Fatalf("the transfer ended with %s", said)
			}
			c, flows, _ := s.wire.take()
			if c.tcp != 0 {
				t.Errorf("on the wire: %v; want no TCP", c)
			}
			silence := timeOf(t, receiver.Stdout(), "silence")
			t.Logf("%v, %d flows; silent for at most %v", c, len(flows), silence)
			if silence > 10*time.Second {
				t.Errorf("nothing came for %v", silence)
			}
		})
	}
}

// sshd starts one that lets root in by a key of the test's.
func (h *host) sshd() {
	r := h.stage
	r.Helper()
	for _, key := range []string{"hostkey", "userkey"} {
		if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", r.Path(key)).CombinedOutput(); err != nil {
			r.Fatalf("ssh-keygen: %v\n%s", err, out)
		}
	}
	// sshd's empty directory, which its service would make.
	if err := os.Mkdir("/run/sshd", 0o755); err == nil {
		r.Cleanup(func() { os.Remove("/run/sshd") })
	} else if !errors.Is(err, os.ErrExist) {
		r.Fatal(err)
	}
	conf := r.Write("sshd_config", fmt.Sprintf(`
Port %d
HostKey %s
AuthorizedKeysFile %s
PidFile none
UsePAM yes
PermitRootLogin prohibit-password
StrictModes no
UseDNS no
`, port, r.Path("hostkey"), r.Path("userkey.pub")))
	h.under("/usr/sbin/sshd", "-D", "-e", "-f", conf).Start().Listens(port)
}

// A session of ssh lives through a change of the client's address and through
// a cut of the path.
func TestSSHLivesOn(t *testing.T) {
	cut := long(6*time.Second, 60*time.Second)
	s := newPoemqStage(t, link.Params{Delay: 10 * time.Millisecond}, "sshd", "ssh", "ssh-keygen")
	s.server.sshd()
	ssh := s.client.under("ssh", "-p", port, "-F", "none", "-i", s.Path("userkey"), "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes",
		"-o", "UserKnownHostsFile="+s.Path("known_hosts"), "-o", "StrictHostKeyChecking=accept-new", "root@"+s.server.Addr.String(), "cat")
	ssh.Told = true
	session := ssh.Start()
	echoes := func(limit time.Duration, line string) {
		t.Helper()
		session.Tell(line)
		session.SaysWithin(limit, line)
	}
	echoes(30*time.Second, "at-home")
	s.move("10.99.0.1/24", "10.99.0.11/24")
	echoes(15*time.Second, "elsewhere")
	s.link.Cut(link.Both)
	session.Tell("into-the-dark")
	time.Sleep(cut) // the outage itself
	s.link.Mend(link.Both)
	begin := time.Now()
	session.SaysWithin(15*time.Second, "into-the-dark")
	t.Logf("cut for %v: it went on %v after the path was back", cut, time.Since(begin).Round(time.Millisecond))
	echoes(15*time.Second, "back-again")
	if c, _, _ := s.wire.take(); c.tcp != 0 {
		t.Errorf("on the wire: %v; want no TCP", c)
	}
	session.Stop()
}
