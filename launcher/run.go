package launcher

import (
	"errors"
	"os"
	"runtime"

	"github.com/poemq/poemq/launcher/filter"
	"golang.org/x/sys/unix"
)

// Run becomes the program. It returns if that failed (an *Error), or, as the
// outer launcher of a chain, with the program's exit status.
func Run(o Options) (int, error) {
	runtime.LockOSThread() // the filter is on this thread, which execs
	if o.KeepFD >= 0 {
		return 0, keep(o.Broker, o.KeepFD)
	}
	if err := o.check(); err != nil {
		return 0, err
	}
	in := recorded()
	if o.Inherited != "" {
		var err error
		if in, err = parseInherited(o.Inherited); err != nil {
			return 0, &Error{What: "--inherited", On: o.Inherited, Err: err}
		}
	}
	cmd, err := findCommand(o.Args, environ())
	if err != nil {
		return 0, err
	}
	if o.Argv0 != "" {
		cmd.args = append([]string{o.Argv0}, cmd.args[1:]...)
	}
	switch {
	case o.Quic == QuicOff:
		return 0, cmd.exec(in)
	case o.HandoverFD >= 0:
		return 0, launch(o, cmd, in, o.HandoverFD)
	}
	if err := chooseVia(&o, cmd); err != nil {
		return 0, err
	}
	if o.Via == ViaZpoline {
		return 0, zpoline(o, cmd, in)
	}
	conn, err := dial(o.Broker)
	if errors.Is(err, errBrokerMissing) {
		return withoutBroker(o, cmd, in, err)
	}
	if err != nil {
		return 0, err
	}
	if o.Keeper {
		if conn, err = startKeeper(o.Broker, conn, cmd.env, in); err != nil {
			return 0, err
		}
	}
	return 0, launch(o, cmd, in, conn)
}

func withoutBroker(o Options, cmd command, in inherited, missing error) (int, error) {
	switch o.OnBrokerMissing {
	case MissingFail:
		return 0, missing
	case MissingPlain:
		warn("broker: " + o.Broker + ": " + errBrokerMissing.Error() + "; going on over plain TCP")
		return 0, cmd.exec(in)
	}
	poemqd, err := findPoemqd(o.Poemqd, cmd.env)
	if err != nil {
		return 0, err
	}
	if o.EmbeddedMode == modeChain || o.EmbeddedMode == "" && !tracer() {
		return chain(o, cmd, in, poemqd)
	}
	conn, err := startPrivate(poemqd, cmd.env, in)
	if err != nil {
		return 0, err
	}
	return 0, launch(o, cmd, in, conn)
}

// launch loads the filter, gives its listener to the broker at conn and becomes
// the program.
func launch(o Options, cmd command, in inherited, conn int) error {
	unix.CloseOnExec(conn)
	if err := setPatience(conn); err != nil {
		return &Error{What: "broker", On: "its connection", Err: err}
	}
	prog, err := assemble(filter.Spec{Matches: o.Matches, Optimize: 2})
	if err != nil {
		return &Error{What: "build filter", Err: err}
	}
	message, err := state(os.Getpid(), o.Quic, o.Matches, cmd.base())
	if err != nil {
		return &Error{What: "build handover", Err: err}
	}
	listener, err := load(prog)
	if err != nil {
		return err
	}
	if err := handover(conn, listener, message); err != nil {
		return err
	}
	return cmd.exec(in) // conn and listener are close-on-exec
}

func warn(s string) { _, _ = os.Stderr.WriteString("poemq-launch: " + s + "\n") }
