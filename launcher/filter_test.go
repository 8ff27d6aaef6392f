package launcher

import (
	"encoding/binary"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/poemq/poemq/launcher/filter"
	seccomp "github.com/seccomp/libseccomp-golang"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

var update = flag.Bool("update", false, "write the golden files anew")

// Values of seccomp_data.arch (include/uapi/linux/audit.h).
const (
	archX86_64 = 0xc000003e
	archI386   = 0x40000003
	archARM64  = 0xc00000b7
)

const (
	retAllow  = 0x7fff0000
	retNotify = 0x7fc00000
	retENOSYS = 0x00050000 | uint32(unix.ENOSYS)
)

// spec261 is the default and one match more.
var spec261 = filter.Spec{Matches: append(filter.DefaultMatches(), filter.Match{Domain: unix.AF_INET, Type: unix.SOCK_STREAM, Proto: 261})}

func assembled(t testing.TB, optimize int) []unix.SockFilter {
	t.Helper()
	s := spec261
	s.Optimize = optimize
	prog, err := assembleFor("amd64", s)
	if err != nil {
		t.Fatal(err)
	}
	return prog
}

// run gives the filter's answer. The VM loads big-endian words, as from a
// packet, where the kernel's seccomp_data has native ones: so each 32-bit word
// is written big-endian in its native place (lower half of an argument first).
func run(t *testing.T, vm *bpf.VM, arch, nr uint32, args [6]uint64) uint32 {
	t.Helper()
	data := make([]byte, 64)
	binary.BigEndian.PutUint32(data[0:], nr)
	binary.BigEndian.PutUint32(data[4:], arch)
	for i, a := range args {
		binary.BigEndian.PutUint32(data[16+8*i:], uint32(a))
		binary.BigEndian.PutUint32(data[20+8*i:], uint32(a>>32))
	}
	ret, err := vm.Run(data)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(ret)
}

func virtual(t *testing.T, prog []unix.SockFilter) *bpf.VM {
	t.Helper()
	raw := make([]bpf.RawInstruction, len(prog))
	for i, f := range prog {
		raw[i] = bpf.RawInstruction{Op: f.Code, Jt: f.Jt, Jf: f.Jf, K: f.K}
	}
	ins, ok := bpf.Disassemble(raw)
	if !ok {
		t.Fatal("the filter has an instruction the VM does not know")
	}
	vm, err := bpf.NewVM(ins)
	if err != nil {
		t.Fatal(err)
	}
	return vm
}

func TestFilterAnswers(t *testing.T) {
	const high = 0xdeadbeef << 32
	x86, i386 := uint32(archX86_64), uint32(archI386)
	type args = [6]uint64
	for _, c := range []struct {
		name string
		arch uint32
		nr   uint32
		args args
		want uint32
	}{
		{"socket inet stream 0", x86, unix.SYS_SOCKET, args{2, 1, 0}, retNotify},
		{"socket inet stream tcp", x86, unix.SYS_SOCKET, args{2, 1, 6}, retNotify},
		{"socket inet6 stream 0", x86, unix.SYS_SOCKET, args{10, 1, 0}, retNotify},
		{"socket inet stream quic", x86, unix.SYS_SOCKET, args{2, 1, 261}, retNotify},
		{"socket inet6 stream quic", x86, unix.SYS_SOCKET, args{10, 1, 261}, retAllow},
		{"socket nonblock cloexec", x86, unix.SYS_SOCKET, args{2, 1 | unix.SOCK_NONBLOCK | unix.SOCK_CLOEXEC, 0}, retNotify},
		{"socket junk flags", x86, unix.SYS_SOCKET, args{2, 1 | 0x100, 0}, retNotify},
		{"socket dirty registers", x86, unix.SYS_SOCKET, args{high | 2, high | 1, high | 6}, retNotify},
		{"socket inet dgram", x86, unix.SYS_SOCKET, args{2, 2, 0}, retAllow},
		{"socket inet raw", x86, unix.SYS_SOCKET, args{2, 3, 6}, retAllow},
		{"socket inet type 0x11", x86, unix.SYS_SOCKET, args{2, 0x11, 0}, retNotify},
		{"socket inet stream sctp", x86, unix.SYS_SOCKET, args{2, 1, 132}, retAllow},
		{"socket unix stream", x86, unix.SYS_SOCKET, args{1, 1, 0}, retAllow},
		{"socketpair", x86, unix.SYS_SOCKETPAIR, args{1, 1, 0}, retAllow},
		{"connect", x86, unix.SYS_CONNECT, args{3}, retNotify},
		{"bind", x86, unix.SYS_BIND, args{3}, retNotify},
		{"listen", x86, unix.SYS_LISTEN, args{3}, retNotify},
		{"accept", x86, unix.SYS_ACCEPT, args{3}, retNotify},
		{"accept4", x86, unix.SYS_ACCEPT4, args{3}, retNotify},
		{"getsockname", x86, unix.SYS_GETSOCKNAME, args{3}, retNotify},
		{"getpeername", x86, unix.SYS_GETPEERNAME, args{3}, retNotify},
		{"getsockopt ip", x86, unix.SYS_GETSOCKOPT, args{3, 0, 99}, retNotify},
		{"getsockopt tcp info", x86, unix.SYS_GETSOCKOPT, args{3, 6, 11}, retNotify},
		{"getsockopt ipv6", x86, unix.SYS_GETSOCKOPT, args{3, 41, 26}, retNotify},
		{"getsockopt udp", x86, unix.SYS_GETSOCKOPT, args{3, 17, 4}, retNotify},
		{"getsockopt dirty", x86, unix.SYS_GETSOCKOPT, args{3, high | 1, high | 4}, retNotify},
		{"getsockopt SO_TYPE", x86, unix.SYS_GETSOCKOPT, args{3, 1, 3}, retAllow},
		{"setsockopt tcp nodelay", x86, unix.SYS_SETSOCKOPT, args{3, 6, 1}, retNotify},
		{"setsockopt SO_ATTACH_FILTER", x86, unix.SYS_SETSOCKOPT, args{3, 1, 26}, retAllow},
		{"setsockopt netlink", x86, unix.SYS_SETSOCKOPT, args{3, 270, 1}, retNotify},
		{"setsockopt level -1", x86, unix.SYS_SETSOCKOPT, args{3, 1<<64 - 1, 1}, retNotify},
		{"setsockopt dirty level", x86, unix.SYS_SETSOCKOPT, args{3, high | 1, 9}, retNotify},
		{"shutdown", x86, unix.SYS_SHUTDOWN, args{3, 1}, retNotify},
		{"unshare of the network namespace", x86, unix.SYS_UNSHARE, args{unix.CLONE_NEWNET | unix.CLONE_NEWNS}, retNotify},
		{"unshare of others", x86, unix.SYS_UNSHARE, args{unix.CLONE_NEWUSER | unix.CLONE_NEWNS}, retAllow},
		{"setns", x86, unix.SYS_SETNS, args{3, 0}, retNotify},
		{"ioctl SIOCGIFADDR", x86, unix.SYS_IOCTL, args{3, 0x8915}, retNotify},
		{"ioctl dirty", x86, unix.SYS_IOCTL, args{3, high | 0x8915}, retNotify},
		{"ioctl SIOCOUTQ", x86, unix.SYS_IOCTL, args{3, 0x5411}, retNotify},
		{"ioctl FIONREAD", x86, unix.SYS_IOCTL, args{3, 0x541b}, retAllow},
		{"ioctl FIONBIO", x86, unix.SYS_IOCTL, args{3, 0x5421}, retAllow},
		{"io_uring_setup", x86, unix.SYS_IO_URING_SETUP, args{}, retENOSYS},
		{"x32 socket", x86, 0x40000000 | unix.SYS_SOCKET, args{2, 1, 0}, retENOSYS},
		{"x32 read", x86, 0x40000000, args{}, retENOSYS},
		{"no such call", x86, 9999, args{}, retAllow},
		{"foreign kernel", archARM64, 198, args{2, 1, 0}, retENOSYS},
		{"i386 socket", i386, 359, args{1, 2, 3}, retNotify},
		{"i386 bind", i386, 361, args{}, retNotify},
		{"i386 connect", i386, 362, args{}, retNotify},
		{"i386 listen", i386, 363, args{}, retNotify},
		{"i386 accept4", i386, 364, args{}, retNotify},
		{"i386 getsockopt", i386, 365, args{3, 1, 3}, retNotify},
		{"i386 setsockopt", i386, 366, args{3, 1, 26}, retNotify},
		{"i386 getsockname", i386, 367, args{}, retNotify},
		{"i386 getpeername", i386, 368, args{}, retNotify},
		{"i386 sendto", i386, 369, args{}, retAllow},
		{"i386 socketcall socket", i386, 102, args{1}, retNotify},
		{"i386 socketcall accept", i386, 102, args{5}, retNotify},
		{"i386 socketcall socketpair", i386, 102, args{8}, retAllow},
		{"i386 socketcall send", i386, 102, args{9}, retAllow},
		{"i386 socketcall setsockopt", i386, 102, args{14}, retNotify},
		{"i386 socketcall accept4", i386, 102, args{18}, retNotify},
		{"i386 socketcall shutdown", i386, 102, args{13}, retNotify},
		{"i386 shutdown", i386, 373, args{3, 1}, retNotify},
		{"i386 ioctl SIOCGIFADDR", i386, 54, args{3, 0x8915}, retNotify},
		{"i386 ioctl FIONREAD", i386, 54, args{3, 0x541b}, retAllow},
		{"i386 io_uring_setup", i386, 425, args{}, retENOSYS},
		{"i386 write", i386, 4, args{}, retAllow},
	} {
		for _, optimize := range []int{1, 2} {
			if got := run(t, virtual(t, assembled(t, optimize)), c.arch, c.nr, c.args); got != c.want {
				t.Errorf("%s (optimize %d): %#x, want %#x", c.name, optimize, got, c.want)
			}
		}
	}
}

// Every call of x86_64 and every SOL_SOCKET option: trapped exactly if listed.
func TestFilterIsExact(t *testing.T) {
	vm := virtual(t, assembled(t, 2))
	whole := map[uint32]bool{
		unix.SYS_CONNECT: true, unix.SYS_BIND: true, unix.SYS_LISTEN: true, unix.SYS_ACCEPT: true,
		unix.SYS_ACCEPT4: true, unix.SYS_GETSOCKNAME: true, unix.SYS_GETPEERNAME: true,
		// The options' calls are, at any level but SOL_SOCKET.
		unix.SYS_SHUTDOWN: true, unix.SYS_GETSOCKOPT: true, unix.SYS_SETSOCKOPT: true, unix.SYS_SETNS: true,
	}
	for nr := uint32(0); nr < 600; nr++ {
		want := uint32(retAllow)
		if whole[nr] {
			want = retNotify
		} else if nr == unix.SYS_IO_URING_SETUP {
			want = retENOSYS
		}
		if got := run(t, vm, archX86_64, nr, [6]uint64{9, 9, 9, 9, 9, 9}); got != want {
			t.Errorf("call %d: %#x, want %#x", nr, got, want)
		}
	}
	for nr, names := range map[uint32][]uint32{unix.SYS_GETSOCKOPT: filter.GetOptions, unix.SYS_SETSOCKOPT: filter.SetOptions} {
		listed := map[uint32]bool{}
		for _, n := range names {
			listed[n] = true
		}
		for name := uint32(0); name < 100; name++ {
			got := run(t, vm, archX86_64, nr, [6]uint64{3, unix.SOL_SOCKET, uint64(name)})
			if (got == retNotify) != listed[name] {
				t.Errorf("call %d SOL_SOCKET option %d: %#x, listed %t", nr, name, got, listed[name])
			}
		}
	}
}

func TestFilterGolden(t *testing.T) {
	major, minor, micro := seccomp.GetLibraryVersion()
	var b strings.Builder
	for i, f := range assembled(t, 2) {
		fmt.Fprintf(&b, "%3d: %s\n", i, instruction(f, i))
	}
	golden := filepath.Join("testdata", "filter.golden")
	if *update {
		if err := os.WriteFile(golden, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), b.String()); diff != "" {
		if major != 2 || minor != 5 {
			t.Skipf("libseccomp %d.%d.%d orders the program in another way than 2.5, of which the golden file is", major, minor, micro)
		}
		t.Errorf("filter differs from %s (write it anew with -update):\n%s", golden, diff)
	}
}

// instruction writes one instruction in words; jumps as absolute targets.
func instruction(f unix.SockFilter, at int) string {
	t, e := at+1+int(f.Jt), at+1+int(f.Jf)
	switch f.Code {
	case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
		return fmt.Sprintf("load [%d]", f.K)
	case unix.BPF_ALU | unix.BPF_AND | unix.BPF_K:
		return fmt.Sprintf("and %#x", f.K)
	case unix.BPF_JMP | unix.BPF_JA:
		return fmt.Sprintf("goto %d", at+1+int(f.K))
	case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
		return fmt.Sprintf("if == %#x goto %d else %d", f.K, t, e)
	case unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K:
		return fmt.Sprintf("if > %#x goto %d else %d", f.K, t, e)
	case unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K:
		return fmt.Sprintf("if >= %#x goto %d else %d", f.K, t, e)
	case unix.BPF_RET | unix.BPF_K:
		return fmt.Sprintf("return %#x", f.K)
	}
	return fmt.Sprintf("%#x %#x %d %d", f.Code, f.K, t, e)
}
