package launcher

import "golang.org/x/sys/unix"

// FilterSpec describes the seccomp filter. It is a value: it touches neither
// the kernel nor libseccomp until Assemble.
type FilterSpec struct {
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
type Cond struct {
	Arg         uint
	Mask, Value uint32
}

// A Rule is one system call, by its name on x86_64, with the conditions that
// must all hold.
type Rule struct {
	Call   string
	Action Action
	Conds  []Cond
}

// wholeCalls are trapped on every fd: whose socket it is, only the broker knows.
var wholeCalls = []string{"connect", "bind", "listen", "accept", "accept4", "getsockname", "getpeername"}

// optionLevels are the levels of which every option is trapped: an AF_UNIX
// socket knows none of them.
var optionLevels = []uint32{unix.IPPROTO_IP, unix.IPPROTO_TCP, unix.IPPROTO_IPV6}

// soPeerPIDFD is in Linux 6.5 (include/uapi/asm-generic/socket.h).
const soPeerPIDFD = 77

// The SOL_SOCKET options for which the program's AF_UNIX end would answer
// differently from a TCP socket, or that the broker must know of.
var (
	getOptions = []uint32{
		unix.SO_ERROR, unix.SO_PROTOCOL, unix.SO_DOMAIN, unix.SO_REUSEPORT,
		unix.SO_SNDBUF, unix.SO_RCVBUF,
		unix.SO_PEERCRED, unix.SO_PEERGROUPS, unix.SO_PEERSEC, soPeerPIDFD,
		unix.SO_ZEROCOPY, unix.SO_BINDTODEVICE, unix.SO_INCOMING_CPU, unix.SO_INCOMING_NAPI_ID,
		unix.SO_MAX_PACING_RATE, unix.SO_BUSY_POLL, unix.SO_MEMINFO,
	}
	setOptions = []uint32{
		unix.SO_REUSEADDR, unix.SO_DONTROUTE, unix.SO_BROADCAST, unix.SO_SNDBUF, unix.SO_RCVBUF,
		unix.SO_KEEPALIVE, unix.SO_OOBINLINE, unix.SO_PRIORITY, unix.SO_LINGER, unix.SO_REUSEPORT,
		unix.SO_PASSCRED, unix.SO_RCVLOWAT,
		unix.SO_RCVTIMEO, unix.SO_RCVTIMEO_NEW, unix.SO_SNDTIMEO, unix.SO_SNDTIMEO_NEW,
		unix.SO_BINDTODEVICE, unix.SO_MARK, unix.SO_SNDBUFFORCE, unix.SO_RCVBUFFORCE,
		unix.SO_BUSY_POLL, unix.SO_ZEROCOPY, unix.SO_MAX_PACING_RATE, unix.SO_INCOMING_CPU, unix.SO_TXTIME,
	}
)

// Rules are the rules for x86_64.
func (s FilterSpec) Rules() []Rule {
	var rs []Rule
	for _, m := range unique(s.Matches) {
		rs = append(rs, Rule{"socket", Notify, []Cond{
			equals(0, m.Domain), {1, sockTypeMask, m.Type}, equals(2, m.Proto),
		}})
	}
	for _, c := range wholeCalls {
		rs = append(rs, Rule{c, Notify, nil})
	}
	rs = append(rs, optionRules("getsockopt", getOptions)...)
	rs = append(rs, optionRules("setsockopt", setOptions)...)
	return append(rs, ioUring)
}

func optionRules(call string, names []uint32) []Rule {
	var rs []Rule
	for _, level := range optionLevels {
		rs = append(rs, Rule{call, Notify, []Cond{equals(1, level)}})
	}
	for _, name := range names {
		rs = append(rs, Rule{call, Notify, []Cond{equals(1, unix.SOL_SOCKET), equals(2, name)}})
	}
	return rs
}

// ForeignRules are the rules for i386. There the arguments may lie behind
// socketcall(2)'s pointer, so the same calls are trapped whatever their
// arguments; libseccomp makes of each both the call by its own number and
// socketcall with the call's number in the first argument (not all of
// socketcall: that would trap send and recv).
func (s FilterSpec) ForeignRules() []Rule {
	var rs []Rule
	for _, c := range append([]string{"socket", "getsockopt", "setsockopt"}, wholeCalls...) {
		rs = append(rs, Rule{c, Notify, nil})
	}
	return append(rs, ioUring)
}

// ioUring refuses io_uring, whose OP_SOCKET, OP_CONNECT and OP_ACCEPT seccomp
// does not see.
var ioUring = Rule{"io_uring_setup", Refuse, nil}

func equals(arg uint, v uint32) Cond { return Cond{arg, 0xffffffff, v} }
