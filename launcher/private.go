package launcher

/*
#include <stdlib.h>
#include "inherit.h"
*/
import "C"

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// findPoemqd finds the embedded broker's binary: the given one, or beside this
// executable and where packages put it.
func findPoemqd(given string, env []string) (string, error) {
	if given != "" {
		if err := executable(given); err != nil {
			return "", &Error{What: "embedded broker", On: given, Err: err, Hint: "name poemqd with --poemqd"}
		}
		return given, nil
	}
	var places []string
	if exe := self(); exe != "" {
		dir := filepath.Dir(exe)
		places = append(places, filepath.Join(dir, "poemqd"), filepath.Join(dir, "../libexec/poemq/poemqd"), filepath.Join(dir, "../sbin/poemqd"))
	}
	places = append(places, "/usr/libexec/poemq/poemqd", "/usr/sbin/poemqd")
	for _, p := range append(places, candidates("poemqd", env)...) {
		if executable(p) == nil {
			return p, nil
		}
	}
	return "", &Error{
		What: "embedded broker", On: "poemqd", Why: "not found in " + strings.Join(places, ", ") + " or PATH",
		Hint: "install it, name it with --poemqd, start the system's broker, or choose --on-broker-missing plain",
	}
}

// self is the path of this executable, or empty if it cannot be told.
func self() string {
	if exe, err := os.Readlink("/proc/self/exe"); err == nil && !strings.HasSuffix(exe, " (deleted)") {
		return exe
	}
	if strings.Contains(os.Args[0], "/") {
		return os.Args[0]
	}
	return ""
}

// startPrivate starts poemqd as an orphan in its own session and returns the
// connection to it. When the program's tree and so the listener ends, poemqd
// ends by itself.
func startPrivate(poemqd string, env []string, in inherited) (int, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, &Error{What: "embedded broker", Err: err}
	}
	args := []string{poemqd, "private", "--session-fd", strconv.Itoa(handedFD)}
	_, err = spawn(poemqd, args, env, in, pair[1], true)
	unix.Close(pair[1])
	if err != nil {
		unix.Close(pair[0])
		return -1, &Error{What: "embedded broker", On: poemqd, Err: err, Hint: "name a working poemqd with --poemqd"}
	}
	return pair[0], nil
}

// spawn starts path with fd as its descriptor 3. Detached, it is an orphan in
// its own session whose stdin and stdout are /dev/null, with no other descriptor
// but stderr, and the pid is 0; else it is a child with all that is inherited.
func spawn(path string, args, env []string, in inherited, fd int, detached bool) (int, error) {
	s := C.struct_poemq_spawn{
		path: C.CString(path), argv: cStrings(args), envp: cStrings(env),
		from: C.int(fd), to: handedFD,
		state: C.struct_poemq_inherited{
			blocked: C.uint64_t(in.blocked), ignored: C.uint64_t(in.ignored), nofile: C.uint64_t(in.nofile),
		},
	}
	if detached {
		s.detach = 1
	}
	pid := C.poemq_spawn(&s)
	C.free(unsafe.Pointer(s.path))
	freeStrings(s.argv, len(args))
	freeStrings(s.envp, len(env))
	if pid < 0 {
		return 0, syscall.Errno(-pid)
	}
	return int(pid), nil
}

// cStrings makes a null-terminated array in C's memory.
func cStrings(list []string) **C.char {
	array := (**C.char)(C.calloc(C.size_t(len(list)+1), C.size_t(unsafe.Sizeof((*C.char)(nil)))))
	for i, s := range list {
		unsafe.Slice(array, len(list))[i] = C.CString(s)
	}
	return array
}

func freeStrings(array **C.char, n int) {
	for _, s := range unsafe.Slice(array, n) {
		C.free(unsafe.Pointer(s))
	}
	C.free(unsafe.Pointer(array))
}
