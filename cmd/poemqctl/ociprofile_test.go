package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// printed is the profile for o, by way of --output.
func printed(t *testing.T, o profileOptions) (p struct {
	specs.LinuxSeccomp
	ArchMap []json.RawMessage `json:"archMap"`
},
) {
	t.Helper()
	o.output = filepath.Join(t.TempDir(), "profile.json")
	if err := o.run(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(o.output)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &p); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(filepath.Dir(o.output) + "/.poemq-*"); len(left) > 0 {
		t.Errorf("left beside it: %q", left)
	}
	return p
}

func TestOCIProfile(t *testing.T) {
	o := profileOptions{format: "docker", listener: "/run/here", quic: "require", matches: []string{"inet,stream,261"}}
	p := printed(t, o)
	var meta struct {
		Version int      `json:"poemq"`
		Quic    string   `json:"quic"`
		Match   [][3]int `json:"match"`
		NetNS   bool     `json:"netns"`
	}
	if err := json.Unmarshal([]byte(p.ListenerMetadata), &meta); err != nil {
		t.Fatal(err)
	}
	// With a version the broker would answer, and a runtime waits for no answer.
	if meta.Version != 0 || meta.Quic != "require" || !meta.NetNS || len(meta.Match) != 1 || meta.Match[0] != [3]int{2, 1, 261} {
		t.Errorf("metadata %+v", meta)
	}
	if p.ListenerPath != "/run/here" || len(p.Flags) != 0 || len(p.ArchMap) == 0 {
		t.Errorf("listener %q, flags %q, %d architectures", p.ListenerPath, p.Flags, len(p.ArchMap))
	}

	o.format, o.flags = "oci", []string{"SECCOMP_FILTER_FLAG_LOG"}
	p = printed(t, o)
	if len(p.ArchMap) != 0 || len(p.Architectures) != 1 || len(p.Flags) != 1 {
		t.Errorf("oci: %d in archMap, architectures %q, flags %q", len(p.ArchMap), p.Architectures, p.Flags)
	}
	// Docker keeps setns to CAP_SYS_ADMIN; where that is, it is handed over.
	setns := func(p specs.LinuxSeccomp) bool {
		return slices.ContainsFunc(p.Syscalls, func(s specs.LinuxSyscall) bool {
			return slices.Contains(s.Names, "setns") && s.Action == specs.ActNotify
		})
	}
	if setns(p.LinuxSeccomp) {
		t.Error("setns is there without CAP_SYS_ADMIN")
	}
	o.caps = []string{"CAP_SYS_ADMIN"}
	if !setns(printed(t, o).LinuxSeccomp) {
		t.Error("setns is not handed over with CAP_SYS_ADMIN")
	}

	embedded := printed(t, profileOptions{format: "docker", embedded: true})
	if embedded.ListenerPath != "" || slices.ContainsFunc(embedded.Syscalls, func(s specs.LinuxSyscall) bool { return s.Action == specs.ActNotify }) {
		t.Error("the embedded broker's profile has a listener")
	}
}

func TestOCIProfileRefuses(t *testing.T) {
	notJSON := filepath.Join(t.TempDir(), "base")
	if err := os.WriteFile(notJSON, []byte("allow all"), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, o := range map[string]profileOptions{
		"not an absolute path":      {format: "docker", listener: "broker.sock"},
		"--match":                   {format: "docker", listener: "/s", matches: []string{"tcp"}},
		"--quic":                    {format: "docker", listener: "/s", quic: "yes"},
		"--format":                  {format: "podman", listener: "/s"},
		notJSON:                     {format: "docker", listener: "/s", base: notJSON},
		"no such file or directory": {format: "docker", listener: "/s", base: notJSON + "-none"},
	} {
		var b strings.Builder
		if err := o.print(&b); err == nil || !strings.Contains(err.Error(), want) || b.Len() > 0 {
			t.Errorf("%+v: %v, %d octets printed; want an error with %q", o, err, b.Len(), want)
		}
	}
}
