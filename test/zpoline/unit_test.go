package zpoline

import (
	"bytes"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestUnits: the loader's parts by themselves, with sanitizers.
func TestUnits(t *testing.T) {
	unit := buildUnit(t)
	for _, what := range []string{"noise", "live", "sites", "ranges"} {
		t.Run(what, func(t *testing.T) {
			if out, err := exec.Command(unit, what).CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

func buildUnit(t *testing.T) string {
	t.Helper()
	sources := []string{"-I../../zpoline", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"}
	for _, part := range []string{"insn.c", "live.c", "sites.c", "say.c", "entry.S"} {
		sources = append(sources, "../../zpoline/loader_"+part)
	}
	return build(t, "unit", append(sources, "-D_GNU_SOURCE")...)
}

var disassembled = regexp.MustCompile(`^\s*([0-9a-f]+):\t((?:[0-9a-f]{2} )+)\s*(?:\t(.*))?`)

// TestLengths compares zp_decode with binutils on all of libc's text.
func TestLengths(t *testing.T) {
	libc, err := filepath.EvalSymlinks("/lib/x86_64-linux-gnu/libc.so.6")
	if err != nil {
		t.Skipf("no libc where Debian has it: %v", err)
	}
	text, err := exec.Command("objdump", "-d", "-w", libc).Output()
	if err != nil {
		t.Fatal(err)
	}
	var lines bytes.Buffer
	for line := range strings.Lines(string(text)) {
		if m := disassembled.FindStringSubmatch(line); m != nil && !strings.Contains(m[3], "(bad)") {
			code := strings.ReplaceAll(m[2], " ", "")
			fmt.Fprintln(&lines, m[1], len(code)/2, code)
		}
	}
	if lines.Len() < 1<<20 {
		t.Fatalf("objdump shows little of %s: %d bytes", libc, lines.Len())
	}
	c := exec.Command(buildUnit(t), "lengths")
	c.Stdin = &lines
	out, err := c.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}
