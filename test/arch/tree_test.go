package arch

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// mostLines is how long a file of source may be.
const mostLines = 500

// longFiles may be longer, each for a reason given here.
var longFiles = map[string]string{
	"test/conform/scenarios/bind.c":    family,
	"test/conform/scenarios/connect.c": family,
	"test/conform/scenarios/data.c":    family,
	"test/conform/scenarios/listen.c":  family,
	"test/conform/scenarios/process.c": family,
	"test/conform/scenarios/conform.h": "the one header of all families, so that a scenario has no other code in it",
}

const family = "one file is one family, a list of short scenarios that do not build on each other"

func TestFilesStayShort(t *testing.T) {
	kinds := []string{".go", ".c", ".h", ".S", ".sh", ".py"}
	walk(t, func(path string, content []byte) {
		lines := bytes.Count(content, []byte("\n"))
		if slices.Contains(kinds, filepath.Ext(path)) && lines > mostLines && longFiles[path] == "" {
			t.Errorf("%s has %d lines, more than %d", path, lines, mostLines)
		}
	})
}

// homes are people's directories, on any machine.
var homes = regexp.MustCompile(`(^|[^\w.])/(home|Users)/[A-Za-z][\w.-]*`)

// TestNoMachinePaths: the tree names neither somebody's home nor the place it
// is checked out at now.
func TestNoMachinePaths(t *testing.T) {
	var here []string
	if dir := root(t); strings.Count(dir, "/") > 1 {
		here = append(here, dir)
	}
	if home, err := os.UserHomeDir(); err == nil && home != "/" {
		here = append(here, home+"/")
	}
	walk(t, func(path string, content []byte) {
		if bytes.IndexByte(content, 0) >= 0 {
			return // no text
		}
		if found := homes.Find(content); found != nil {
			t.Errorf("%s names a home: %s", path, found)
		}
		for _, place := range here {
			if bytes.Contains(content, []byte(place)) {
				t.Errorf("%s names a path of this machine: %s", path, place)
			}
		}
	})
}

// walk calls visit for every file of the tree, but not for what is built or
// belongs to git.
func walk(t *testing.T, visit func(path string, content []byte)) {
	t.Helper()
	base := root(t)
	skip := []string{".git", "bin", "dist", "testdata", "results"}
	err := filepath.WalkDir(base, func(full string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		path, err := filepath.Rel(base, full)
		if err != nil {
			return err
		}
		if slices.Contains(skip, entry.Name()) {
			if entry.IsDir() {
				return fs.SkipDir
			}
			return nil // .git is a file in a worktree
		}
		if !entry.Type().IsRegular() {
			return nil
		}
		content, err := os.ReadFile(full)
		if err != nil {
			return err
		}
		visit(path, content)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
