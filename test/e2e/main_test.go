package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

var (
	// native runs the programs without poemq; see the package comment.
	native = os.Getenv("POEMQ_TEST_NATIVE") == "1"
	// viaZpoline has the launcher catch calls in the programs (POEMQ_VIA).
	viaZpoline = os.Getenv("POEMQ_VIA") == "zpoline"
	// binDir holds poemqd, poemqctl and poemq-launch.
	binDir string
	// programDir holds the compiled test programs and pypeer.py.
	programDir string
)

func TestMain(m *testing.M) {
	os.Exit(runAll(m))
}

// runAll builds what the tests start, once, and runs them.
func runAll(m *testing.M) int {
	work, err := os.MkdirTemp("", "pq-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	defer os.RemoveAll(work)
	if err := prepare(work); err != nil {
		fmt.Fprintln(os.Stderr, "e2e: prepare:", err)
		return 1
	}
	if native {
		fmt.Println("e2e: POEMQ_TEST_NATIVE=1: programs run on plain TCP, poemq itself is not tested")
	}
	return m.Run()
}

// prepare fills binDir and programDir. Both are readable by everyone: one test
// runs as an ordinary user, who need not be able to read the checkout.
func prepare(work string) error {
	if err := os.Chmod(work, 0o755); err != nil {
		return err
	}
	root, err := moduleRoot()
	if err != nil {
		return err
	}
	if !native {
		from := os.Getenv("POEMQ_BIN")
		if from == "" {
			from = filepath.Join(root, "bin")
			if err := runIn(root, nil, "make", "build"); err != nil {
				return err
			}
		}
		binDir = filepath.Join(work, "bin")
		if err := copyBinaries(from, binDir); err != nil {
			return err
		}
	}
	programDir = filepath.Join(work, "programs")
	return buildPrograms(filepath.Join(root, "test", "programs"), programDir)
}

func copyBinaries(from, to string) error {
	if err := os.Mkdir(to, 0o755); err != nil {
		return err
	}
	names := []string{"poemqd", "poemqctl", "poemq-launch"}
	if viaZpoline {
		names = append(names, "libpoemq-zpoline.so", "libpoemq-hook.so")
	}
	for _, name := range names {
		data, err := os.ReadFile(filepath.Join(from, name))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(to, name), data, 0o755); err != nil {
			return err
		}
	}
	return nil
}

// buildPrograms compiles gopeer (static, if that will do), every C file, and copies the Python.
func buildPrograms(from, to string) error {
	if err := os.Mkdir(to, 0o755); err != nil {
		return err
	}
	goEnv := []string{"CGO_ENABLED=0"}
	if viaZpoline { // which a static program is not for
		goEnv = []string{"CGO_ENABLED=1"}
	}
	if err := runIn(filepath.Join(from, "gopeer"), goEnv, "go", "build", "-buildvcs=false", "-o", filepath.Join(to, "gopeer"), "."); err != nil {
		return err
	}
	sources, err := filepath.Glob(filepath.Join(from, "*.c"))
	if err != nil {
		return err
	}
	for _, c := range sources {
		out := filepath.Join(to, strings.TrimSuffix(filepath.Base(c), ".c"))
		if err := runIn(from, nil, "gcc", "-Wall", "-Wextra", "-O1", "-o", out, c); err != nil {
			return err
		}
	}
	script, err := os.ReadFile(filepath.Join(from, "pypeer.py"))
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(to, "pypeer.py"), script, 0o755)
}

// moduleRoot is the nearest directory above that holds go.mod.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", fmt.Errorf("no go.mod above the working directory")
		}
		dir = up
	}
}

// runIn runs a build command and returns its output only in the error.
func runIn(dir string, env []string, argv ...string) error {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(argv, " "), err, out)
	}
	return nil
}
