package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/poemq/poemq/broker/policy"
	"github.com/poemq/poemq/launcher/filter"
	"github.com/poemq/poemq/launcher/profile"
	"github.com/spf13/cobra"
)

// profileOptions are the flags of oci-profile.
type profileOptions struct {
	base, listener, format, quic, output string
	matches, flags, caps                 []string
	embedded                             bool
}

func ociProfileCommand() *cobra.Command {
	var o profileOptions
	c := &cobra.Command{
		Use: "oci-profile", Short: "Print a container engine's seccomp profile that hands socket calls to poemqd", Args: cobra.NoArgs,
		Long: `Prints a seccomp profile: Docker's default one with poemq's rules laid over it.
A container with it speaks QUIC without poemq-launch in its image; poemqd has to
run when the container starts.

The format "docker" is for docker run (23 or newer), podman, nerdctl and CRI-O;
"oci" is linux.seccomp of a runc or crun config.json, and what containerd takes
as a Kubernetes Localhost profile: for this machine's architecture and kernel.`,
		RunE: func(*cobra.Command, []string) error { return o.run() },
	}
	f := c.Flags()
	f.StringVar(&o.listener, "listener", "/run/poemq/broker.sock", "the broker's socket, as the container runtime on the host sees it")
	f.StringVar(&o.base, "base", "", "the profile to lay the rules over, a `FILE` in Docker's format (default: Docker's default profile)")
	f.StringVar(&o.format, "format", "docker", "docker or oci")
	f.StringVar(&o.quic, "quic", "", "require, prefer or off, where no rule of the broker's says otherwise (default: as the broker is configured)")
	f.StringArrayVar(&o.matches, "match", nil, "`DOMAIN,TYPE,PROTO` of sockets to carry; repeatable (default: as poemq-launch)")
	f.StringArrayVar(&o.flags, "flag", nil, "a flag for seccomp(2), such as SECCOMP_FILTER_FLAG_SPEC_ALLOW; repeatable. runc before 1.2 refuses profiles with some")
	f.StringArrayVar(&o.caps, "cap", nil, "with --format oci: a capability of the container, such as CAP_NET_RAW; repeatable (default: Docker's)")
	f.StringVar(&o.output, "output", "", "write to this `FILE`, which is replaced at once, and not to standard output")
	f.BoolVar(&o.embedded, "embedded", false, "no listener: the base profile and what a broker inside the container needs")
	return c
}

func (o *profileOptions) run() error {
	if o.output == "" {
		return o.print(os.Stdout)
	}
	// A container that starts meanwhile finds the old profile or the new one.
	f, err := os.CreateTemp(filepath.Dir(o.output), ".poemq-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if err := errors.Join(f.Chmod(0o644), o.print(f), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), o.output)
}

func (o *profileOptions) print(w io.Writer) error {
	base := profile.Default()
	if o.base != "" {
		text, err := os.ReadFile(o.base)
		if err != nil {
			return err
		}
		base = new(seccomp.Seccomp)
		if err := json.Unmarshal(text, base); err != nil {
			return fmt.Errorf("%s: not a seccomp profile: %w", o.base, err)
		}
	}
	p, err := o.over(base)
	if err != nil {
		return err
	}
	var out any = p
	switch o.format {
	case "docker":
	case "oci":
		caps := o.caps
		if len(caps) == 0 {
			caps = profile.DockerCaps
		}
		if out, err = profile.Resolve(p, caps); err != nil {
			return err
		}
	default:
		return fmt.Errorf("--format %q is none of its values (use docker or oci)", o.format)
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "\t")
	return e.Encode(out)
}

func (o *profileOptions) over(base *seccomp.Seccomp) (*seccomp.Seccomp, error) {
	if o.embedded {
		return profile.Embedded(base), nil
	}
	if !strings.HasPrefix(o.listener, "/") {
		return nil, fmt.Errorf("--listener %q is not an absolute path: the container runtime has a working directory of its own", o.listener)
	}
	if _, err := policy.ParseMode(o.quic); err != nil {
		return nil, fmt.Errorf("--quic: %w", err)
	}
	set := profile.Settings{Listener: o.listener}
	set.Filter.Matches = filter.DefaultMatches()
	if len(o.matches) > 0 {
		set.Filter.Matches = nil
	}
	for _, s := range o.matches {
		m, err := filter.ParseMatch(s)
		if err != nil {
			return nil, fmt.Errorf("--match: %w", err)
		}
		set.Filter.Matches = append(set.Filter.Matches, m)
	}
	for _, f := range o.flags {
		set.Flags = append(set.Flags, specs.LinuxSeccompFlag(f))
	}
	text, err := json.Marshal(profile.MetadataOf(set.Filter, o.quic))
	set.Metadata = string(text)
	if err != nil {
		return nil, err
	}
	p, err := profile.Over(base, set)
	if err != nil && o.base != "" {
		err = fmt.Errorf("%s: %w", o.base, err)
	}
	return p, err
}
