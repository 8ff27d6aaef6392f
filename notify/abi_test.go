package notify

import (
	"errors"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The kernel writes as many bytes as its own structures have.
func TestSizes(t *testing.T) {
	var kernel notifSizes
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, seccompGetNotifSizes, 0, uintptr(unsafe.Pointer(&kernel)))
	if errno != 0 {
		t.Skipf("seccomp(GET_NOTIF_SIZES): %v", errno)
	}
	ours := notifSizes{
		uint16(unsafe.Sizeof(seccompNotif{})), uint16(unsafe.Sizeof(seccompNotifResp{})), uint16(unsafe.Sizeof(seccompData{})),
	}
	if kernel != ours {
		t.Errorf("structures are %+v bytes here, %+v in the kernel", ours, kernel)
	}
	if err := checkSizes(); err != nil {
		t.Error(err)
	}
}

// The numbers carry the sizes: a wrong one is ENOTTY or EINVAL at best.
func TestIoctlNumbers(t *testing.T) {
	const write, read = 1, 2
	number := func(dir, nr, size uintptr) uintptr { return dir<<30 | size<<16 | '!'<<8 | nr }
	for name, is := range map[string][2]uintptr{
		"RECV":      {ioctlRecv, number(read|write, 0, unsafe.Sizeof(seccompNotif{}))},
		"SEND":      {ioctlSend, number(read|write, 1, unsafe.Sizeof(seccompNotifResp{}))},
		"ID_VALID":  {ioctlIDValid, number(write, 2, 8)},
		"ADDFD":     {ioctlAddfd, number(write, 3, unsafe.Sizeof(seccompNotifAddfd{}))},
		"SET_FLAGS": {ioctlSetFlags, number(write, 4, 8)},
	} {
		if is[0] != is[1] {
			t.Errorf("SECCOMP_IOCTL_NOTIF_%s is %#x, want %#x", name, is[0], is[1])
		}
	}
}

func TestNewListenerOfSomethingElse(t *testing.T) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(p[0])
	if _, err := NewListener(p[1]); err == nil {
		t.Fatal("a pipe is taken for a listener")
	}
	poll := []unix.PollFd{{Fd: int32(p[0])}}
	if n, err := unix.Poll(poll, 0); n != 1 || poll[0].Revents&unix.POLLHUP == 0 {
		t.Errorf("it was not closed: %v", err)
	}
}

func TestCallNames(t *testing.T) {
	for c := Unknown; c <= socketCall; c++ {
		if c != Unknown && c.String() == "unknown" {
			t.Errorf("call %d has no name", c)
		}
	}
	if Call(200).String() != "unknown" {
		t.Error("what is no call has a name")
	}
	if callOf(ArchX86_64, unix.SYS_SOCKET) != Socket || callOf(ArchX86_64, unix.SYS_ACCEPT4) != Accept4 ||
		callOf(ArchX86_64, unix.SYS_READ) != Unknown || callOf(12345, unix.SYS_SOCKET) != Unknown {
		t.Error("x86_64's numbers")
	}
}

func TestSocketFlags(t *testing.T) {
	rest, nonblock, cloexec := SocketFlags(unix.SOCK_STREAM | unix.SOCK_NONBLOCK)
	if rest != unix.SOCK_STREAM || !nonblock || cloexec {
		t.Error(rest, nonblock, cloexec)
	}
	rest, nonblock, cloexec = SocketFlags(unix.SOCK_STREAM | unix.SOCK_CLOEXEC | 0x40)
	if rest != unix.SOCK_STREAM|0x40 || nonblock || !cloexec {
		t.Error(rest, nonblock, cloexec)
	}
}

// Arguments are C ints whose upper half a 64-bit program may leave anything in.
func TestArguments(t *testing.T) {
	n := &Notification{Arch: ArchX86_64, Args: [6]uint64{0xdeadbeef_ffffffff, 0x7fff_12345678}}
	if n.Int(0) != -1 {
		t.Errorf("int: %d", n.Int(0))
	}
	if n.Pointer(1) != 0x7fff_12345678 {
		t.Errorf("pointer: %#x", n.Pointer(1))
	}
	n.Arch = ArchI386
	if n.Pointer(1) != 0x12345678 {
		t.Errorf("pointer of i386: %#x", n.Pointer(1))
	}
}

func TestUnpackArguments(t *testing.T) {
	args := []uint32{2, 0x80000001, 3, 0xffffffff, 5}
	for sub, want := range socketCalls {
		n := &Notification{Arch: ArchI386, Call: socketCall, Args: [6]uint64{sub | 0xdead<<32, 0xffff0000_08048000, 99, 99, 99, 99}}
		read := func(addr uint64, b []byte) error {
			if addr != 0x08048000 {
				t.Errorf("%v: block at %#x", want.call, addr)
			}
			if len(b) != 4*want.args {
				t.Errorf("%v: a block of %d bytes, want %d", want.call, len(b), 4*want.args)
			}
			for i := range len(b) / 4 {
				*(*uint32)(unsafe.Pointer(&b[4*i])) = args[i]
			}
			return nil
		}
		if err := n.unpack(read); err != nil {
			t.Errorf("%v: %v", want.call, err)
		}
		var full [6]uint64
		for i := range want.args {
			full[i] = uint64(args[i])
		}
		if n.Call != want.call || n.Args != full {
			t.Errorf("unpacked as %v %v, want %v %v", n.Call, n.Args, want.call, full)
		}
	}

	// send, sendmsg and the like are no business of ours.
	unread := func(uint64, []byte) error {
		t.Error("memory is read for nothing")
		return nil
	}
	for _, sub := range []uint64{0, 9, 16, 21, 0xffffffff} {
		n := &Notification{Arch: ArchI386, Call: socketCall, Args: [6]uint64{sub}}
		if err := n.unpack(unread); err != nil || n.Call != Unknown {
			t.Errorf("socketcall %d: %v, %v", sub, n.Call, err)
		}
	}
	fault := func(uint64, []byte) error { return unix.EFAULT }
	n := &Notification{Arch: ArchI386, Call: socketCall, Args: [6]uint64{1, 8}}
	if err := n.unpack(fault); !errors.Is(err, unix.EFAULT) || n.Call != socketCall {
		t.Errorf("a block that cannot be read: %v, %v", n.Call, err)
	}
	n = &Notification{Arch: ArchX86_64, Call: Socket, Args: [6]uint64{1, 2, 3}}
	if err := n.unpack(unread); err != nil || n.Call != Socket || n.Args[2] != 3 {
		t.Errorf("an ordinary call: %v, %v", n, err)
	}
}
