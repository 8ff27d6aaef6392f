package addfd

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// What is asked of an end for every message is asked by raw system calls: an
// ordinary one wakes the thread that looks after Go's scheduler, if it sleeps,
// and these wait for nothing.

// Unread is how many octets are in fd's queue to be read (SIOCINQ, unix(7)).
func Unread(fd int) (int, error) {
	var n int32
	if _, _, errno := unix.RawSyscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCINQ, uintptr(unsafe.Pointer(&n))); errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// events is what poll(2) tells of fd now, of those asked for and of POLLHUP,
// POLLERR and POLLNVAL. An error counts as none.
func events(fd int, asked int16) int16 {
	p := unix.PollFd{Fd: int32(fd), Events: asked}
	var now unix.Timespec
	n, _, errno := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&p)), 1, uintptr(unsafe.Pointer(&now)), 0, 0, 0)
	if errno != 0 || n == 0 {
		return 0
	}
	return p.Revents
}

// HungUp reports that both directions of an end are shut down, or that it is
// closed: see Closed.
func HungUp(fd int) bool { return events(fd, 0)&(unix.POLLHUP|unix.POLLNVAL) != 0 }

// ReadsEOF reports that nothing will follow what is in fd's queue.
func ReadsEOF(fd int) bool { return events(fd, unix.POLLRDHUP)&(unix.POLLRDHUP|unix.POLLHUP) != 0 }
