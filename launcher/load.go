package launcher

import (
	"errors"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// load puts the filter on the calling thread alone, which must be locked, and
// returns the listener (close-on-exec; the caller closes it). A task without
// CAP_SYS_ADMIN in its user namespace has to give up set-user-ID programs for
// it: no_new_privs (seccomp(2)).
//
// Not set are SECCOMP_FILTER_FLAG_TSYNC (the launcher's other threads must not
// wait for the broker) and WAIT_KILLABLE_RECV (a server in accept has to run
// its signal handlers).
func load(prog []unix.SockFilter) (int, error) {
	if !capable(unix.CAP_SYS_ADMIN) {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return -1, &Error{What: "load filter", On: "no_new_privs", Err: err}
		}
	}
	fprog := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	const flags = unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&fprog)))
	if errno != 0 {
		return -1, loadError(errno)
	}
	return int(fd), nil
}

func loadError(errno unix.Errno) error {
	e := &Error{What: "load filter", On: "seccomp", Err: errno}
	switch errno {
	case unix.EBUSY:
		e.Why = "this process tree already has a seccomp listener"
		e.Hint = "run poemq-launch only once in a tree, and not inside a container whose engine listens itself (an OCI seccomp agent, LXC, another poemq-launch)"
	case unix.ENOSYS, unix.EINVAL, unix.EOPNOTSUPP:
		e.Why = "the kernel is too old, or hides seccomp user notification"
		e.Hint = "poemq needs Linux 5.14 or newer"
	case unix.EPERM, unix.EACCES:
		e.Hint = "the container's or service's own seccomp profile has to allow seccomp(2)"
	case unix.ENOMEM:
		e.Why = "too many filters are loaded already"
	}
	return e
}

// capable tells whether the calling thread has a capability in effect.
func capable(capability int) bool {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return false
	}
	return data[capability/32].Effective&(1<<(capability%32)) != 0
}

// tracer tells whether this process, and so a broker it starts, may read the
// memory of processes that are not its descendants: with CAP_SYS_PTRACE, or
// where Yama is absent or 0 (Documentation/admin-guide/LSM/Yama.rst).
func tracer() bool {
	if capable(unix.CAP_SYS_PTRACE) {
		return true
	}
	scope, err := os.ReadFile("/proc/sys/kernel/yama/ptrace_scope")
	return errors.Is(err, os.ErrNotExist) || err == nil && len(scope) > 0 && scope[0] == '0'
}
