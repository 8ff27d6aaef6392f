package netns

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"golang.org/x/sys/unix"
)

// namesDir is where ip-netns(8) keeps names. Tests have one of their own.
var namesDir = "/run/netns"

// runtimeMade are names that container runtimes make up, one for each container.
var runtimeMade = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}`)

// Name is what the administrator calls the namespace with this inode, as in
// "ip netns add NAME"; "" if it has no such name. It is the only thing about a
// namespace that outlives a boot. What container runtimes name for a while is
// no name, nor what has white space or @ in it.
func Name(id uint64) string {
	own, err := Self()
	if err != nil {
		return ""
	}
	entries, err := os.ReadDir(namesDir)
	if err != nil {
		return ""
	}
	for _, e := range entries {
		name := e.Name()
		if runtimeMade.MatchString(name) || strings.ContainsAny(name, " \t\n\r\v\f@") {
			continue
		}
		var st unix.Stat_t
		if unix.Stat(filepath.Join(namesDir, name), &st) == nil && st.Ino == id && st.Dev == own.dev {
			return name
		}
	}
	return ""
}
