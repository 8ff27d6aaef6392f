package launcher

import (
	"slices"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/poemq/poemq/launcher/filter"
	"github.com/poemq/poemq/launcher/profile"
	seccomp "github.com/seccomp/libseccomp-golang"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// asRunc makes the filter of a profile as runc does (its
// libcontainer/seccomp/seccomp_linux.go): one libseccomp rule for each name,
// and, where two conditions are on the same argument, one for each condition.
func asRunc(t *testing.T, p *specs.LinuxSeccomp) *bpf.VM {
	t.Helper()
	if err := seccomp.SetAPI(apiNotify); err != nil {
		t.Fatal(err)
	}
	f, err := seccomp.NewFilter(runcAction(t, p.DefaultAction, p.DefaultErrnoRet))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Release()
	for _, entry := range p.Syscalls {
		action := runcAction(t, entry.Action, entry.ErrnoRet)
		seen := map[uint]bool{}
		for _, a := range entry.Args {
			if seen[a.Index] {
				t.Fatalf("%q: two conditions on argument %d, which runc takes for alternatives", entry.Names, a.Index)
			}
			seen[a.Index] = true
		}
		for _, name := range entry.Names {
			call, err := seccomp.GetSyscallFromName(name)
			if err != nil {
				continue // as runc does: not of this architecture, or newer than libseccomp
			}
			if len(entry.Args) == 0 {
				err = f.AddRule(call, action)
			} else {
				err = f.AddRuleConditional(call, action, runcConditions(t, entry.Args))
			}
			if err != nil {
				t.Fatalf("rule for %s %+v: %v", name, entry.Args, err)
			}
		}
	}
	prog, err := export(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the profile's filter has %d instructions", len(prog))
	return virtual(t, prog)
}

func runcAction(t *testing.T, a specs.LinuxSeccompAction, errno *uint) seccomp.ScmpAction {
	t.Helper()
	switch a {
	case specs.ActAllow:
		return seccomp.ActAllow
	case specs.ActNotify:
		return seccomp.ActNotify
	case specs.ActErrno:
		n := uint(unix.EPERM)
		if errno != nil {
			n = *errno
		}
		return seccomp.ActErrno.SetReturnCode(int16(n))
	}
	t.Fatalf("action %q", a)
	return 0
}

func runcConditions(t *testing.T, args []specs.LinuxSeccompArg) (out []seccomp.ScmpCondition) {
	t.Helper()
	ops := map[specs.LinuxSeccompOperator]seccomp.ScmpCompareOp{
		specs.OpNotEqual: seccomp.CompareNotEqual, specs.OpLessThan: seccomp.CompareLess,
		specs.OpLessEqual: seccomp.CompareLessOrEqual, specs.OpEqualTo: seccomp.CompareEqual,
		specs.OpGreaterEqual: seccomp.CompareGreaterEqual, specs.OpGreaterThan: seccomp.CompareGreater,
		specs.OpMaskedEqual: seccomp.CompareMaskedEqual,
	}
	for _, a := range args {
		c, err := seccomp.MakeCondition(a.Index, ops[a.Op], a.Value, a.ValueTwo)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, c)
	}
	return out
}

// resolved is a profile for the capabilities, with our rules or without.
func resolved(t *testing.T, caps []string, ours bool) *specs.LinuxSeccomp {
	t.Helper()
	p, err := profile.Default(), error(nil)
	if ours {
		p, err = profile.Over(p, profile.Settings{Filter: spec261, Listener: "/run/poemq/broker.sock"})
	}
	if err != nil {
		t.Fatal(err)
	}
	out, err := profile.Resolve(p, caps)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestProfileIsTheFilter holds the launcher's filter and the engines' profile
// together: what Docker's profile refuses stays refused, all else is answered as
// the launcher's filter does.
func TestProfileIsTheFilter(t *testing.T) {
	launched := virtual(t, assembled(t, 2))
	for name, caps := range map[string][]string{
		"docker's capabilities": profile.DockerCaps,
		"CAP_SYS_ADMIN too":     append(slices.Clone(profile.DockerCaps), "CAP_SYS_ADMIN"),
		"no capabilities":       nil,
	} {
		t.Run(name, func(t *testing.T) {
			plain, both := asRunc(t, resolved(t, caps, false)), asRunc(t, resolved(t, caps, true))
			counts := map[uint32]int{}
			check := func(nr uint32, args [6]uint64) {
				clean := args
				if nr == unix.SYS_SOCKET {
					// Docker's profile compares the whole register, of which the kernel
					// reads the lower half.
					clean[0] = uint64(uint32(args[0]))
				}
				got, want := run(t, both, archX86_64, nr, args), run(t, plain, archX86_64, nr, clean)
				if l := run(t, launched, archX86_64, nr, args); want == retAllow || l == retENOSYS {
					want = l
				}
				counts[want]++
				if got != want {
					t.Errorf("call %d %x: %#x, want %#x", nr, args, got, want)
				}
			}
			everyCall(check)
			if counts[retNotify] == 0 || counts[retAllow] == 0 {
				t.Errorf("the calls tried say nothing: %v", counts)
			}
		})
	}
}

// everyCall visits every system call, and those with conditions with every
// value that a condition knows, its neighbours, and values with junk above.
func everyCall(check func(nr uint32, args [6]uint64)) {
	values := []uint64{0, 1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 15, 16, 17, 40, 44, 255, 256, 1 << 30, 1 << 31, 1<<32 - 1, 1<<64 - 1, 1<<32 | 1, 0xdeadbeef<<32 | 2}
	for nr := uint32(0); nr < 470; nr++ {
		for _, v := range values {
			check(nr, [6]uint64{v, v, v, v, v, v})
		}
	}
	for _, domain := range append(slices.Clone(values), 12, 13, 32, 37, 38, 39, 41, 43, 45, 46) {
		for _, typ := range []uint64{0, 1, 2, 3, 5, 0x11, 0x801, 0x80801, 1<<32 | 1} {
			for _, proto := range []uint64{0, 1, 5, 6, 7, 132, 260, 261, 262, 263, 1<<32 | 6} {
				check(unix.SYS_SOCKET, [6]uint64{domain, typ, proto})
			}
		}
	}
	for _, nr := range []uint32{unix.SYS_GETSOCKOPT, unix.SYS_SETSOCKOPT} {
		for _, level := range []uint64{0, 1, 2, 6, 17, 41, 270, 1 << 31, 1<<64 - 1, 1<<32 | 1} {
			for name := uint64(0); name < 100; name++ {
				check(nr, [6]uint64{3, level, name})
				check(nr, [6]uint64{3, level, 1<<32 | name})
			}
		}
	}
	for cmd := uint64(0x5400); cmd < 0x5480; cmd++ {
		check(unix.SYS_IOCTL, [6]uint64{3, cmd})
	}
	for cmd := uint64(0x8900); cmd < 0x8960; cmd++ {
		check(unix.SYS_IOCTL, [6]uint64{3, cmd})
		check(unix.SYS_IOCTL, [6]uint64{3, 1<<32 | cmd})
	}
	for bit := range 64 {
		check(unix.SYS_UNSHARE, [6]uint64{1 << bit})
		check(unix.SYS_UNSHARE, [6]uint64{1<<bit | unix.CLONE_NEWNET})
	}
}

// TestProfileRefusesWhatItCannotSay: a base profile with conditions that would
// have to be dropped is an error.
func TestProfileRefusesWhatItCannotSay(t *testing.T) {
	set := profile.Settings{Filter: filter.Spec{Matches: filter.DefaultMatches()}, Listener: "/s"}
	for name, change := range map[string]func(*specs.LinuxSyscall){
		"second argument": func(s *specs.LinuxSyscall) {
			s.Args = []specs.LinuxSeccompArg{{Index: 1, Value: 1, Op: specs.OpEqualTo}}
		},
		"two conditions": func(s *specs.LinuxSyscall) {
			s.Args = []specs.LinuxSeccompArg{{Index: 0, Value: 1, Op: specs.OpEqualTo}, {Index: 2, Value: 1, Op: specs.OpEqualTo}}
		},
		"masked": func(s *specs.LinuxSyscall) {
			s.Args = []specs.LinuxSeccompArg{{Index: 0, Value: 1, ValueTwo: 1, Op: specs.OpMaskedEqual}}
		},
		"on connect": func(s *specs.LinuxSyscall) {
			s.Names = []string{"connect"}
			s.Args = []specs.LinuxSeccompArg{{Index: 0, Value: 1, Op: specs.OpEqualTo}}
		},
	} {
		base := profile.Default()
		for _, e := range base.Syscalls {
			if slices.Contains(e.Names, "socket") {
				change(&e.LinuxSyscall)
				break
			}
		}
		if _, err := profile.Over(base, set); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	open := profile.Default()
	open.DefaultAction = specs.ActAllow
	if _, err := profile.Over(open, set); err == nil {
		t.Error("a base that allows everything: no error")
	}
	taken := profile.Default()
	taken.ListenerPath = "/other"
	if _, err := profile.Over(taken, set); err == nil {
		t.Error("a base with a listener: no error")
	}
}
