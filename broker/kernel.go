package broker

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Raw socket calls, so that the kernel judges what a program gave it, to the
// byte: x/sys wraps them in types that only hold what is right.

func rawBind(fd int, sa []byte) unix.Errno {
	_, _, e := unix.Syscall(unix.SYS_BIND, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(sa))), uintptr(len(sa)))
	return e
}

func rawSetsockopt(fd, level, name int, val []byte) unix.Errno {
	_, _, e := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), uintptr(level), uintptr(name),
		uintptr(unsafe.Pointer(unsafe.SliceData(val))), uintptr(len(val)), 0)
	return e
}

// rawGetsockopt fills val and returns how long the kernel says the value is.
func rawGetsockopt(fd, level, name int, val []byte) (int, unix.Errno) {
	n := uint32(len(val))
	_, _, e := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(name),
		uintptr(unsafe.Pointer(unsafe.SliceData(val))), uintptr(unsafe.Pointer(&n)), 0)
	return int(n), e
}

// asErrno is the kernel's error number in err, else fallback.
func asErrno(err error, fallback unix.Errno) unix.Errno {
	if err == nil {
		return 0
	}
	if e, ok := unwrapErrno(err); ok {
		if e == unix.EMFILE {
			return unix.ENFILE // it is the broker's table that is full, not the program's
		}
		return e
	}
	return fallback
}

func rawConnect(fd int, sa []byte) unix.Errno {
	_, _, e := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(sa))), uintptr(len(sa)))
	return e
}
