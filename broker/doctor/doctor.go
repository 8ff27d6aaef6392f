// Package doctor finds out what a host is able to, as the user who asks. It tries
// things out and does not go by version numbers. It needs no broker and changes
// nothing: what it opens it closes, and the filter that it installs ends with the
// thread that it is for.
//
// Each Check is "ok", "warn" (poemq works, with less) or "fail" (something does not
// work), and says what to do.
package doctor

import (
	"context"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// State is what came of a Check.
type State string

// The states.
const (
	OK   State = "ok"
	Warn State = "warn"
	Fail State = "fail"
)

// Check is one line.
type Check struct {
	Name  string `json:"name"`
	State State  `json:"state"`
	Found string `json:"found"`
	Do    string `json:"do,omitempty"` // what to do; not for ok
}

// Report is all of them.
type Report struct {
	Checks []Check `json:"checks"`
	OK     int     `json:"ok"`
	Warn   int     `json:"warn"`
	Fail   int     `json:"fail"`
}

// Options say what to look at besides the host.
type Options struct {
	// Control is the control socket of the system's broker.
	Control string
	// Peers are asked whether they answer QUIC, HOST:PORT.
	Peers []string
	// Child is the command line of a program that ends when its standard input
	// does, to try access to a program on.
	Child []string
}

// Run looks at everything.
func Run(ctx context.Context, o Options) Report {
	var r Report
	checks := []func() []Check{
		kernel, seccomp, func() []Check { return access(o.Child) }, yama, capabilities, container, files,
		udpBuffers, udpOffload, port443, func() []Check { return brokerThere(ctx, o.Control) }, stateDirectory,
	}
	for _, peer := range o.Peers {
		checks = append(checks, func() []Check { return peerAnswers(ctx, peer) })
	}
	for _, f := range checks {
		for _, c := range f() {
			switch c.State {
			case OK:
				r.OK++
			case Warn:
				r.Warn++
			default:
				r.Fail++
			}
			r.Checks = append(r.Checks, c)
		}
	}
	return r
}

func one(name string, s State, found, do string) []Check {
	return []Check{{Name: name, State: s, Found: found, Do: do}}
}

// kernel tells what it is; whether that is enough, the other checks show.
func kernel() []Check {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return one("kernel", Fail, "uname: "+err.Error(), "")
	}
	found := unix.ByteSliceToString(u.Sysname[:]) + " " + unix.ByteSliceToString(u.Release[:]) + ", " + unix.ByteSliceToString(u.Machine[:])
	if m := unix.ByteSliceToString(u.Machine[:]); m != "x86_64" && m != "aarch64" {
		return one("kernel", Fail, found, "poemq runs on x86_64 and aarch64")
	}
	return one("kernel", OK, found, "")
}

// root reports that we are root, of whichever user namespace.
func root() bool { return os.Geteuid() == 0 }

// firstLine is of a file of the kernel's; "" if it cannot be read.
func firstLine(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(b), "\n")
	return line
}

// statusField is of /proc/self/status.
func statusField(name string) string {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
