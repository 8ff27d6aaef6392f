package notify

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// Call is a system call by meaning, whatever its number under an architecture.
type Call uint8

// The calls a filter of ours traps.
const (
	Unknown Call = iota
	Socket
	Bind
	Connect
	Listen
	Accept
	GetSockName
	GetPeerName
	SetSockOpt
	GetSockOpt
	Accept4
	Shutdown
	Ioctl
	ChangeNetNS // setns(2), and unshare(2) of the network namespace
	socketCall  // i386 socketcall(2): what it means stands in memory
)

var callNames = [...]string{
	"unknown", "socket", "bind", "connect", "listen", "accept", "getsockname",
	"getpeername", "setsockopt", "getsockopt", "accept4", "shutdown", "ioctl", "setns or unshare", "socketcall",
}

func (c Call) String() string {
	if int(c) < len(callNames) {
		return callNames[c]
	}
	return "unknown"
}

// AUDIT_ARCH_* of <linux/audit.h>.
const (
	ArchX86_64 = 0xc000003e
	ArchI386   = 0x40000003
	ArchARM64  = 0xc00000b7
	ArchARM    = 0x40000028 // 32-bit programs on arm64
)

var callTables = map[uint32]map[int32]Call{
	ArchX86_64: {
		41: Socket, 42: Connect, 43: Accept, 49: Bind, 50: Listen, 51: GetSockName,
		52: GetPeerName, 54: SetSockOpt, 55: GetSockOpt, 288: Accept4, 48: Shutdown, 16: Ioctl,
		272: ChangeNetNS, 308: ChangeNetNS,
	},
	ArchI386: {
		102: socketCall, 359: Socket, 361: Bind, 362: Connect, 363: Listen, 364: Accept4,
		365: GetSockOpt, 366: SetSockOpt, 367: GetSockName, 368: GetPeerName, 373: Shutdown, 54: Ioctl,
		310: ChangeNetNS, 346: ChangeNetNS,
	},
	ArchARM64: {
		198: Socket, 200: Bind, 201: Listen, 202: Accept, 203: Connect, 204: GetSockName,
		205: GetPeerName, 208: SetSockOpt, 209: GetSockOpt, 242: Accept4, 210: Shutdown, 29: Ioctl,
		97: ChangeNetNS, 268: ChangeNetNS,
	},
	ArchARM: {
		281: Socket, 282: Bind, 283: Connect, 284: Listen, 285: Accept, 286: GetSockName,
		287: GetPeerName, 294: SetSockOpt, 295: GetSockOpt, 366: Accept4, 293: Shutdown, 54: Ioctl,
		375: ChangeNetNS, 337: ChangeNetNS,
	},
}

// CallOf is what a call of x86-64 with number nr means.
func CallOf(nr int32) Call { return callOf(ArchX86_64, nr) }

func callOf(arch uint32, nr int32) Call { return callTables[arch][nr] }

// socketcall(2) sub-calls of <linux/net.h>, with how many arguments each takes.
var socketCalls = map[uint64]struct {
	call Call
	args int
}{
	1: {Socket, 3}, 2: {Bind, 3}, 3: {Connect, 3}, 4: {Listen, 2}, 5: {Accept, 3},
	6: {GetSockName, 3}, 7: {GetPeerName, 3}, 13: {Shutdown, 2}, 14: {SetSockOpt, 5}, 15: {GetSockOpt, 5}, 18: {Accept4, 4},
}

// Unpack makes a socketcall(2) notification look like the call it carries. Any
// other notification, and a socketcall of another meaning, is left as it is.
// EFAULT: the argument block cannot be read.
func (n *Notification) Unpack() error {
	return n.unpack(func(addr uint64, b []byte) error {
		if err := n.Read(addr, b); err != nil {
			return err
		}
		if !n.Valid() {
			return ErrGone
		}
		return nil
	})
}

// unpack is Unpack with read for the target's memory.
func (n *Notification) unpack(read func(addr uint64, b []byte) error) error {
	if n.Call != socketCall {
		return nil
	}
	sub, ok := socketCalls[n.Args[0]&0xffffffff]
	if !ok {
		n.Call = Unknown
		return nil
	}
	var b [24]byte
	if err := read(n.Args[1]&0xffffffff, b[:4*sub.args]); err != nil {
		return err
	}
	n.Call, n.Args = sub.call, [6]uint64{}
	for i := range sub.args {
		n.Args[i] = uint64(binary.NativeEndian.Uint32(b[4*i:]))
	}
	return nil
}

// Int is argument i as the C int it is.
func (n *Notification) Int(i int) int { return int(int32(n.Args[i])) }

// Pointer is argument i as an address in the target.
func (n *Notification) Pointer(i int) uint64 {
	if n.Arch == ArchI386 || n.Arch == ArchARM {
		return n.Args[i] & 0xffffffff
	}
	return n.Args[i]
}

// SocketFlags splits socket(2)'s or accept4(2)'s flags from the rest.
func SocketFlags(v int) (rest int, nonblock, cloexec bool) {
	return v &^ (unix.SOCK_NONBLOCK | unix.SOCK_CLOEXEC), v&unix.SOCK_NONBLOCK != 0, v&unix.SOCK_CLOEXEC != 0
}
