package notify

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The kernel's structures of <linux/seccomp.h>.

type seccompData struct {
	nr   int32
	arch uint32
	ip   uint64
	args [6]uint64
}

type seccompNotif struct {
	id    uint64
	pid   uint32
	flags uint32
	data  seccompData
}

type seccompNotifResp struct {
	id    uint64
	val   int64
	error int32
	flags uint32
}

type seccompNotifAddfd struct {
	id         uint64
	flags      uint32
	srcfd      uint32
	newfd      uint32
	newfdFlags uint32
}

const (
	sizeNotif = 80
	sizeResp  = 24
	sizeData  = 64
	sizeAddfd = 24
)

// A negative array length here means a structure above is not the kernel's.
var (
	_ [0]struct{} = [unsafe.Sizeof(seccompNotif{}) - sizeNotif]struct{}{}
	_ [0]struct{} = [unsafe.Sizeof(seccompNotifResp{}) - sizeResp]struct{}{}
	_ [0]struct{} = [unsafe.Sizeof(seccompData{}) - sizeData]struct{}{}
	_ [0]struct{} = [unsafe.Sizeof(seccompNotifAddfd{}) - sizeAddfd]struct{}{}
)

const (
	seccompGetNotifSizes = 3

	respFlagContinue = 1 // SECCOMP_USER_NOTIF_FLAG_CONTINUE, Linux 5.5

	addfdFlagSetfd = 1 // SECCOMP_ADDFD_FLAG_SETFD, Linux 5.9
	addfdFlagSend  = 2 // SECCOMP_ADDFD_FLAG_SEND, Linux 5.14

	fdSyncWakeUp = 1 // SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP, Linux 6.6

	// SECCOMP_IOCTL_NOTIF_*: _IOWR('!', 0, 80), _IOWR('!', 1, 24),
	// _IOW('!', 2, 8), _IOW('!', 3, 24), _IOW('!', 4, 8).
	ioctlRecv     = 0xc0502100
	ioctlSend     = 0xc0182101
	ioctlIDValid  = 0x40082102
	ioctlAddfd    = 0x40182103
	ioctlSetFlags = 0x40082104
)

type notifSizes struct{ notif, resp, data uint16 }

// checkSizes compares our structures with the running kernel's
// (SECCOMP_GET_NOTIF_SIZES, Linux 5.0). A kernel may know longer ones; ours
// would then be overrun, so that is refused.
func checkSizes() error {
	var s notifSizes
	_, _, e := unix.Syscall(unix.SYS_SECCOMP, seccompGetNotifSizes, 0, uintptr(unsafe.Pointer(&s)))
	if e != 0 {
		return fmt.Errorf("seccomp(GET_NOTIF_SIZES): %w (seccomp user notification needs Linux 5.14)", e)
	}
	if s.notif > sizeNotif || s.resp > sizeResp || s.data > sizeData {
		return fmt.Errorf("seccomp notification structures are %d, %d and %d bytes in this kernel, at most %d, %d and %d are known: a newer poemqd is needed",
			s.notif, s.resp, s.data, sizeNotif, sizeResp, sizeData)
	}
	return nil
}

func ioctl(fd int, req uintptr, arg unsafe.Pointer) (int, unix.Errno) {
	n, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), req, uintptr(arg))
	return int(n), e
}
