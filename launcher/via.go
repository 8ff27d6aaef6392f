package launcher

/*
#include "probe.h"
*/
import "C"

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Ways in for the program's calls (--via).
const (
	ViaSeccomp = "seccomp" // a filter traps them
	ViaZpoline = "zpoline" // a library in the program catches them
	ViaAuto    = "auto"    // seccomp, where it can be had
)

// chooseVia settles ViaAuto.
func chooseVia(o *Options, cmd command) error {
	if o.Via != ViaAuto {
		return nil
	}
	noNewPrivs := 1
	if capable(unix.CAP_SYS_ADMIN) {
		noNewPrivs = 0
	}
	errno := unix.Errno(C.poemq_probe_listener(C.int(noNewPrivs)))
	if errno == 0 {
		o.Via = ViaSeccomp
		return nil
	}
	if err := catchable(cmd); err != nil {
		err.What, err.Hint = "--via auto", ""
		var no *Error
		if errors.As(loadError(errno), &no) {
			err.Hint = "and seccomp cannot be had: " + no.Error()
		}
		return err
	}
	o.Via = ViaZpoline
	return nil
}

// catchable tells whether the command's calls can be caught by a library that
// the dynamic loader loads into it.
func catchable(cmd command) *Error {
	for _, p := range cmd.paths {
		if executable(p) == nil {
			return catchableFile(p, 0)
		}
	}
	return nil // execve(2) will say
}

// mostInterpreters is how many scripts the kernel runs by another
// (fs/exec.c).
const mostInterpreters = 5

func catchableFile(path string, depth int) *Error {
	refuse := func(why string) *Error {
		return &Error{What: "--via zpoline", On: path, Why: why, Hint: "use --via seccomp"}
	}
	f, err := os.Open(path)
	if err != nil {
		return refuse("it cannot be looked at: " + err.Error()) // it may be executable and not readable
	}
	defer f.Close()
	if raises(f, path) {
		return refuse("it is set-user-ID, set-group-ID or has file capabilities, and the dynamic loader takes no library from the environment then")
	}
	head := make([]byte, 4096)
	n, _ := io.ReadFull(f, head)
	head = head[:n]
	switch interpreter := script(head); {
	case interpreter != "" && depth < mostInterpreters:
		return catchableFile(interpreter, depth+1)
	case interpreter != "":
		return nil
	case !bytes.HasPrefix(head, []byte("\x7fELF")):
		return nil // execve(2) will say
	}
	dynamic, machine := elf(f, head)
	switch {
	case machine != emX86_64:
		return refuse("it is no x86-64 program")
	case !dynamic:
		return refuse("it is statically linked, and the dynamic loader has no part in it")
	}
	return nil
}

// raises tells whether executing f makes the dynamic loader careful (AT_SECURE,
// getauxval(3)).
func raises(f *os.File, path string) bool {
	var st unix.Stat_t
	if unix.Fstat(int(f.Fd()), &st) != nil {
		return false
	}
	if st.Mode&unix.S_ISUID != 0 && int(st.Uid) != os.Getuid() || st.Mode&unix.S_ISGID != 0 && int(st.Gid) != os.Getgid() {
		return true
	}
	n, err := unix.Getxattr(path, "security.capability", nil)
	return err == nil && n > 0 && os.Geteuid() != 0
}

// script is the interpreter that a file which begins with head names.
func script(head []byte) string {
	if !bytes.HasPrefix(head, []byte("#!")) {
		return ""
	}
	line, _, _ := strings.Cut(string(head[2:]), "\n")
	words := strings.Fields(line)
	if len(words) == 0 {
		return ""
	}
	return words[0]
}

// Of <elf.h>.
const (
	emX86_64    = 62
	ptInterp    = 3
	elfClass64  = 2
	sizeEhdr    = 64
	sizePhdr    = 56
	offMachine  = 18
	offPhoff    = 32
	offPhentnum = 56
)

// elf tells of an ELF file that begins with head whether it names a dynamic
// loader, and its machine; 0 for one with a 32-bit class.
func elf(f io.ReaderAt, head []byte) (dynamic bool, machine uint16) {
	le := binary.LittleEndian
	if len(head) < sizeEhdr || head[4] != elfClass64 {
		return false, 0
	}
	machine = le.Uint16(head[offMachine:])
	at, n := int64(le.Uint64(head[offPhoff:])), int(le.Uint16(head[offPhentnum:]))
	for i := range n {
		var ph [sizePhdr]byte
		if _, err := f.ReadAt(ph[:], at+int64(i)*sizePhdr); err != nil {
			break
		}
		if le.Uint32(ph[:]) == ptInterp {
			return true, machine
		}
	}
	return false, machine
}
