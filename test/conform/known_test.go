package conform

import (
	"fmt"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// maxKnown is how many differences may be listed.
const maxKnown = 10

// knownDifference is one paragraph of known-differences:
//
//	SCENARIOS  FAMILIES  /LINE REGEXP/  REASON
//
// SCENARIOS is a comma-separated list of globs family/scenario, FAMILIES one of
// v4, v6 and mapped, or "all". The regexp must match every line, of either run,
// that it excuses.
type knownDifference struct {
	scenarios []*knownGlob
	ips       []string
	re        *regexp.Regexp
	reason    string
	file      string
	line      int // of the file, where it begins
}

type knownGlob struct {
	text   string
	via    string // "seccomp:" before it: with that way in only; or empty
	seldom bool   // "seldom:" before it: it depends on timing, and need not be used
	used   int    // cases of which it excused a line
}

var knownForm = regexp.MustCompile(`^((?:\S+,\s+)*\S+)\s+(\S+)\s+/(.*?)/\s+(\S.*)$`)

// readKnown reads paragraphs, between which stand empty lines and comments.
func readKnown(name string) ([]*knownDifference, error) {
	file, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	var known []*knownDifference
	var paragraph []string
	for n, text := range strings.Split(string(file)+"\n", "\n") {
		text = strings.TrimSpace(text)
		if text != "" && !strings.HasPrefix(text, "#") {
			paragraph = append(paragraph, text)
			continue
		}
		if len(paragraph) == 0 {
			continue
		}
		first := n + 1 - len(paragraph)
		k, err := parseKnown(strings.Join(paragraph, " "))
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", name, first, err)
		}
		k.file, k.line = name, first
		known, paragraph = append(known, k), nil
	}
	if len(known) > maxKnown {
		return nil, fmt.Errorf("%s: %d entries, at most %d are allowed", name, len(known), maxKnown)
	}
	return known, nil
}

func parseKnown(text string) (*knownDifference, error) {
	m := knownForm.FindStringSubmatch(text)
	if m == nil {
		return nil, fmt.Errorf("want SCENARIOS FAMILIES /REGEXP/ REASON, got %q", text)
	}
	k := &knownDifference{reason: m[4], ips: strings.Split(m[2], ",")}
	for glob := range strings.SplitSeq(m[1], ",") {
		glob, seldom := strings.CutPrefix(strings.TrimSpace(glob), "seldom:")
		via := ""
		if rest, ok := strings.CutPrefix(glob, "seccomp:"); ok {
			glob, via = rest, "seccomp"
		}
		if _, err := path.Match(glob, ""); err != nil {
			return nil, fmt.Errorf("%s: %w", glob, err)
		}
		k.scenarios = append(k.scenarios, &knownGlob{text: glob, via: via, seldom: seldom})
	}
	var err error
	if k.re, err = regexp.Compile(m[3]); err != nil {
		return nil, err
	}
	if m[2] == "all" {
		k.ips = []string{"v4", "v6", "mapped"}
	}
	return k, nil
}

// excuses returns the glob by which k excuses a line of c; nil: it does not.
func (k *knownDifference) excuses(c testCase, line string) *knownGlob {
	if !slices.Contains(k.ips, c.ip) || !k.re.MatchString(line) {
		return nil
	}
	for _, g := range k.scenarios {
		if match, _ := path.Match(g.text, c.name()); match {
			return g
		}
	}
	return nil
}

// holds tells whether the difference is there with a way in.
func (g *knownGlob) holds(via string) bool { return g.via == "" || g.via == via }

// knownVia are the differences with a way in: those of the sockets, and those of
// the way itself.
func knownVia(via string) ([]*knownDifference, error) {
	known, err := readKnown("known-differences")
	if err != nil || via != "zpoline" {
		return known, err
	}
	more, err := readKnown("known-differences-zpoline")
	return append(known, more...), err
}

// allKnown tells whether each differing line is excused, and counts the use.
func allKnown(known []*knownDifference, c testCase, diff []diffLine) bool {
	var used []*knownGlob
	for _, d := range diff {
		if d.side == ' ' {
			continue
		}
		g := excuse(known, c, d.text)
		if g == nil {
			return false
		}
		used = append(used, g)
	}
	for _, g := range used {
		g.used++
	}
	return true
}

func excuse(known []*knownDifference, c testCase, line string) *knownGlob {
	for _, k := range known {
		if g := k.excuses(c, line); g != nil {
			return g
		}
	}
	return nil
}

// diffLine is a line of both runs (' '), of the first ('-') or the second ('+').
type diffLine struct {
	side byte
	text string
}

// diffLines returns nil when a and b are equal, else all their lines in one
// order, by the longest common subsequence.
func diffLines(a, b []string) []diffLine {
	if slices.Equal(a, b) {
		return nil
	}
	// common[i][j] is the length for a[i:] and b[j:].
	common := make([][]int, len(a)+1)
	for i := range common {
		common[i] = make([]int, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if a[i] == b[j] {
				common[i][j] = common[i+1][j+1] + 1
			} else {
				common[i][j] = max(common[i+1][j], common[i][j+1])
			}
		}
	}
	var d []diffLine
	i, j := 0, 0
	for i < len(a) || j < len(b) {
		switch {
		case i < len(a) && j < len(b) && a[i] == b[j]:
			d = append(d, diffLine{' ', a[i]})
			i, j = i+1, j+1
		case j == len(b) || i < len(a) && common[i+1][j] >= common[i][j+1]:
			d = append(d, diffLine{'-', a[i]})
			i++
		default:
			d = append(d, diffLine{'+', b[j]})
			j++
		}
	}
	return d
}

// formatDiff shows the differing lines, each with the line before it.
func formatDiff(d []diffLine) string {
	var b strings.Builder
	for i, l := range d {
		if l.side != ' ' || i+1 < len(d) && d[i+1].side != ' ' {
			fmt.Fprintf(&b, "\t%c %s\n", l.side, l.text)
		}
	}
	return b.String()
}

func TestKnownDifferences(t *testing.T) {
	k, err := parseKnown(`bind/any, bind/reuse*  v4,v6  /EADDR(INUSE|NOTAVAIL)/  because a / b`)
	if err != nil {
		t.Fatal(err)
	}
	c := testCase{family: "bind", scenario: "reuse_addr", ip: "v6"}
	for _, test := range []struct {
		c    testCase
		line string
		want bool
	}{
		{c, "bind = -1 EADDRINUSE", true},
		{c, "bind = 0", false},
		{testCase{family: "bind", scenario: "reuse_addr", ip: "mapped"}, "bind = -1 EADDRINUSE", false},
		{testCase{family: "bind", scenario: "twice", ip: "v4"}, "bind = -1 EADDRINUSE", false},
	} {
		if got := k.excuses(test.c, test.line) != nil; got != test.want {
			t.Errorf("%v %q: excused %v, want %v", test.c, test.line, got, test.want)
		}
	}
	if _, err := parseKnown("bind/x v4 /a/"); err == nil {
		t.Error("an entry without a reason was accepted")
	}
	if _, err := knownVia("zpoline"); err != nil {
		t.Error(err)
	}
}

func TestDiffLines(t *testing.T) {
	same := []string{"a", "b"}
	if d := diffLines(same, slices.Clone(same)); d != nil {
		t.Errorf("equal transcripts differ: %v", d)
	}
	got := formatDiff(diffLines([]string{"a", "b", "c", "d"}, []string{"a", "x", "c", "d", "e"}))
	want := "\t  a\n\t- b\n\t+ x\n\t  d\n\t+ e\n"
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}
