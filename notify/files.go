package notify

import (
	"bytes"
	"errors"
	"io/fs"
	"iter"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Files are a process's open descriptors with what /proc/PID/fd calls their
// files. To list that directory takes to be its owner or CAP_DAC_READ_SEARCH,
// and not only ptrace access; without, the descriptors of processes under a
// filter are copied one after the other to find out.
func Files(pid int) iter.Seq2[int, string] {
	return func(yield func(int, string) bool) {
		dir := "/proc/" + strconv.Itoa(pid) + "/fd"
		f, err := os.Open(dir)
		if errors.Is(err, fs.ErrPermission) {
			copyEach(pid, yield)
			return
		}
		if err != nil {
			return
		}
		defer f.Close()
		names, _ := f.Readdirnames(-1)
		for _, name := range names {
			n, err := strconv.Atoi(name)
			if err != nil {
				continue
			}
			if link, err := os.Readlink(dir + "/" + name); err == nil && !yield(n, link) {
				return
			}
		}
	}
}

// copyEach is Files by copies.
func copyEach(pid int, yield func(int, string) bool) {
	size := filteredSize(pid)
	if size == 0 {
		return
	}
	t, err := OpenTarget(pid)
	if err != nil {
		return
	}
	defer t.Close()
	for n := range size {
		fd, err := t.Fd(n)
		if err == unix.EPERM || err == unix.ESRCH {
			return
		}
		if err != nil {
			continue
		}
		link, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
		unix.Close(fd)
		if err == nil && !yield(n, link) {
			return
		}
	}
}

// filteredSize is the size of a process's table of descriptors, which is no less
// than their highest number; 0 when it is under no filter (proc_pid_status(5),
// FDSize and Seccomp).
func filteredSize(pid int) (size int) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return 0
	}
	filtered := false
	for line := range bytes.Lines(b) {
		key, val, _ := strings.Cut(strings.TrimSpace(string(line)), ":")
		switch val = strings.TrimSpace(val); key {
		case "FDSize":
			size, _ = strconv.Atoi(val)
		case "Seccomp":
			filtered = val == "2"
		}
	}
	if !filtered {
		return 0
	}
	return size
}
