package launcher

import (
	"strconv"

	"github.com/poemq/poemq/launcher/filter"
)

// What QUIC is wanted for (--quic). Empty leaves it to the broker.
const (
	QuicRequire = "require" // refuse TCP
	QuicPrefer  = "prefer"  // TCP where the peer has no QUIC
	QuicOff     = "off"     // become the program without any filter
)

// What to do without a broker (--on-broker-missing).
const (
	MissingEmbedded = "embedded" // start a private poemqd for this process tree
	MissingFail     = "fail"
	MissingPlain    = "plain" // become the program without any filter, with a warning
)

// Ways of the embedded broker (doc.go tells which is taken when).
const (
	modeInPlace = "inplace"
	modeChain   = "chain"
)

// DefaultBroker is the system broker's socket.
const DefaultBroker = "/run/poemq/broker.sock"

// Options are the launcher's settings; the flags of poemq-launch(1) set them.
type Options struct {
	Args            []string // the program and its arguments
	Argv0           string   // what the program finds as argv[0]; empty means Args[0]
	Broker          string   // path of the broker's socket
	Quic            string
	Matches         []filter.Match // none means the default
	OnBrokerMissing string
	Poemqd          string // path of poemqd for the embedded broker; empty means to look for it
	Via             string // how the program's calls are caught
	Zpoline         string // path of the loader for ViaZpoline; empty means to look for ours
	EmbeddedMode    string // inplace or chain; empty means as the machine demands (for tests)

	// Keeper has a process stay that keeps the session when the broker ends, for
	// the next one at the same path. KeepFD makes this process one: its end of
	// the launcher's connection (-1: it is none).
	Keeper bool
	KeepFD int

	// The inner launcher of a chain is told by its poemqd where the broker is
	// (an inherited descriptor; -1 means none) and by the outer launcher what
	// the program shall inherit.
	HandoverFD int
	Inherited  string
}

func (o *Options) check() error {
	if o.Via == "" {
		o.Via = ViaSeccomp
	}
	if len(o.Args) == 0 {
		return &Error{What: "no command given", Hint: "usage: poemq-launch [flags] [--] CMD [ARG…]"}
	}
	for _, f := range []struct {
		name, value string
		allowed     []string
	}{
		{"--quic", o.Quic, []string{"", QuicRequire, QuicPrefer, QuicOff}},
		{"--on-broker-missing", o.OnBrokerMissing, []string{MissingEmbedded, MissingFail, MissingPlain}},
		{"--via", o.Via, []string{ViaSeccomp, ViaZpoline, ViaAuto}},
		{"POEMQ_EMBEDDED_MODE", o.EmbeddedMode, []string{"", modeInPlace, modeChain}},
	} {
		if !contains(f.allowed, f.value) {
			return &Error{What: f.name, Why: strconv.Quote(f.value) + " is none of its values", Hint: "use " + words(f.allowed)}
		}
	}
	if o.Quic == QuicRequire && o.OnBrokerMissing == MissingPlain {
		return &Error{What: "--on-broker-missing plain", Why: "it would speak TCP, which --quic require forbids", Hint: "use fail or embedded"}
	}
	if len(o.Matches) == 0 {
		o.Matches = filter.DefaultMatches()
	}
	return o.tooMany()
}

func contains(list []string, s string) bool {
	for _, l := range list {
		if l == s {
			return true
		}
	}
	return false
}

func words(list []string) string {
	s := ""
	for i, l := range list {
		switch {
		case l == "":
			continue
		case s == "":
		case i == len(list)-1:
			s += " or "
		default:
			s += ", "
		}
		s += l
	}
	return s
}
