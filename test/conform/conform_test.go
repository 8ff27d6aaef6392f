package conform

import (
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// score counts a family's cases. A case is a scenario in one address family.
type score struct {
	equal, listed, different, skipped int
}

func (s score) total() int { return s.equal + s.listed + s.different }

// TestConform runs every scenario natively and under poemq and compares.
func TestConform(t *testing.T) {
	if testing.Short() {
		t.Skip("runs several hundred programs")
	}
	cases := buildFamilies(t)
	second := newSecondRun(t)
	if !second.native {
		second.mustCarry(t, cases[0].prog)
	}
	known, err := knownVia(second.via)
	if err != nil {
		t.Fatal(err)
	}
	if second.native {
		t.Log("no poemq-launch: both runs are native, the known differences are not applied")
		known = nil
	}

	only := os.Getenv("CONFORM_ONLY")
	scores := map[string]*score{}
	var (
		mu     sync.Mutex // guards scores, the use counts in known and t's output order
		wg     sync.WaitGroup
		places = make(chan struct{}, envInt("CONFORM_PARALLEL", 4))
	)
	for range envInt("CONFORM_REPEAT", 1) {
		for _, c := range cases {
			if !chosen(only, c) {
				continue
			}
			places <- struct{}{}
			wg.Go(func() {
				defer func() { <-places }()
				o := compare(t, c, second)
				mu.Lock()
				defer mu.Unlock()
				if scores[c.family] == nil {
					scores[c.family] = &score{}
				}
				o.settle(t, c, known, scores[c.family])
			})
		}
		wg.Wait()
	}
	if only == "" {
		for _, k := range known {
			for _, g := range k.scenarios {
				if g.used == 0 && !g.seldom && g.holds(second.via) {
					t.Errorf("%s:%d: %s: nothing differs there any more, remove it", k.file, k.line, g.text)
				}
			}
		}
	}
	fmt.Print(table(scores))
}

// chosen tells whether CONFORM_ONLY, globs with commas between them, has c run.
func chosen(only string, c testCase) bool {
	for glob := range strings.SplitSeq(only, ",") {
		if match, _ := path.Match(glob, c.name()); match || glob == "" {
			return true
		}
	}
	return false
}

// outcome is what two runs of a case gave.
type outcome struct {
	first, second result
	diff          []diffLine
}

func compare(t *testing.T, c testCase, second *runner) outcome {
	native := &runner{native: true, dir: second.dir}
	o := outcome{first: native.run(t, c), second: second.run(t, c)}
	o.diff = diffLines(o.first.lines, o.second.lines)
	return o
}

// settle adds the outcome to the score and reports an unlisted difference.
func (o outcome) settle(t *testing.T, c testCase, known []*knownDifference, s *score) {
	if os.Getenv("CONFORM_SHOW") == "all" {
		t.Logf("%s\n\t%s", c, strings.Join(o.first.lines, "\n\t"))
	}
	if o.first.failed() {
		t.Errorf("%s: the native run itself failed:\n\t%s", c, strings.Join(o.first.lines, "\n\t"))
	}
	switch {
	case len(o.diff) == 0 && o.first.skipped():
		s.skipped++
		t.Logf("%s: not run: %s", c, o.first.lines[0])
	case len(o.diff) == 0:
		s.equal++
	case allKnown(known, c, o.diff):
		s.listed++
		if os.Getenv("CONFORM_SHOW") == "listed" {
			t.Logf("%s differs as listed (- native, + poemq):\n%s", c, formatDiff(o.diff))
		}
	default:
		s.different++
		t.Errorf("%s differs (- native, + poemq):\n%s%s", c, formatDiff(o.diff), o.second.chatter())
	}
}

// table is the score by family: equal + listed of total.
func table(scores map[string]*score) string {
	var b strings.Builder
	var sum score
	row := func(name string, s score) {
		fmt.Fprintf(&b, "%-10s %4d/%-4d %6d %9d %7d\n", name, s.equal, s.total(), s.listed, s.different, s.skipped)
	}
	fmt.Fprintf(&b, "%-10s %9s %6s %9s %7s\n", "family", "equal/all", "listed", "different", "not run")
	for _, f := range families {
		if s := scores[f]; s != nil {
			row(f, *s)
			sum.equal += s.equal
			sum.listed += s.listed
			sum.different += s.different
			sum.skipped += s.skipped
		}
	}
	row("all", sum)
	return b.String()
}

func envInt(name string, def int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil && n > 0 {
		return n
	}
	return def
}
