package notify

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

func TestReach(t *testing.T) {
	if err := Reach(os.Getpid()); err != nil {
		t.Errorf("ourselves: %v", err)
	}
	if err := Reach(0); err == nil || !strings.Contains(err.Error(), "hostPID") {
		t.Errorf("a process out of sight: %v", err)
	}
	child := exec.Command("true")
	if err := child.Run(); err != nil {
		t.Fatal(err)
	}
	if err := Reach(child.Process.Pid); err != nil {
		t.Errorf("one that has ended: %v", err)
	}
}

// TestReachOfAStranger asks as an ordinary user for a process of root.
func TestReachOfAStranger(t *testing.T) {
	if os.Getenv("POEMQ_REACH") != "" {
		if err := Reach(os.Getppid()); err != nil {
			os.Stdout.WriteString(err.Error())
		}
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root, to be somebody else's process")
	}
	exe, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	// Where the ordinary user can run it.
	dir, err := os.MkdirTemp("", "poemq-reach-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/test", exe, 0o755); err != nil {
		t.Fatal(err)
	}
	c := exec.Command(dir+"/test", "-test.run", "^TestReachOfAStranger$")
	c.Dir, c.Env = "/", append(os.Environ(), "POEMQ_REACH=1")
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := c.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "ptrace access") {
		t.Errorf("%v: %s", err, out)
	}
}
