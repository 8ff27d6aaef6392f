// Package filter says which system calls poemq's seccomp filter hands to the
// broker. It is a description and nothing else: no kernel, no libseccomp.
//
// It is the one source of the rules. The launcher makes BPF of them and loads it
// (launcher/assemble.go); package profile lays them over a container engine's
// seccomp profile, from which runc and crun make the filter.
package filter

import "golang.org/x/sys/unix"

// Spec describes the seccomp filter. It is a value.
type Spec struct {
	// Matches are the socket(2) calls to trap. None means no socket is ever
	// trapped, but the calls on sockets still are.
	Matches []Match

	// Optimize is libseccomp's SCMP_FLTATR_CTL_OPTIMIZE: 1 (its default, also
	// meant by 0) tests system calls one after the other, 2 in a binary tree.
	// The kernel remembers which calls are allowed whatever their arguments
	// (Linux 5.11), so both cost those the same (getppid: 108 ns without a
	// filter, 119 with); the tree is a little better for the others
	// (getsockopt: 107 ns, 142 one after the other, 139 in a tree).
	Optimize int
}

// Action is what the filter does with a call that fits a rule. Calls that fit
// none are allowed.
type Action int

const (
	Notify Action = iota // the broker answers: SECCOMP_RET_USER_NOTIF
	Refuse               // ENOSYS, as from a kernel without the call: programs fall back
)

// A Cond holds when argument Arg, and'ed with Mask, is Value. Masks leave out
// the upper 32 bits: the arguments compared here are C ints, and the kernel too
// reads only their lower half (seccomp_data has whole registers, seccomp(2)).
//
// With Not it holds when the whole register is not Value. Junk in the upper half
// then traps a call too many, which the broker lets through.
type Cond struct {
	Arg         uint
	Mask, Value uint32
	Not         bool
}

// A Rule is one system call, by its name, with the conditions that
// must all hold.
type Rule struct {
	Call   string
	Action Action
	Conds  []Cond
}

// wholeCalls are trapped on every fd: whose socket it is, only the broker knows.
var wholeCalls = []string{"connect", "bind", "listen", "accept", "accept4", "getsockname", "getpeername", "shutdown"}

// namespaceCalls move the caller to another network namespace: so the broker
// need not ask at every socket(2) where the caller is.
var namespaceCalls = []Rule{
	{"setns", Notify, nil},
	{"unshare", Notify, []Cond{{Arg: 0, Mask: unix.CLONE_NEWNET, Value: unix.CLONE_NEWNET}}},
}

// ioctls that an AF_UNIX socket does not know (ENOTTY), addresses of interfaces
// (netdevice(7)) and what TCP has not yet sent; and one that counts memory there
// and not octets. Those that programs call often (FIONREAD, FIONBIO) are not
// trapped.
var ioctls = []uint32{
	siocOutQ, siocGIfAddr, siocGIfDstAddr, siocGIfBrdAddr, siocGIfNetmask, siocOutQNSD,
}

// Of <linux/sockios.h>.
const (
	siocGIfAddr    = 0x8915
	siocGIfDstAddr = 0x8917
	siocGIfBrdAddr = 0x8919
	siocGIfNetmask = 0x891b
	siocOutQ       = 0x5411 // a terminal's TIOCOUTQ too
	siocOutQNSD    = 0x894b
)

// soPeerPIDFD is in Linux 6.5 (include/uapi/asm-generic/socket.h).
const soPeerPIDFD = 77

// GetOptions and SetOptions are the SOL_SOCKET options for which the program's AF_UNIX end would answer
// differently from a TCP socket, or that the broker must know of.
var (
	GetOptions = []uint32{
		unix.SO_ERROR, unix.SO_PROTOCOL, unix.SO_DOMAIN, unix.SO_REUSEPORT,
		unix.SO_SNDBUF, unix.SO_RCVBUF,
		unix.SO_RCVLOWAT, unix.SO_PASSCRED, unix.SO_PASSSEC,
		unix.SO_PEERCRED, unix.SO_PEERGROUPS, unix.SO_PEERSEC, soPeerPIDFD,
		unix.SO_ZEROCOPY, unix.SO_BINDTODEVICE, unix.SO_INCOMING_CPU, unix.SO_INCOMING_NAPI_ID,
		unix.SO_MAX_PACING_RATE, unix.SO_BUSY_POLL, unix.SO_MEMINFO,
	}
	SetOptions = []uint32{
		unix.SO_REUSEADDR, unix.SO_DONTROUTE, unix.SO_BROADCAST, unix.SO_SNDBUF, unix.SO_RCVBUF,
		unix.SO_KEEPALIVE, unix.SO_OOBINLINE, unix.SO_PRIORITY, unix.SO_LINGER, unix.SO_REUSEPORT,
		unix.SO_PASSCRED, unix.SO_PASSSEC, unix.SO_RCVLOWAT,
		unix.SO_TIMESTAMPING_OLD, unix.SO_TIMESTAMPING_NEW,
		unix.SO_ATTACH_REUSEPORT_CBPF, unix.SO_ATTACH_REUSEPORT_EBPF,
		unix.SO_RCVTIMEO, unix.SO_RCVTIMEO_NEW, unix.SO_SNDTIMEO, unix.SO_SNDTIMEO_NEW,
		unix.SO_BINDTODEVICE, unix.SO_MARK, unix.SO_SNDBUFFORCE, unix.SO_RCVBUFFORCE,
		unix.SO_BUSY_POLL, unix.SO_ZEROCOPY, unix.SO_MAX_PACING_RATE, unix.SO_INCOMING_CPU, unix.SO_TXTIME,
	}
)

// Rules are the rules for the machine's own system calls (x86_64, arm64).
func (s Spec) Rules() []Rule {
	var rs []Rule
	for _, m := range Unique(s.Matches) {
		rs = append(rs, Rule{"socket", Notify, []Cond{
			equals(0, m.Domain), {Arg: 1, Mask: sockTypeMask, Value: m.Type}, equals(2, m.Proto),
		}})
	}
	for _, c := range wholeCalls {
		rs = append(rs, Rule{c, Notify, nil})
	}
	for _, cmd := range ioctls {
		rs = append(rs, Rule{"ioctl", Notify, []Cond{equals(1, cmd)}})
	}
	rs = append(rs, namespaceCalls...)
	rs = append(rs, optionRules("getsockopt", GetOptions)...)
	rs = append(rs, optionRules("setsockopt", SetOptions)...)
	return append(rs, ioUring)
}

// optionRules trap the named options of SOL_SOCKET and every option of any other
// level: an AF_UNIX socket knows none, and refuses them in other words.
func optionRules(call string, names []uint32) []Rule {
	rs := []Rule{{call, Notify, []Cond{{Arg: 1, Value: unix.SOL_SOCKET, Not: true}}}}
	for _, name := range names {
		rs = append(rs, Rule{call, Notify, []Cond{equals(1, unix.SOL_SOCKET), equals(2, name)}})
	}
	return rs
}

// ForeignRules are the rules for 32-bit programs. On i386 the arguments may lie
// behind socketcall(2)'s pointer, so the same calls are trapped whatever their
// arguments; libseccomp makes of each both the call by its own number and
// socketcall with the call's number in the first argument (not all of
// socketcall: that would trap send and recv).
func (s Spec) ForeignRules() []Rule {
	var rs []Rule
	for _, c := range append([]string{"socket", "getsockopt", "setsockopt"}, wholeCalls...) {
		rs = append(rs, Rule{c, Notify, nil})
	}
	for _, cmd := range ioctls {
		rs = append(rs, Rule{"ioctl", Notify, []Cond{equals(1, cmd)}})
	}
	return append(append(rs, namespaceCalls...), ioUring)
}

// ioUring refuses io_uring, whose OP_SOCKET, OP_CONNECT and OP_ACCEPT seccomp
// does not see.
var ioUring = Rule{"io_uring_setup", Refuse, nil}

func equals(arg uint, v uint32) Cond { return Cond{Arg: arg, Mask: 0xffffffff, Value: v} }
