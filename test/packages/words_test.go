package packages

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/poemq/poemq/test/rig"
)

func itoa(n int) string { return strconv.Itoa(n) }

func udpOpen(port int) bool {
	for _, table := range []string{"/proc/net/udp", "/proc/net/udp6"} {
		text, _ := os.ReadFile(table)
		if strings.Contains(string(text), fmt.Sprintf(":%04X ", port)) {
			return true
		}
	}
	return false
}

// installed makes a tree as "make install" does.
func installed(r *rig.Rig, prefix string) string {
	r.Helper()
	to := r.Mkdir("installed", "")
	bin := os.Getenv("POEMQ_BIN")
	if bin == "" {
		bin = filepath.Join(rig.Root(), "bin")
	}
	c := r.Command(filepath.Join(rig.Root(), "deploy/packages/install.sh"), bin, filepath.Join(rig.Root(), "dist/man"))
	c.Outside, c.Env = true, []string{"DESTDIR=" + to, "PREFIX=" + prefix}
	c.Output()
	return to + prefix
}

// TestInstall: every file where it belongs, and none beside the prefix.
func TestInstall(t *testing.T) {
	r := rig.New(t, "gzip")
	at := installed(r, "/opt/poemq")
	for _, want := range []string{
		"bin/poemq-launch", "bin/poemqctl", "sbin/poemqd",
		"share/man/man1/poemq-launch.1.gz", "share/man/man1/poemqctl.1.gz", "share/man/man8/poemqd.8.gz",
		"share/man/man5/poemq.toml.5.gz", "share/man/man7/poemq.7.gz",
		"share/bash-completion/completions/poemqctl", "share/zsh/site-functions/_poemqd",
		"share/fish/vendor_completions.d/poemq-launch.fish", "share/poemq/poemq.toml",
		"share/doc/poemq/docs/configuration.md", "share/poemq/container/Dockerfile",
	} {
		if _, err := os.Stat(filepath.Join(at, want)); err != nil {
			t.Error(err)
		}
	}
	top, err := os.ReadDir(r.Path("installed"))
	if err != nil || len(top) != 1 || top[0].Name() != "opt" {
		t.Errorf("at the top: %v, %v", top, err)
	}
}

// flags are those that a program's --help tells, of all its commands.
func flags(r *rig.Rig, program string, path ...any) (all []string) {
	r.Helper()
	c := r.Command(append(append([]any{program}, path...), "--help")...)
	c.Outside = true
	out := c.Output()
	for _, m := range regexp.MustCompile(`(?m)^ +(?:-\w, )?--([\w-]+)`).FindAllStringSubmatch(out, -1) {
		if m[1] != "help" {
			all = append(all, m[1])
		}
	}
	if _, list, ok := strings.Cut(out, "Available Commands:\n"); ok {
		list, _, _ = strings.Cut(list, "\n\n")
		for line := range strings.Lines(list) {
			if name := strings.Fields(line)[0]; name != "help" && name != "completion" {
				all = append(all, flags(r, program, append(path[:len(path):len(path)], name)...)...)
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// TestManPages: they are well-formed, and have every flag.
func TestManPages(t *testing.T) {
	r := rig.New(t, "man", "gzip")
	at := installed(r, "/usr")
	for page, program := range map[string]string{
		"man1/poemq-launch.1": "bin/poemq-launch", "man1/poemqctl.1": "bin/poemqctl", "man8/poemqd.8": "sbin/poemqd",
		"man5/poemq.toml.5": "", "man7/poemq.7": "",
	} {
		c := r.Command("man", "--warnings", "-E", "UTF-8", "-l", filepath.Join(at, "share/man", page+".gz"))
		c.Outside, c.Env = true, []string{"MANWIDTH=200", "MAN_KEEP_FORMATTING=", "PAGER=cat"}
		p := c.Run()
		if p.ExitCode() != 0 || p.Stderr() != "" {
			t.Errorf("%s: exit status %d, %s", page, p.ExitCode(), p.Stderr())
		}
		if program == "" {
			continue
		}
		all := flags(r, filepath.Join(at, program))
		if len(all) < 5 {
			t.Errorf("%s has the flags %q: too few to be all", program, all)
		}
		for _, f := range all {
			if !strings.Contains(p.Stdout(), "--"+f) {
				t.Errorf("%s has no --%s", page, f)
			}
		}
	}
	// poemq.toml(5) has the file itself.
	c := r.Command("man", "-E", "UTF-8", "-l", filepath.Join(at, "share/man/man5/poemq.toml.5.gz"))
	c.Outside, c.Env = true, []string{"MANWIDTH=200", "PAGER=cat"}
	page := c.Output()
	for _, key := range []string{"udp_port = ", "head_start = ", "[[expose]]"} {
		if !strings.Contains(page, key) {
			t.Errorf("poemq.toml(5) has no %q", key)
		}
	}
}

// TestCompletions asks the shells themselves.
func TestCompletions(t *testing.T) {
	r := rig.New(t, "bash", "zsh", "fish")
	at := installed(r, "/usr")
	ask := func(shell ...any) string {
		c := r.Command(shell...)
		c.Outside = true
		c.Env = []string{"PATH=" + at + "/bin:" + at + "/sbin:/usr/bin:/bin", "XDG_DATA_HOME=" + r.Dir, "XDG_CONFIG_HOME=" + r.Dir}
		return c.Output()
	}
	bash := `source ` + at + `/share/bash-completion/completions/poemq-launch
complete() { local words=($1); COMP_WORDS=("${words[@]}"); [[ $1 != *" " ]] || COMP_WORDS+=("")
COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); compopt() { :; }; _poemq_launch 2>&1; echo "${COMPREPLY[@]}"; }
`
	for line, want := range map[string]string{
		"poemq-launch --quic r":              "require",
		"poemq-launch --on-broker-missing p": "plain",
		"poemq-launch --qu":                  "--quic",
		"poemq-launch --quic off -- poemqct": "poemqctl",
		"poemq-launch poemqct":               "poemqctl",
	} {
		if got := strings.TrimSpace(ask("bash", "--norc", "-c", bash+"complete '"+line+"'")); got != want {
			t.Errorf("bash: %q gives %q, want %q", line, got, want)
		}
		// Ends of words that fish gives have descriptions behind a tab.
		got := ask("fish", "--no-config", "-c", "source "+at+"/share/fish/vendor_completions.d/poemq-launch.fish; complete -C '"+line+"'")
		if !strings.HasPrefix(got, want) && !strings.Contains(got, "\n"+want) {
			t.Errorf("fish: %q gives %q, want %q", line, got, want)
		}
	}
	// zsh takes the file; its flags are those of --help, as bash's and fish's.
	ask("zsh", "-f", "-c", "fpath=("+at+"/share/zsh/site-functions $fpath); autoload -U compinit; compinit -u -D; [ ${_comps[poemq-launch]} = _poemq-launch ] && autoload +X _poemq-launch _poemqd _poemqctl")
	for _, file := range []string{"share/bash-completion/completions/poemq-launch", "share/zsh/site-functions/_poemq-launch", "share/fish/vendor_completions.d/poemq-launch.fish"} {
		text, err := os.ReadFile(filepath.Join(at, file))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range flags(r, filepath.Join(at, "bin/poemq-launch")) {
			if !strings.Contains(string(text), f) {
				t.Errorf("%s has no --%s", file, f)
			}
		}
	}
	for _, program := range []string{"poemqd", "poemqctl"} {
		ask("bash", "-n", at+"/share/bash-completion/completions/"+program)
		ask("fish", "-n", at+"/share/fish/vendor_completions.d/"+program+".fish")
	}
}
