package apps

import (
	"fmt"
	"strings"
	"testing"

	"github.com/poemq/poemq/test/rig"
)

// git daemon hands each connection to a child as its standard input and output.
func TestGitDaemon(t *testing.T) {
	r := rig.New(t, "git")
	port := r.Port()
	identity := []string{
		"GIT_AUTHOR_NAME=Poet", "GIT_AUTHOR_EMAIL=poet@example.org",
		"GIT_COMMITTER_NAME=Poet", "GIT_COMMITTER_EMAIL=poet@example.org", "GIT_CONFIG_NOSYSTEM=1",
	}
	git := func(outside bool, args ...any) string {
		t.Helper()
		c := r.Command(append([]any{"git"}, args...)...)
		c.Env, c.Outside = identity, outside
		return strings.TrimSpace(c.Output())
	}
	local := func(args ...any) string { t.Helper(); return git(true, args...) }
	remote := func(args ...any) string { t.Helper(); return git(false, args...) }

	local("init", "-q", "--bare", "-b", "main", r.Path("srv/poems.git"))
	local("init", "-q", "-b", "main", r.Path("work"))
	for i := range 300 {
		r.Write(fmt.Sprintf("work/%d/%d.txt", i%20, i), strings.Repeat(fmt.Sprintln("line", i), i))
	}
	r.Random("work/big", 5<<20)
	local("-C", r.Path("work"), "add", ".")
	local("-C", r.Path("work"), "commit", "-q", "-m", "poems")
	want := local("-C", r.Path("work"), "rev-parse", "HEAD^{tree}")

	daemon := r.Command("git", "daemon", "--reuseaddr", "--listen=127.0.0.1", fmt.Sprint("--port=", port),
		"--base-path="+r.Path("srv"), "--export-all", "--enable=receive-pack", "--verbose")
	daemon.Env = identity
	server := daemon.Start()
	server.Listens(port)

	url := fmt.Sprintf("git://127.0.0.1:%d/poems.git", port)
	remote("-C", r.Path("work"), "push", "-q", url, "main")
	remote("clone", "-q", url, r.Path("clone"))
	local("-C", r.Path("clone"), "fsck", "--full", "--strict")
	if got := local("-C", r.Path("clone"), "rev-parse", "HEAD^{tree}"); got != want {
		t.Errorf("the clone's tree is %s, want %s", got, want)
	}

	// A second round: a small push from the clone, fetched by the first.
	r.Write("clone/new", "a new line\n")
	local("-C", r.Path("clone"), "add", ".")
	local("-C", r.Path("clone"), "commit", "-q", "-m", "a line")
	remote("-C", r.Path("clone"), "push", "-q", "origin", "main")
	remote("-C", r.Path("work"), "pull", "-q", "--ff-only", url, "main")
	if a, b := local("-C", r.Path("work"), "rev-parse", "HEAD"), local("-C", r.Path("clone"), "rev-parse", "HEAD"); a != b {
		t.Errorf("after push and pull: %s and %s", a, b)
	}
	// --verbose logs the client's address.
	if !strings.Contains(server.Stderr(), "Connection from 127.0.0.1:") {
		t.Errorf("git daemon does not know its client:\n%s", server.Stderr())
	}
}
