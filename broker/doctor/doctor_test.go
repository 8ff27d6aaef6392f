package doctor

import (
	"context"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	asDoctor = "TEST_AS_DOCTOR" // has the test binary print a report
	asChild  = "TEST_AS_CHILD"  // and wait for the end of its standard input
)

func TestMain(m *testing.M) {
	switch {
	case os.Getenv(asChild) != "":
		_, _ = os.Stdin.Read(make([]byte, 1))
	case os.Getenv(asDoctor) != "":
		os.Unsetenv(asDoctor)
		os.Setenv(asChild, "1")
		r := Run(context.Background(), Options{Control: "/nowhere/control.sock", Peers: os.Args[1:], Child: []string{os.Args[0]}})
		_ = json.NewEncoder(os.Stdout).Encode(r)
	default:
		os.Exit(m.Run())
	}
}

// run has a process of its own look, for the filter is for good in a thread, and
// another user may be asked for.
func run(t *testing.T, cred *syscall.Credential, peers ...string) map[string]Check {
	t.Helper()
	dir, err := os.MkdirTemp("", "pq")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	self, err := os.ReadFile(os.Args[0])
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "doctor"), self, 0o755)
	}
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, filepath.Join(dir, "doctor"), peers...)
	c.Env = []string{asDoctor + "=1", "HOME=/nowhere", "POEMQ_STATE_DIR=" + filepath.Join(dir, "state")}
	c.SysProcAttr = &syscall.SysProcAttr{Credential: cred}
	out, err := c.Output()
	if err != nil {
		t.Fatal(err)
	}
	var r Report
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if r.OK+r.Warn+r.Fail != len(r.Checks) {
		t.Errorf("%d ok, %d warn, %d fail of %d", r.OK, r.Warn, r.Fail, len(r.Checks))
	}
	all := map[string]Check{}
	for _, c := range r.Checks {
		t.Logf("%s  %s: %s %s", c.State, c.Name, c.Found, c.Do)
		if c.Found == "" || c.State == OK && c.Do != "" || c.State == Fail && c.Do == "" {
			t.Errorf("%+v", c)
		}
		if _, twice := all[c.Name]; twice {
			t.Errorf("%s comes twice", c.Name)
		}
		all[c.Name] = c
	}
	return all
}

var always = []string{
	"kernel", "seccomp USER_NOTIF", "seccomp CONTINUE", "seccomp ADDFD", "seccomp ADDFD_SEND", "seccomp SYNC_WAKE_UP",
	"access to programs", "ptrace scope", "capabilities", "container", "open files", "UDP buffers", "UDP GSO and GRO", "port 443/udp", "system broker", "state directory",
}

func TestAsWhoWeAre(t *testing.T) {
	all := run(t, nil)
	for _, name := range always {
		if _, there := all[name]; !there {
			t.Errorf("no %s", name)
		}
	}
	// What the other tests stand on.
	for _, name := range []string{"seccomp USER_NOTIF", "seccomp CONTINUE", "seccomp ADDFD", "seccomp ADDFD_SEND", "access to programs", "system broker", "state directory"} {
		if all[name].State != OK {
			t.Errorf("%+v", all[name])
		}
	}
}

func TestAsOrdinaryUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to be somebody else")
	}
	all := run(t, &syscall.Credential{Uid: 65534, Gid: 65534})
	if c := all["capabilities"]; c.State != OK || !strings.Contains(c.Found, "private broker") {
		t.Errorf("%+v", c)
	}
	if c := all["state directory"]; c.State != Warn {
		t.Errorf("%+v", c) // that of the test belongs to root
	}
	if c := all["seccomp ADDFD_SEND"]; c.State != OK {
		t.Errorf("%+v", c)
	}
}

// TestPeers asks one that is closed, one that is silent and one that is no QUIC.
func TestPeers(t *testing.T) {
	silent, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	other, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	go func() {
		buf := make([]byte, 2000)
		for {
			_, from, err := other.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = other.WriteTo([]byte("hello"), from)
		}
	}()
	closed, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	peers := []string{silent.LocalAddr().String(), other.LocalAddr().String(), closed.LocalAddr().String()}
	all := run(t, nil, peers...)
	for i, want := range []struct {
		state State
		found string
	}{{Fail, "no answer"}, {Warn, "not QUIC"}, {Fail, "closed"}} {
		if c := all["QUIC at "+peers[i]]; c.State != want.state || !strings.Contains(c.Found, want.found) {
			t.Errorf("%+v, want %+v", c, want)
		}
	}
}

// TestUnknownVersion: the packet is a long header with both connection IDs.
func TestUnknownVersion(t *testing.T) {
	b := unknownVersion()
	if len(b) != 1200 || b[0]&0xc0 != 0xc0 || b[1]&0x0f != 0x0a || b[5] != 8 || b[14] != 8 {
		t.Errorf("% x", b[:24])
	}
}
