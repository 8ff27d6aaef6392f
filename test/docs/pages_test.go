package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/poemq/poemq/test/rig"
)

// A block is a fenced or an indented block of a page.
type block struct {
	page    string // its path in the repository
	line    int    // of its first line
	section int    // number of headings before it
	kind    string // info string; "indented"
	indent  string // of its fence, in a list
	lines   []string
}

// pages are those whose commands are held to be right.
func pages(t testing.TB) (all []string) {
	t.Helper()
	for _, pattern := range []string{"README.md", "docs/*.md"} {
		found, err := filepath.Glob(filepath.Join(rig.Root(), pattern))
		if err != nil || len(found) == 0 {
			t.Fatalf("no %s", pattern)
		}
		for _, path := range found {
			name, err := filepath.Rel(rig.Root(), path)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, name)
		}
	}
	return all
}

func read(t testing.TB, page string) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(rig.Root(), page))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(string(text), "\n")
}

// blocks are the blocks of a page, and the page's text without them.
func blocks(t testing.TB, page string) (all []block, rest string) {
	t.Helper()
	var open *block // a fenced one
	section, blank := 0, true
	for i, line := range read(t, page) {
		fence, info, _ := strings.Cut(strings.TrimSpace(line), "```")
		switch {
		case fence == "" && strings.HasPrefix(strings.TrimSpace(line), "```") && open == nil:
			open = &block{page: page, line: i + 2, section: section, kind: info}
			open.indent, _, _ = strings.Cut(line, "`")
		case open != nil && strings.TrimSpace(line) == "```":
			all = append(all, *open)
			open = nil
		case open != nil:
			open.lines = append(open.lines, strings.TrimPrefix(line, open.indent))
		case strings.HasPrefix(line, "    ") && (blank || len(all) > 0 && all[len(all)-1].kind == "indented" && all[len(all)-1].line+len(all[len(all)-1].lines) == i+1):
			if n := len(all); n > 0 && all[n-1].kind == "indented" && all[n-1].line+len(all[n-1].lines) == i+1 {
				all[n-1].lines = append(all[n-1].lines, line)
			} else {
				all = append(all, block{page: page, line: i + 1, section: section, kind: "indented", lines: []string{line}})
			}
		default:
			if strings.HasPrefix(line, "#") {
				section++
			}
			rest += line + "\n"
		}
		blank = strings.TrimSpace(line) == ""
	}
	if open != nil {
		t.Errorf("%s:%d: the block has no end", page, open.line)
	}
	return all, rest
}

// commands that are looked for in blocks that are not run.
var commands = regexp.MustCompile(`^(\w*[$#] )?(sudo )?(poemq-launch|poemqd|poemqctl|\./\S+|make|docker|podman|runc|crun|kubectl|systemctl|journalctl|systemd-\S+|apt|apt-get|dpkg|rpm|dnf|curl|wget|nc|ssh|scp|git|go|cp|kill|sysctl|echo|cat|ip|mount)( |$)`)

// prompt is the beginning of a command in a block that is run.
var prompt = regexp.MustCompile(`^([ab]?)\$ (.*)$`)

// A step is a command of a console block with what it prints.
type step struct {
	line       int
	host       string
	command    string
	background bool
	prints     []string
}

func (b block) steps(t testing.TB) (all []step) {
	t.Helper()
	for i := 0; i < len(b.lines); i++ {
		line := b.lines[i]
		m := prompt.FindStringSubmatch(line)
		if m == nil {
			if len(all) == 0 {
				t.Errorf("%s:%d: %q is printed by no command", b.page, b.line+i, line)
				continue
			}
			all[len(all)-1].prints = append(all[len(all)-1].prints, line)
			continue
		}
		s := step{line: b.line + i, host: m[1], command: m[2]}
		for strings.HasSuffix(s.command, `\`) && i+1 < len(b.lines) {
			i++
			s.command = strings.TrimSuffix(s.command, `\`) + strings.TrimSpace(b.lines[i])
		}
		if rest, ok := strings.CutSuffix(s.command, " &"); ok {
			s.command, s.background = rest, true
		}
		if s.host == "" {
			s.host = "a"
		}
		all = append(all, s)
	}
	return all
}
