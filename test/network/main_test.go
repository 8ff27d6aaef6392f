package network

import (
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/poemq/poemq/test/rig"
)

// buildDir holds the test program; TestMain makes and removes it.
var buildDir string

func TestMain(m *testing.M) {
	var err error
	if buildDir, err = os.MkdirTemp("", "poemq-peer-"); err != nil {
		panic(err)
	}
	status := m.Run()
	os.RemoveAll(buildDir)
	os.Exit(status)
}

// peerProgram is the path of the test program, which the first call builds.
func peerProgram(r *rig.Rig) string {
	r.Helper()
	built.Do(func() {
		cmd := exec.Command("go", "build", "-o", filepath.Join(buildDir, "peer"), "./test/network/peer")
		cmd.Dir, cmd.Env = rig.Root(), append(os.Environ(), "CGO_ENABLED=0")
		said, err := cmd.CombinedOutput()
		if err != nil {
			r.Fatalf("%s: %v\n%s", cmd, err, said)
		}
		// Programs of other users run it, too.
		if err := os.Chmod(buildDir, 0o755); err != nil {
			r.Fatal(err)
		}
	})
	return filepath.Join(buildDir, "peer")
}

var built sync.Once
