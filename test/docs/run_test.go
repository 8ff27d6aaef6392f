package docs

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/poemq/poemq/test/rig"
)

// portWord is a word of a command that is, or ends in, a port.
var portWord = regexp.MustCompile(`(?:^|[\s:])(\d{4,5})(?:\s|$|/)`)

// TestConsoleBlocks runs the pages.
func TestConsoleBlocks(t *testing.T) {
	if rig.Native() {
		t.Skip("POEMQ_TEST_NATIVE=1: the pages are about poemq")
	}
	if os.Geteuid() != 0 {
		t.Skip("the pages' hosts are namespaces, which need root; run the tests as root to include this one")
	}
	ran := 0
	for _, page := range pages(t) {
		all, _ := blocks(t, page)
		t.Run(page, func(t *testing.T) {
			p := &pageRun{Rig: rig.New(t, "unshare", "nsenter", "ip"), page: strings.ReplaceAll(page, "/", "-"), section: -1}
			p.tools = p.shims()
			for _, b := range all {
				if b.kind != "console" {
					continue
				}
				if b.section != p.section {
					p.begin(b.section)
				}
				for _, s := range b.steps(t) {
					ran++
					p.step(b.page, s)
				}
			}
		})
	}
	t.Logf("%d commands were run", ran)
	if ran < 10 {
		t.Errorf("%d commands were run: too few to be all", ran)
	}
}

// pageRun is a page that is being run.
type pageRun struct {
	*rig.Rig
	page    string
	section int
	hosts   map[string]*host
	tools   string // directory of the shims
}

// shims are stand-ins for what the hosts do not have: doc.go tells.
func (p *pageRun) shims() string {
	p.Helper()
	for name, text := range map[string]string{
		"sudo": "#!/bin/sh\nexec \"$@\"\n",
		"scp": fmt.Sprintf(`#!/bin/bash
# scp FILE… HOST.example:/etc/poemq/
set -e
to=${!#}
case $to in
?.example:/etc/poemq/) exec cp "${@:1:$#-1}" "%s-${to%%%%.*}/etc-poemq/" ;;
*) echo "scp: no such place: $to" >&2; exit 1 ;;
esac
`, p.Path(p.page)),
	} {
		if err := os.Chmod(p.Write("tools/"+name, text), 0o755); err != nil {
			p.Fatal(err)
		}
	}
	return p.Path("tools")
}

// begin starts both hosts anew.
func (p *pageRun) begin(section int) {
	p.Helper()
	p.end()
	p.section = section
	p.hosts = map[string]*host{"a": startHost(p.Rig, p.page, "a"), "b": startHost(p.Rig, p.page, "b")}
	join(p.hosts["a"], p.hosts["b"])
}

func (p *pageRun) end() {
	for _, h := range p.hosts {
		h.stop()
	}
}

// step runs one command and looks at what it prints.
func (p *pageRun) step(page string, s step) {
	p.Helper()
	h := p.hosts[s.host]
	at := fmt.Sprintf("%s:%d: %s$ %s", page, s.line, s.host, s.command)
	c := h.command(s.command, p.tools)
	if !s.background {
		r := c.Run()
		said := r.Stdout() + r.Stderr()
		if r.ExitCode() != 0 {
			p.Fatalf("%s: exit status %d\n%s", at, r.ExitCode(), said)
		}
		p.printed(at, said, s.prints)
		p.Logf("%s: ok", at)
		return
	}
	r := c.Start()
	ready := func() bool { return true }
	if m := portWord.FindStringSubmatch(s.command); m != nil {
		ready = func() bool { return h.serves(m[1]) }
	} else if strings.Contains(s.command, "poemqd serve") {
		ready = func() bool { return h.command("poemqctl status", p.tools).Run().ExitCode() == 0 }
	}
	p.Eventually(limit, at+": it serves", func() bool {
		if !r.Running() {
			p.Fatalf("%s: it has ended\n%s%s", at, r.Stdout(), r.Stderr())
		}
		return ready()
	})
	for _, want := range s.prints {
		r.Says(want)
	}
	p.Logf("%s: runs", at)
}

// printed looks for the lines that the page shows, in their order.
func (p *pageRun) printed(at, said string, want []string) {
	p.Helper()
	rest := said
	for _, line := range want {
		for _, part := range strings.Split(line, "…") {
			part = strings.TrimSpace(part)
			_, after, ok := strings.Cut(rest, part)
			if !ok {
				p.Fatalf("%s: it does not print %q, but\n%s", at, part, said)
			}
			rest = after
		}
	}
}

// TestDemo runs "make demo", the first thing that the README names.
func TestDemo(t *testing.T) {
	if testing.Short() || rig.Native() {
		t.Skip("the demonstration takes a while, and is about poemq")
	}
	if os.Geteuid() != 0 {
		t.Skip("the demonstration captures packets; run the tests as root to include it")
	}
	out, err := exec.Command(filepath.Join(rig.Root(), "scripts/demo.sh"), binaries()).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "not one TCP segment") {
		t.Errorf("scripts/demo.sh: %v\n%s", err, out)
	}
}
