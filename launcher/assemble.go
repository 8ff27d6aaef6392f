package launcher

import (
	"errors"
	"io"
	"os"
	"unsafe"

	seccomp "github.com/seccomp/libseccomp-golang"
	"golang.org/x/sys/unix"
)

// apiNotify is the libseccomp API level with SCMP_ACT_NOTIFY beside TSYNC (which
// libseccomp-golang always asks for, though the filter is loaded without it). It is set by hand
// so that libseccomp does not ask the running kernel: the filter is the same
// everywhere, and load says in words what a kernel lacks.
const apiNotify = 6

// Assemble makes the filter's BPF program. Anything but x86_64 and i386 calls
// (the x32 ABI, whose numbers have bit 30 set) gets ENOSYS.
func (s FilterSpec) Assemble() ([]unix.SockFilter, error) {
	if err := seccomp.SetAPI(apiNotify); err != nil {
		return nil, errors.New("libseccomp: " + err.Error() + " (2.5 or newer is needed)")
	}
	f, err := s.filter(seccomp.ArchAMD64, s.Rules())
	if err != nil {
		return nil, err
	}
	defer f.Release()
	foreign, err := s.filter(seccomp.ArchX86, s.ForeignRules())
	if err != nil {
		return nil, err
	}
	if err := f.Merge(foreign); err != nil { // invalidates foreign
		foreign.Release()
		return nil, err
	}
	return export(f)
}

// filter builds the rules for one architecture; the caller releases it.
func (s FilterSpec) filter(arch seccomp.ScmpArch, rules []Rule) (*seccomp.ScmpFilter, error) {
	f, err := seccomp.NewFilter(seccomp.ActAllow)
	if err != nil {
		return nil, err
	}
	if err := s.fill(f, arch, rules); err != nil {
		f.Release()
		return nil, err
	}
	return f, nil
}

func (s FilterSpec) fill(f *seccomp.ScmpFilter, arch seccomp.ScmpArch, rules []Rule) error {
	if arch != seccomp.ArchAMD64 {
		if err := f.AddArch(arch); err != nil {
			return err
		}
		if err := f.RemoveArch(seccomp.ArchAMD64); err != nil {
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
		if r.Action == Refuse {
			action = refuse
		}
		if err := add(f, r, action); err != nil {
			return errors.New("rule " + r.Call + ": " + err.Error())
		}
	}
	return nil
}

func add(f *seccomp.ScmpFilter, r Rule, action seccomp.ScmpAction) error {
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

func condition(c Cond) (seccomp.ScmpCondition, error) {
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
