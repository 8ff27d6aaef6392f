package addfd

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// New makes the socket that a program is given by socket(2). The caller closes
// its fd after injection. cookie names the socket for as long as the machine
// runs; it survives dup, fork, exec and SCM_RIGHTS (SO_COOKIE, socket(7)).
func New(nonblock bool) (fd int, cookie uint64, err error) {
	typ := unix.SOCK_STREAM | unix.SOCK_CLOEXEC
	if nonblock {
		typ |= unix.SOCK_NONBLOCK
	}
	fd, err = unix.Socket(unix.AF_UNIX, typ, 0)
	if err != nil {
		return -1, 0, fmt.Errorf("socket(AF_UNIX): %w", err)
	}
	cookie, err = Cookie(fd)
	if err != nil {
		unix.Close(fd)
		return -1, 0, err
	}
	return fd, cookie, nil
}

// Cookie is the identity of a socket. ENOTSOCK: fd is something else.
func Cookie(fd int) (uint64, error) {
	return unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
}

// Nonblocking reports the O_NONBLOCK flag of the open file.
func Nonblocking(fd int) bool {
	fl, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	return err == nil && fl&unix.O_NONBLOCK != 0
}

// Inode is what /proc/PID/fd shows of a socket; 0 when it is not known.
func Inode(fd int) uint64 {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return 0
	}
	return st.Ino
}
