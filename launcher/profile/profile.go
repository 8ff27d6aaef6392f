package profile

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"syscall"

	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/poemq/poemq/launcher/filter"
)

// Settings are what a profile shall say beside the base profile.
type Settings struct {
	Filter filter.Spec
	// Listener is the path of the broker's socket, as the container runtime sees
	// it.
	Listener string
	// Metadata is the text that the runtime passes on to the broker
	// (notify/handover.Metadata, without a version).
	Metadata string
	// Flags are for seccomp(2). runc before 1.2 refuses to start a container
	// whose profile has any that it does not know.
	Flags []specs.LinuxSeccompFlag
}

// Default is Docker's default profile.
func Default() *seccomp.Seccomp { return seccomp.DefaultProfile() }

// Over lays the rules over base, which is left as it is.
func Over(base *seccomp.Seccomp, s Settings) (*seccomp.Seccomp, error) {
	if base.DefaultAction == specs.ActAllow {
		return nil, errors.New("the base profile allows what it does not name: poemq's rules can only be laid over a list of what is allowed")
	}
	if base.ListenerPath != "" {
		return nil, fmt.Errorf("the base profile has a listener already, %s: a container has only one", base.ListenerPath)
	}
	p := *base
	p.ListenerPath, p.ListenerMetadata, p.Flags = s.Listener, s.Metadata, s.Flags
	p.ArchMap = only64(base.ArchMap)
	p.Architectures = slices.DeleteFunc(slices.Clone(base.Architectures), is32)
	byCall := map[string][]filter.Rule{}
	for _, r := range s.Filter.Rules() {
		byCall[r.Call] = append(byCall[r.Call], r)
	}
	p.Syscalls = nil
	for _, entry := range base.Syscalls {
		if len(entry.Names) == 0 {
			return nil, errors.New("the base profile has rules of before 2016, with \"name\" in place of \"names\": write them anew")
		}
		more, err := lay(entry, byCall)
		if err != nil {
			return nil, err
		}
		p.Syscalls = append(p.Syscalls, more...)
	}
	for _, r := range s.Filter.Rules() { // what is refused has an errno of ours
		if r.Action == filter.Refuse {
			p.Syscalls = append(p.Syscalls, entryOf(nil, r.Call, decided(nil, r.Action)))
		}
	}
	return &p, nil
}

// lay divides one entry of the base profile into what is none of our business
// and the cells of the calls that are.
func lay(entry *seccomp.Syscall, byCall map[string][]filter.Rule) (out []*seccomp.Syscall, err error) {
	if entry.Action != specs.ActAllow {
		return []*seccomp.Syscall{entry}, nil
	}
	rest := *entry
	rest.Names = nil
	for _, name := range entry.Names {
		rules := byCall[name]
		if name == "socketcall" {
			continue // of 32-bit programs: doc.go, Limits
		}
		if len(rules) == 0 {
			rest.Names = append(rest.Names, name)
			continue
		}
		if refused(rules) {
			continue
		}
		base, err := boundOf(entry)
		if err != nil {
			return nil, fmt.Errorf("the base profile's rule for %s: %w", name, err)
		}
		cells, err := partition(rules, base)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		for _, c := range cells {
			out = append(out, entryOf(entry, name, c))
		}
	}
	if len(rest.Names) > 0 {
		out = append([]*seccomp.Syscall{&rest}, out...)
	}
	return out, nil
}

func refused(rules []filter.Rule) bool {
	return len(rules) == 1 && rules[0].Action == filter.Refuse && len(rules[0].Conds) == 0
}

// boundOf is an entry's condition, of which there may be one, on the first
// argument.
func boundOf(entry *seccomp.Syscall) (bound, error) {
	switch {
	case len(entry.Args) == 0:
		return bound{}, nil
	case len(entry.Args) > 1 || entry.Args[0].Index != 0 || entry.Args[0].Op == specs.OpMaskedEqual:
		return bound{}, errors.New("its conditions cannot be put together with poemq's (one comparison of the first argument can)")
	}
	return bound{entry.Args[0].Op, entry.Args[0].Value}, nil
}

// entryOf is an entry for a cell of a call, under the conditions of the entry of
// the base profile, if any.
func entryOf(from *seccomp.Syscall, name string, c cell) *seccomp.Syscall {
	e := &seccomp.Syscall{LinuxSyscall: specs.LinuxSyscall{Names: []string{name}, Action: c.action, ErrnoRet: c.errno, Args: c.args}}
	if from != nil {
		e.Includes, e.Excludes = from.Includes, from.Excludes
	}
	return e
}

func decided(path []specs.LinuxSeccompArg, a filter.Action) cell {
	if a == filter.Refuse {
		errno := uint(syscall.ENOSYS)
		return cell{args: path, action: specs.ActErrno, errno: &errno}
	}
	return cell{args: path, action: specs.ActNotify}
}

// is32 tells the architectures that 32-bit programs are of; x32 is one.
func is32(a specs.Arch) bool {
	return a == specs.ArchX86 || a == specs.ArchX32 || a == specs.ArchARM
}

// only64 is the part of an architecture map that poemq knows.
func only64(all []seccomp.Architecture) (out []seccomp.Architecture) {
	for _, a := range all {
		if a.Arch == specs.ArchX86_64 || a.Arch == specs.ArchAARCH64 {
			out = append(out, seccomp.Architecture{Arch: a.Arch})
		}
	}
	return out
}

// Resolve is p as the OCI runtime specification has it, for runc, crun and
// containerd's Kubernetes side, which know no conditions: for the architecture
// this program is built for, the running kernel, and a container with the given
// capabilities (CAP_…).
func Resolve(p *seccomp.Seccomp, caps []string) (*specs.LinuxSeccomp, error) {
	text, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	spec := specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: caps}}}
	return seccomp.LoadProfile(string(text), &spec)
}

// DockerCaps are the capabilities of a container that Docker was told nothing
// about; podman and Kubernetes leave out some of them.
var DockerCaps = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID",
	"CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
}

// Embedded is base for a container that has poemq-launch and its own poemqd in
// it: the broker takes copies of the program's descriptors, for which Docker's
// default profile wants CAP_SYS_PTRACE. The kernel's own checks stay: only
// processes of the same user can be looked at.
func Embedded(base *seccomp.Seccomp) *seccomp.Seccomp {
	p := *base
	p.Syscalls = append(slices.Clone(base.Syscalls), &seccomp.Syscall{LinuxSyscall: specs.LinuxSyscall{
		Names: []string{"pidfd_getfd"}, Action: specs.ActAllow,
	}})
	return &p
}

// Metadata tells the broker of the profile, as poemq-launch tells it of its
// filter; without a version, for a container runtime waits for no answer.
type Metadata struct {
	Quic  string      `json:"quic,omitempty"`
	Match [][3]uint32 `json:"match"`
	NetNS bool        `json:"netns"` // what changes the network namespace is trapped, or refused
}

// MetadataOf is the metadata of a filter; quic is require, prefer, off or empty.
func MetadataOf(f filter.Spec, quic string) Metadata {
	m := Metadata{Quic: quic, NetNS: true}
	for _, one := range filter.Unique(f.Matches) {
		m.Match = append(m.Match, [3]uint32{one.Domain, one.Type, one.Proto})
	}
	return m
}
