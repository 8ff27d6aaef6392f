package notify

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestProbe: the tests of this package need all of it but the last.
func TestProbe(t *testing.T) {
	f := Probe()
	for what, err := range map[string]error{"listener": f.Listener, "continue": f.Continue, "addfd": f.AddFD, "addfd and send": f.AddSend} {
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	t.Logf("synchronous wake-up: %v", f.SyncWake)
	// The rest of the process is as it was.
	if got, _, e := unix.Syscall(unix.SYS_GETPPID, 0, 0, 0); e != 0 || int(got) != os.Getppid() {
		t.Errorf("getppid afterwards: %d, %v", got, e)
	}
}

// TestProbeNested: within the tree of another listener it says so.
func TestProbeNested(t *testing.T) {
	if os.Getenv("NOTIFY_TEST_NESTED") == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestProbeNested$", "-test.v")
		cmd.Env = append(os.Environ(), "NOTIFY_TEST_NESTED=1")
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "--- PASS: TestProbeNested") {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	runtime.LockOSThread()
	fd, err := trapGetppid()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	// A thread made by this one is under its filter.
	if _, err := trapGetppid(); !errors.Is(err, unix.EBUSY) {
		t.Errorf("a second listener: %v", err)
	}
}
