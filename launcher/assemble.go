package launcher

import (
	"errors"
	"io"
	"os"
	"runtime"
	"unsafe"

	"github.com/poemq/poemq/launcher/filter"
	seccomp "github.com/seccomp/libseccomp-golang"
	"golang.org/x/sys/unix"
)

// apiNotify is the libseccomp API level with SCMP_ACT_NOTIFY beside TSYNC (which
// libseccomp-golang always asks for, though the filter is loaded without it). It is set by hand
// so that libseccomp does not ask the running kernel: the filter is the same
// everywhere, and load says in words what a kernel lacks.
const apiNotify = 6

// arches are the machine's own system calls and those of its 32-bit programs,
// by GOARCH.
var arches = map[string]struct{ native, compat seccomp.ScmpArch }{
	"amd64": {seccomp.ArchAMD64, seccomp.ArchX86},
	"arm64": {seccomp.ArchARM64, seccomp.ArchARM},
}

// assemble makes the filter's BPF program. What is neither of the machine's own
// kind nor of its 32-bit one (on x86_64 the x32 ABI, whose numbers have bit 30
// set) gets ENOSYS.
func assemble(s filter.Spec) ([]unix.SockFilter, error) {
	return assembleFor(runtime.GOARCH, s)
}

func assembleFor(goarch string, s filter.Spec) ([]unix.SockFilter, error) {
	if err := seccomp.SetAPI(apiNotify); err != nil {
		return nil, errors.New("libseccomp: " + err.Error() + " (2.5 or newer is needed)")
	}
	arch, ok := arches[goarch]
	if !ok {
		return nil, errors.New("no filter is known for " + goarch)
	}
	f, err := build(s, arch.native, s.Rules())
	if err != nil {
		return nil, err
	}
	defer f.Release()
	foreign, err := build(s, arch.compat, s.ForeignRules())
	if err != nil {
		return nil, err
	}
	if err := f.Merge(foreign); err != nil { // invalidates foreign
		foreign.Release()
		return nil, err
	}
	return export(f)
}

// build makes the rules for one architecture; the caller releases it.
func build(s filter.Spec, arch seccomp.ScmpArch, rules []filter.Rule) (*seccomp.ScmpFilter, error) {
	f, err := seccomp.NewFilter(seccomp.ActAllow)
	if err != nil {
		return nil, err
	}
	if err := fill(s, f, arch, rules); err != nil {
		f.Release()
		return nil, err
	}
	return f, nil
}

func fill(s filter.Spec, f *seccomp.ScmpFilter, arch seccomp.ScmpArch, rules []filter.Rule) error {
	native, err := seccomp.GetNativeArch() // that a new filter is for
	if err != nil {
		return err
	}
	if arch != native {
		if err := f.AddArch(arch); err != nil {
			return err
		}
		if err := f.RemoveArch(native); err != nil {
			return err
		}
	}
	refuse := seccomp.ActErrno.SetReturnCode(int16(unix.ENOSYS))
	if err := f.SetBadArchAction(refuse); err != nil {
		return err
	}
	if s.Optimize != 0 {
		if err := f.SetOptimize(s.Optimize); err != nil {
			return err
		}
	}
	for _, r := range rules {
		action := seccomp.ActNotify
		if r.Action == filter.Refuse {
			action = refuse
		}
		if err := add(f, r, action); err != nil {
			return errors.New("rule " + r.Call + ": " + err.Error())
		}
	}
	return nil
}

func add(f *seccomp.ScmpFilter, r filter.Rule, action seccomp.ScmpAction) error {
	call, err := seccomp.GetSyscallFromName(r.Call)
	if err != nil {
		return err
	}
	if len(r.Conds) == 0 {
		return f.AddRule(call, action)
	}
	var conds []seccomp.ScmpCondition
	for _, c := range r.Conds {
		sc, err := condition(c)
		if err != nil {
			return err
		}
		conds = append(conds, sc)
	}
	return f.AddRuleConditionalExact(call, action, conds)
}

func condition(c filter.Cond) (seccomp.ScmpCondition, error) {
	if c.Not {
		return seccomp.MakeCondition(c.Arg, seccomp.CompareNotEqual, uint64(c.Value))
	}
	return seccomp.MakeCondition(c.Arg, seccomp.CompareMaskedEqual, uint64(c.Mask), uint64(c.Value))
}

// export reads the program back through a memfd (libseccomp 2.5 can only write
// to a file, and there may be none to write to).
func export(f *seccomp.ScmpFilter) ([]unix.SockFilter, error) {
	fd, err := unix.MemfdCreate("poemq-filter", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	file := os.NewFile(uintptr(fd), "poemq-filter")
	defer file.Close()
	if err := f.ExportBPF(file); err != nil {
		return nil, err
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	raw, err := io.ReadAll(file)
	if err != nil {
		return nil, err
	}
	const size = int(unsafe.Sizeof(unix.SockFilter{}))
	if len(raw) == 0 || len(raw)%size != 0 {
		return nil, errors.New("libseccomp exported a filter of an odd size")
	}
	prog := make([]unix.SockFilter, len(raw)/size)
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&prog[0])), len(raw)), raw)
	return prog, nil
}
