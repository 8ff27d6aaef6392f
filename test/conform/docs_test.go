package conform

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const socketsDoc = "../../docs/sockets.md"

// TestDocTellsOptions: an option that the code treats, or a scenario compares,
// is in the table of what programs see.
func TestDocTellsOptions(t *testing.T) {
	doc := readFile(t, socketsDoc)
	name := regexp.MustCompile(`\b(?:unix\.|SOL\(|TCP\(|IP4\(|IP6\()((?:SO|TCP|IP|IPV6)_[A-Z0-9_]+)`)
	told := make(map[string]bool)
	for _, n := range regexp.MustCompile(`\b(?:SO|TCP|IP|IPV6)_[A-Z0-9_]+`).FindAllString(doc, -1) {
		told[n] = true
	}
	sources, err := filepath.Glob("../../broker/options*.go")
	if err != nil || len(sources) == 0 {
		t.Fatalf("no sources of options: %v", err)
	}
	for _, f := range append(sources, "../../launcher/filter/filter.go", "scenarios/options.c") {
		found := name.FindAllStringSubmatch(readFile(t, f), -1)
		if len(found) == 0 && !strings.HasSuffix(f, "_info.go") {
			t.Errorf("%s: no option is found in it", f)
		}
		for _, m := range found {
			if !told[m[1]] {
				t.Errorf("%s is in %s and not in docs/sockets.md", m[1], f)
				told[m[1]] = true
			}
		}
	}
}

// TestDocTellsDifferences: users can read of every known difference, and of
// none that is no more.
func TestDocTellsDifferences(t *testing.T) {
	for list, page := range map[string]string{"known-differences": socketsDoc, "known-differences-zpoline": "../../docs/zpoline.md"} {
		known, err := readKnown(list)
		if err != nil {
			t.Fatal(err)
		}
		doc := readFile(t, page)
		listed := make(map[string]bool)
		for _, k := range known {
			for _, g := range k.scenarios {
				listed[g.text] = true
				if !strings.Contains(doc, "`"+g.text+"`") {
					t.Errorf("%s:%d: %s is not told in %s", list, k.line, g.text, page)
				}
			}
		}
		for _, m := range regexp.MustCompile("`((?:"+strings.Join(families, "|")+")/[a-z_*]+)`").FindAllStringSubmatch(doc, -1) {
			if !listed[m[1]] {
				t.Errorf("%s tells of %s, where nothing is known to differ", page, m[1])
			}
		}
	}
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
