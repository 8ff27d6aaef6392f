package addfd

import (
	"encoding/binary"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

var ownPID = uint32(os.Getpid())

// Fill queues bytes of ours from the program's attached socket, of which fd is
// a copy, until it takes no more: to the program it then looks as a TCP socket
// whose connection is not there yet. It returns how many bytes those are and
// the SO_SNDBUF to set afterwards.
func Fill(fd int) (fillers, sndbuf int, err error) {
	sndbuf, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF)
	if err != nil {
		return 0, 0, err
	}
	// At the smallest buffer a handful of bytes fills it: each is counted with
	// its kernel memory (unix(7), SO_SNDBUF).
	if err := SetSendBuffer(fd, 1); err != nil {
		return 0, 0, err
	}
	for {
		err := Trip(fd)
		switch err {
		case nil:
			fillers++
		case unix.EAGAIN:
			return fillers, sndbuf / 2, nil // the kernel doubles what is set
		default:
			return fillers, sndbuf / 2, err
		}
	}
}

// Trip queues one byte of ours from the program's attached socket, of which fd
// is a copy. While it is unread, closing the broker's end is a reset to the
// program. EAGAIN: the queue is full, which protects as well.
func Trip(fd int) error {
	return unix.Sendto(fd, marker, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, nil)
}

var marker = []byte{'.'}

// SendBuffer is the SO_SNDBUF that an AF_UNIX socket has when it is made, in bytes
// as getsockopt(2) tells them; 0 when none can be made.
func SendBuffer() int {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0
	}
	defer unix.Close(fd)
	n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF)
	if err != nil {
		return 0
	}
	return n
}

// SetSendBuffer sets SO_SNDBUF of fd to bytes as setsockopt(2) takes them, and
// leaves SO_BUF_LOCK as it was: that tells whether the program has set one.
func SetSendBuffer(fd, bytes int) error {
	lock, lockErr := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BUF_LOCK)
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, bytes); err != nil {
		return err
	}
	if lockErr != nil { // before Linux 5.17 nobody can ask
		return nil
	}
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BUF_LOCK, lock)
}

// Recv reads from the broker's end without blocking. n bytes are in buf; ours
// tells that they are bytes of ours, to be dropped. The two never come mixed.
// n == 0 with no error is the end of file. EAGAIN: nothing there. ECONNRESET:
// the program closed with data unread.
func Recv(end int, buf []byte) (n int, ours bool, err error) { return recv(end, buf, 0) }

// PeekOn has Peek give, from now on, only what it has not given before
// (SO_PEEK_OFF, socket(7)). Recv takes from the head of the queue all the same.
func PeekOn(end int) error {
	var from int32
	if _, _, errno := unix.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(end), unix.SOL_SOCKET, unix.SO_PEEK_OFF, uintptr(unsafe.Pointer(&from)), unsafe.Sizeof(from), 0); errno != 0 {
		return errno
	}
	return nil
}

// Peek is Recv that leaves what it reads in the queue (MSG_PEEK).
func Peek(end int, buf []byte) (n int, ours bool, err error) { return recv(end, buf, unix.MSG_PEEK) }

func recv(end int, buf []byte, flags uintptr) (n int, ours bool, err error) {
	var control [64]byte // one struct ucred: cmsghdr (16) + 12, aligned
	iov := unix.Iovec{Base: &buf[0]}
	iov.SetLen(len(buf))
	msg := unix.Msghdr{Iov: &iov, Iovlen: 1, Control: &control[0]}
	msg.SetControllen(len(control))
	for {
		r, _, e := unix.RawSyscall(unix.SYS_RECVMSG, uintptr(end), uintptr(unsafe.Pointer(&msg)), unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC|flags)
		if e == unix.EINTR {
			continue
		}
		if e != 0 {
			return 0, false, e
		}
		return int(r), senderPID(control[:msg.Controllen]) == ownPID, nil
	}
}

// senderPID finds the pid in an SCM_CREDENTIALS message. Descriptors a program
// tries to pass over what it takes for TCP are closed (sendmsg(2) on TCP takes
// no notice of them either).
func senderPID(control []byte) uint32 {
	var pid uint32
	for len(control) >= unix.SizeofCmsghdr {
		length := int(binary.NativeEndian.Uint64(control))
		typ := binary.NativeEndian.Uint32(control[12:])
		if length < unix.SizeofCmsghdr || length > len(control) {
			break
		}
		data := control[unix.SizeofCmsghdr:length]
		switch {
		case typ == unix.SCM_CREDENTIALS && len(data) >= 4:
			pid = binary.NativeEndian.Uint32(data)
		case typ == unix.SCM_RIGHTS:
			for ; len(data) >= 4; data = data[4:] {
				unix.Close(int(binary.NativeEndian.Uint32(data)))
			}
		}
		control = control[min(unix.CmsgSpace(length-unix.SizeofCmsghdr), len(control)):]
	}
	return pid
}
