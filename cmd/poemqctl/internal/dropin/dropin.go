package dropin

import (
	"errors"
	"fmt"
	"strings"
)

// Unit is a service as systemd shows it.
type Unit struct {
	Name string
	// ExecStart are its values in force, as written.
	ExecStart []string
	// Properties are those of "systemctl show", by their name.
	Properties map[string]string
}

// Options are what the file shall say.
type Options struct {
	Launch string // path of poemq-launch
	Socket string // the broker's socket
	Quic   string // poemq-launch's --quic; empty for its default
	User   bool   // of a user's own systemd
}

// Marker begins every file of ours: others are left alone.
const Marker = "# Written by poemqctl enable"

// Text is the drop-in for u, and what to know about it.
func Text(u Unit, o Options) (text string, notes []string, err error) {
	var lines []string
	for _, value := range u.ExecStart {
		for _, c := range commands(value) {
			if strings.HasSuffix(strings.Trim(c.path, `"'`), "/poemq-launch") {
				return "", nil, fmt.Errorf("%s starts through poemq-launch already: %s", u.Name, value)
			}
			lines = append(lines, "ExecStart="+launched(c, o))
		}
	}
	if len(lines) == 0 {
		return "", nil, fmt.Errorf("%s has no ExecStart=: it starts no program", u.Name)
	}
	if u.Properties["Type"] != "oneshot" && len(lines) > 1 {
		return "", nil, fmt.Errorf("%s has %d commands in ExecStart=, which only Type=oneshot may have", u.Name, len(lines))
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s; poemqctl disable %s removes it.\n", Marker, u.Name)
	b.WriteString("[Unit]\nWants=poemq.socket\nAfter=poemq.socket\n\n[Service]\n# Without the first line they would be added to those of the unit.\nExecStart=\n")
	for _, l := range lines {
		b.WriteString(l + "\n")
	}
	relaxed, notes := relax(u, o)
	for _, r := range relaxed {
		fmt.Fprintf(&b, "# %s\n%s\n", r.why, r.line)
	}
	for _, n := range notes {
		fmt.Fprintf(&b, "# Note: %s\n", n)
	}
	return b.String(), notes, nil
}

// launched is c through poemq-launch. The prefixes are systemd's and come first;
// "@" becomes poemq-launch's own flag, since argv[0] is the program's.
func launched(c command, o Options) string {
	parts := []string{strings.ReplaceAll(c.prefix, "@", "") + o.Launch}
	if o.Socket != "" {
		parts = append(parts, "--broker "+o.Socket)
	}
	parts = append(parts, "--on-broker-missing fail")
	if o.Quic != "" {
		parts = append(parts, "--quic "+o.Quic)
	}
	if c.argv0 != "" {
		parts = append(parts, "--argv0 "+c.argv0)
	}
	parts = append(parts, "--", c.path)
	if c.rest != "" {
		parts = append(parts, c.rest)
	}
	return strings.Join(parts, " ")
}

// setting is a line of the drop-in and its reason.
type setting struct{ line, why string }

// relax finds what of a unit's sandbox would be in the way, and what does not
// reach what poemq carries.
func relax(u Unit, o Options) (lines []setting, notes []string) {
	p := u.Properties
	add := func(line, why string) { lines = append(lines, setting{line, why}) }
	if families := p["RestrictAddressFamilies"]; families != "" && !listed(families, "AF_UNIX") {
		add("RestrictAddressFamilies=AF_UNIX", "poemq-launch reaches the broker by a UNIX socket.")
	}
	if calls := p["SystemCallFilter"]; calls != "" {
		var missing []string
		for _, call := range []string{"seccomp", "memfd_create"} {
			if !listed(calls, call) {
				missing = append(missing, call)
			}
		}
		if len(missing) > 0 {
			add("SystemCallFilter="+strings.Join(missing, " "), "poemq-launch loads its own filter before the program starts.")
		}
	}
	if user := p["User"]; !o.User && (user != "" && user != "root" && user != "0" || p["DynamicUser"] == "yes") && !hasWord(p["SupplementaryGroups"], "poemq") {
		add("SupplementaryGroups=poemq", "The broker's socket is for this group.")
	}
	if p["RootDirectory"] != "" || p["RootImage"] != "" {
		add("BindReadOnlyPaths="+o.Launch+" /run/poemq", "The program has a root directory of its own.")
	}
	if p["NoNewPrivileges"] != "yes" && (p["User"] != "" && p["User"] != "root" || o.User) {
		notes = append(notes, "no_new_privs is set for the program: set-user-ID programs that it starts gain no privileges.")
	}
	for _, name := range []string{"IPAddressDeny", "IPIngressFilterPath", "IPEgressFilterPath", "RestrictNetworkInterfaces", "SocketBindDeny"} {
		if p[name] != "" && p[name] != "~" {
			notes = append(notes, name+"= of the unit does not reach connections that poemq carries: the sockets are poemqd's. Write rules into poemq.toml, or filter by address and port.")
		}
	}
	if p["Sockets"] != "" {
		notes = append(notes, "sockets that systemd opens for it ("+p["Sockets"]+") are not carried: only those that the program makes.")
	}
	return lines, notes
}

// listed tells whether a list of systemd's lets name through; "~" in front makes
// it a list of what is not.
func listed(list, name string) bool {
	denies := strings.HasPrefix(list, "~")
	return hasWord(strings.TrimPrefix(list, "~"), name) != denies
}

func hasWord(list, name string) bool {
	for _, w := range strings.Fields(list) {
		if word, _, _ := strings.Cut(w, ":"); word == name { // ":EPERM"
			return true
		}
	}
	return false
}

// Name is a service's whole name. Those of other kinds start no programs.
func Name(arg string) (string, error) {
	switch {
	case arg == "" || strings.ContainsAny(arg, "/ \t\n"):
		return "", fmt.Errorf("%q is no unit's name", arg)
	case strings.HasSuffix(arg, ".service"):
	case strings.Contains(arg, ".") && hasType(arg):
		return "", errors.New(arg + " is no service; name the service that it starts")
	default:
		arg += ".service"
	}
	if strings.HasPrefix(arg, "poemq.") {
		return "", errors.New("poemq itself does not run under poemq")
	}
	return arg, nil
}

func hasType(name string) bool {
	for _, t := range []string{"socket", "target", "timer", "path", "mount", "automount", "swap", "device", "slice", "scope"} {
		if strings.HasSuffix(name, "."+t) {
			return true
		}
	}
	return false
}
