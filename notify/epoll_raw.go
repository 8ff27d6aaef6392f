package notify

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// moveOne moves one registration. While the thread's descriptor n, which may be
// the runtime's own, is another file, nothing but system calls happens on it:
// no preemption, no growing of the stack.
//
//go:nosplit
//go:norace
func moveOne(n, from, to int, r *registration) unix.Errno {
	// What is n stays open under a number that is free.
	aside, _, errno := unix.RawSyscall(unix.SYS_FCNTL, uintptr(n), unix.F_DUPFD_CLOEXEC, 0)
	if errno != 0 && errno != unix.EBADF {
		return errno
	}
	taken := errno == 0
	files := [3]uintptr{uintptr(from), uintptr(to), uintptr(r.epoll)}
	for i := range files {
		if files[i] == uintptr(n) {
			files[i] = aside
		}
	}
	if _, _, errno = unix.RawSyscall(unix.SYS_DUP3, files[0], uintptr(n), unix.O_CLOEXEC); errno == 0 {
		_, _, errno = unix.RawSyscall6(unix.SYS_EPOLL_CTL, files[2], unix.EPOLL_CTL_DEL, uintptr(n), uintptr(unsafe.Pointer(&r.event)), 0, 0)
	}
	if errno == 0 {
		if _, _, errno = unix.RawSyscall(unix.SYS_DUP3, files[1], uintptr(n), unix.O_CLOEXEC); errno == 0 {
			_, _, errno = unix.RawSyscall6(unix.SYS_EPOLL_CTL, files[2], unix.EPOLL_CTL_ADD, uintptr(n), uintptr(unsafe.Pointer(&r.event)), 0, 0)
		}
	}
	if taken {
		unix.RawSyscall(unix.SYS_DUP3, aside, uintptr(n), unix.O_CLOEXEC)
		unix.RawSyscall(unix.SYS_CLOSE, aside, 0, 0)
	} else {
		unix.RawSyscall(unix.SYS_CLOSE, uintptr(n), 0, 0)
	}
	return errno
}
