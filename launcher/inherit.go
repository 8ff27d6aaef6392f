package launcher

/*
extern char **environ;
#include "inherit.h"
*/
import "C"

import (
	"errors"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// inherited is what was found at the start and what the program shall find.
// Signal sets have bit n-1 for signal n.
type inherited struct {
	blocked, ignored uint64
	nofile           uint64 // RLIMIT_NOFILE, soft
	closed           uint64 // bit n: descriptor n, of 0 to 2
	moved            int    // where descriptor handedFD was moved to; 0 if it was not open
}

// handedFD is the number of the descriptor given to a poemqd and, by it, to the
// inner launcher.
const handedFD = 3

// recorded is what the C constructor found before the Go runtime started.
func recorded() inherited {
	r := C.poemq_inherited
	return inherited{
		blocked: uint64(r.blocked), ignored: uint64(r.ignored),
		nofile: uint64(r.nofile), closed: uint64(r.closed),
	}
}

// The text is the value of --inherited: five hexadecimal numbers.
func (in inherited) String() string {
	var s []string
	for _, v := range in.numbers() {
		s = append(s, strconv.FormatUint(v, 16))
	}
	return strings.Join(s, ":")
}

func (in inherited) numbers() []uint64 {
	return []uint64{in.blocked, in.ignored, in.nofile, in.closed, uint64(in.moved)}
}

func parseInherited(s string) (inherited, error) {
	parts := strings.Split(s, ":")
	if len(parts) != len(inherited{}.numbers()) {
		return inherited{}, errors.New("want five numbers")
	}
	var v [5]uint64
	for i, p := range parts {
		n, err := strconv.ParseUint(p, 16, 64)
		if err != nil {
			return inherited{}, err
		}
		v[i] = n
	}
	if v[4] > 1<<30 {
		return inherited{}, errors.New("no such descriptor")
	}
	return inherited{v[0], v[1], v[2], v[3], int(v[4])}, nil
}

// restore gives everything back on the calling thread, which must be locked and
// about to call execve(2): Go's own signal handling is undone. Actions are set
// before the mask, so that no handler of Go's runs for a signal let through.
func (in inherited) restore() error {
	for fd := range 3 {
		if in.closed&(1<<fd) != 0 {
			unix.CloseOnExec(fd)
		}
	}
	if in.moved != 0 {
		if err := unix.Dup3(in.moved, handedFD, 0); err != nil {
			return &Error{What: "restore descriptor", On: strconv.Itoa(handedFD), Err: err}
		}
		unix.CloseOnExec(in.moved)
	}
	// syscall.Setrlimit, because it makes syscall.Exec forget the limit that the
	// runtime found and would set.
	var lim syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &lim); err == nil && lim.Cur != in.nofile {
		lim.Cur = min(in.nofile, lim.Max)
		_ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &lim) // lowering to an inherited value: cannot fail
	}
	C.poemq_set_actions(C.uint64_t(in.ignored))
	if e := C.poemq_set_mask(C.uint64_t(in.blocked)); e != 0 {
		return &Error{What: "restore signal mask", Err: syscall.Errno(e)}
	}
	return nil
}

// environ is the environment as it was given: os.Environ drops repeated names.
func environ() []string {
	var env []string
	for p := C.environ; p != nil && *p != nil; {
		env = append(env, C.GoString(*p))
		p = (**C.char)(unsafe.Add(unsafe.Pointer(p), unsafe.Sizeof(*p)))
	}
	return env
}
