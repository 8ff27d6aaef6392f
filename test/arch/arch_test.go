// Package arch holds the house rules that a compiler does not: who may import
// whom, how large a file may grow, and that the tree names no machine.
package arch

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const (
	module     = "github.com/poemq/poemq"
	quicGo     = "github.com/quic-go/quic-go"
	libseccomp = "github.com/seccomp/libseccomp-golang"
)

// pkg is what go list tells of a package.
type pkg struct {
	ImportPath   string
	Dir          string
	Imports      []string // direct
	Deps         []string // all, indirectly too
	TestImports  []string
	XTestImports []string
}

// house is the part of the tree a package belongs to: "quic" for
// …/poemq/quic/pool, "cmd/poemqd" for that command, "" for others' packages.
func house(path string) string {
	rest, ok := strings.CutPrefix(path, module+"/")
	if !ok {
		return ""
	}
	parts := strings.Split(rest, "/")
	if parts[0] == "cmd" && len(parts) > 1 {
		return "cmd/" + parts[1]
	}
	return parts[0]
}

// mayImport lists, for each part of the house, which others it may import. A
// part that is not listed here is test or benchmark code and may use any.
var mayImport = map[string][]string{
	"cmd/poemqd":       {"broker", "quic"},             // it makes the identity and the host that the broker stands on
	"cmd/poemqctl":     {"broker", "quic", "launcher"}, // of quic the small CA, of the launcher the filter's description
	"cmd/poemq-launch": {"launcher"},
	"broker":           {"notify", "addfd", "quic", "internal"},
	"notify":           {"internal"},
	"addfd":            {},
	"quic":             {"internal"},
	"internal":         {},
	"launcher":         {},
}

func TestArrows(t *testing.T) {
	for _, p := range packages(t) {
		from := house(p.ImportPath)
		allowed, ruled := mayImport[from]
		if !ruled {
			continue
		}
		for _, path := range p.Imports {
			if to := house(path); to != "" && to != from && !slices.Contains(allowed, to) {
				t.Errorf("%s imports %s; %s may import only its own and %q", p.ImportPath, path, from, allowed)
			}
		}
	}
}

// TestPolicyIsPure: rules are decided and read without a broker.
func TestPolicyIsPure(t *testing.T) {
	const policy, config = module + "/broker/policy", module + "/broker/config"
	for _, p := range packages(t) {
		for _, path := range p.Imports {
			if p.ImportPath == policy && house(path) != "" || p.ImportPath == config && house(path) != "" && path != policy {
				t.Errorf("%s imports %s", p.ImportPath, path)
			}
		}
	}
}

// TestHouseIsThere tells which rules hold only because nothing is there yet.
func TestHouseIsThere(t *testing.T) {
	there := map[string]bool{}
	for _, p := range packages(t) {
		there[house(p.ImportPath)] = true
	}
	var missing []string
	for part := range mayImport {
		if !there[part] {
			missing = append(missing, part)
		}
	}
	if slices.Sort(missing); len(missing) > 0 {
		t.Skipf("no packages yet in %s", strings.Join(missing, ", "))
	}
}

// TestLauncherIsSmall: what runs in the program's process before exec drags in
// neither QUIC nor HTTP, not even indirectly.
func TestLauncherIsSmall(t *testing.T) {
	for _, p := range packages(t) {
		if from := house(p.ImportPath); from != "launcher" && from != "cmd/poemq-launch" {
			continue
		}
		for _, path := range p.Deps {
			if within(path, quicGo) || path == "net/http" {
				t.Errorf("%s depends on %s", p.ImportPath, path)
			}
		}
	}
}

// TestWhoKnowsTheLibraries: one part of the house for each of them, and what is
// measured beside it.
func TestWhoKnowsTheLibraries(t *testing.T) {
	// bench has programs that use quic-go themselves: poemq is measured beside them.
	for library, only := range map[string][]string{quicGo: {"quic", "bench"}, libseccomp: {"launcher"}} {
		for _, p := range packages(t) {
			for _, path := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
				if within(path, library) && !slices.Contains(only, house(p.ImportPath)) {
					t.Errorf("%s imports %s; only %q may", p.ImportPath, path, only)
				}
			}
		}
	}
}

// TestFilterIsDescribed: poemqctl writes the filter down for container engines,
// from its description; the launcher itself, and so cgo, stays out of it.
func TestFilterIsDescribed(t *testing.T) {
	for _, p := range packages(t) {
		from := house(p.ImportPath)
		if from != "cmd/poemqctl" && from != "cmd/poemqd" && !within(p.ImportPath, module+"/launcher/filter") && !within(p.ImportPath, module+"/launcher/profile") {
			continue
		}
		for _, path := range p.Deps {
			if within(path, libseccomp) || path == module+"/launcher" {
				t.Errorf("%s depends on %s", p.ImportPath, path)
			}
		}
	}
}

// TestQuicGoName: the library is always called quicgo, since our own package is
// called quic.
func TestQuicGoName(t *testing.T) {
	for _, p := range packages(t) {
		files, err := filepath.Glob(filepath.Join(p.Dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
			if err != nil {
				t.Error(err)
				continue
			}
			for _, spec := range parsed.Imports {
				if spec.Path.Value == `"`+quicGo+`"` && !called(spec, "quicgo") {
					t.Errorf("%s imports quic-go under another name than quicgo", file)
				}
			}
		}
	}
}

func called(spec *ast.ImportSpec, name string) bool {
	return spec.Name != nil && spec.Name.Name == name
}

func within(path, parent string) bool {
	return path == parent || strings.HasPrefix(path, parent+"/")
}

// packages lists the module.
func packages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Dir,Imports,Deps,TestImports,XTestImports", "./...")
	cmd.Dir = root(t)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []pkg
	for decoder := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// root is the directory of go.mod.
func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "go.mod")); err != nil {
		t.Fatal(err)
	}
	return dir
}
