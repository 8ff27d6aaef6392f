package hook

import (
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The library is what upstream zpoline's loader takes, and every call of a program
// that it has goes through the hook as that loader would call it.
func TestContract(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "b")
	b := broker(t, socket)
	for name, c := range map[string]struct{ build, argv []string }{
		"as upstream's loader has it": {[]string{"-ldl"}, []string{filepath.Join(bin, "libpoemq-hook.so")}},
		"under sanitizers": {
			append(hookSources(t), "-DLINKED", "-I../../zpoline", "-fsanitize=address,undefined", "-fno-sanitize=null", "-fno-sanitize-recover=all",
				"-static-libasan", "-static-libubsan"),
			nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "contract")
			args := slices.Concat([]string{"-std=gnu11", "-g", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread", "-o", path, "c/contract.c"}, c.build)
			if out, err := exec.Command("gcc", args...).CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			p := start(t, []string{"POEMQ_BROKER=" + socket}, append([]string{path}, c.argv...)...)
			if status := p.wait(); status != 0 || p.stdout() != "ok\n" || p.stderr() != "" {
				t.Errorf("exit status %d\n%s%s", status, p.stdout(), p.stderr())
			}
		})
	}
	if s := b.stderr(); strings.Contains(s, "level=WARN") || strings.Contains(s, "level=ERROR") {
		t.Errorf("the broker complains: %s", s)
	}
}

func hookSources(t *testing.T) []string {
	t.Helper()
	sources, err := filepath.Glob("../../zpoline/hook*.c")
	if err != nil || len(sources) == 0 {
		t.Fatalf("no sources of the hook library: %v", err)
	}
	return sources
}
