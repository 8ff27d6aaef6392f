package docs

import (
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/poemq/poemq/test/rig"
)

// exception is a line of not-run: PAGE | COMMAND (a glob) | REASON.
type exception struct {
	page, glob, reason string
	used               bool
}

func exceptions(t *testing.T) (all []*exception) {
	t.Helper()
	text, err := os.ReadFile("not-run")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		f := strings.SplitN(line, "|", 3)
		if len(f) != 3 || strings.TrimSpace(f[2]) == "" {
			t.Fatalf("not-run: %q is not PAGE | COMMAND | REASON", line)
		}
		all = append(all, &exception{page: strings.TrimSpace(f[0]), glob: strings.TrimSpace(f[1]), reason: strings.TrimSpace(f[2])})
	}
	return all
}

// fits tells whether the glob, in which * is anything, fits the command.
func (e *exception) fits(command string) bool {
	parts := strings.Split(e.glob, "*")
	for i := range parts {
		parts[i] = regexp.QuoteMeta(parts[i])
	}
	return regexp.MustCompile("^" + strings.Join(parts, ".*") + "$").MatchString(command)
}

// excepted tells whether a command of a page is listed.
func excepted(listed []*exception, page, command string) (is bool) {
	for _, e := range listed {
		if e.page == page && e.fits(command) {
			e.used, is = true, true
		}
	}
	return is
}

// TestEveryCommandIsRun: a command stands in a block that is run, or in not-run
// with a reason.
func TestEveryCommandIsRun(t *testing.T) {
	listed := exceptions(t)
	for _, page := range pages(t) {
		all, rest := blocks(t, page)
		for _, m := range ours.FindAllStringSubmatch(strings.ReplaceAll(rest, "\n", " "), -1) {
			excepted(listed, page, m[1]) // is used, if it is for this
		}
		for _, b := range all {
			if b.kind == "console" {
				if len(b.steps(t)) == 0 {
					t.Errorf("%s:%d: a console block without a command", page, b.line)
				}
				continue
			}
			for i, line := range b.lines {
				command := strings.TrimSpace(line)
				if !commands.MatchString(command) {
					continue
				}
				if !excepted(listed, page, command) {
					t.Errorf("%s:%d: %q is run by no test: make its block a console block (doc.go), or list it in test/docs/not-run with the reason", page, b.line+i, command)
				}
			}
		}
	}
	for _, e := range listed {
		if !e.used {
			t.Errorf("not-run: %s | %s fits no command", e.page, e.glob)
		}
	}
}

// ours is a command of ours within text.
var ours = regexp.MustCompile("`((?:poemq-launch|poemqd|poemqctl|make) [^`]*)`")

// TestCommandsInText: what the text says of our programs is there: commands,
// flags, targets of make.
func TestCommandsInText(t *testing.T) {
	bin := os.Getenv("POEMQ_BIN")
	if bin == "" {
		bin = filepath.Join(rig.Root(), "bin")
	}
	if _, err := os.Stat(filepath.Join(bin, "poemqctl")); err != nil {
		t.Skipf("no programs (make build): %v", err)
	}
	seen, listed := 0, exceptions(t)
	for _, page := range pages(t) {
		_, rest := blocks(t, page)
		for _, m := range ours.FindAllStringSubmatch(strings.ReplaceAll(rest, "\n", " "), -1) {
			if excepted(listed, page, m[1]) {
				continue
			}
			seen++
			words := strings.Fields(m[1])
			if words[0] == "make" {
				if why := target(words[1]); why != "" {
					t.Errorf("%s: `%s`: %s", page, m[1], why)
				}
				continue
			}
			if why := known(bin, words); why != "" {
				t.Errorf("%s: `%s`: %s", page, m[1], why)
			}
		}
	}
	if seen < 20 {
		t.Errorf("%d commands in the text: too few to be all", seen)
	}
}

func target(name string) string {
	if out, err := exec.Command("make", "-C", rig.Root(), "-n", name).CombinedOutput(); err != nil {
		return "make -n: " + string(out)
	}
	return ""
}

// known asks --help for the commands and flags in words; empty means all right.
func known(bin string, words []string) string {
	args, program := []string{}, words[0]
	help := func() string {
		out, _ := exec.Command(filepath.Join(bin, program), append(args[:len(args):len(args)], "--help")...).Output()
		return string(out)
	}
	text := help()
	for _, word := range words[1:] {
		word = strings.TrimRight(word, ",.;:")
		name, _, _ := strings.Cut(word, "=")
		switch {
		case word == "--":
			return ""
		case strings.HasPrefix(word, "-"):
			if !regexp.MustCompile(`(^|[ ,])` + regexp.QuoteMeta(name) + `([ =,\[]|$)`).MatchString(text) {
				return "no flag " + name + " in the help of " + path.Base(program) + " " + strings.Join(args, " ")
			}
		case program != "poemq-launch" && strings.Contains(text, "Available Commands:") && regexp.MustCompile(`^[a-z-]+$`).MatchString(word):
			if !regexp.MustCompile(`(?m)^  ` + word + ` `).MatchString(text) {
				if strings.Contains(text, word) { // the value of a flag, or an argument
					continue
				}
				return "no command " + word
			}
			args = append(args, word)
			text = help()
		}
	}
	return ""
}
