// Command poemq-launch runs a program whose TCP sockets are carried over QUIC.
package main

import (
	"errors"
	"os"

	"github.com/poemq/poemq/launcher"
	"github.com/poemq/poemq/launcher/filter"
	"github.com/spf13/pflag"
)

// version is set by the build: -ldflags '-X main.version=…'.
var version = "devel"

const usage = `Usage: poemq-launch [flags] [--] CMD [ARG…]

Runs CMD with its TCP sockets carried over QUIC. CMD takes this process's place.

`

func main() {
	o, done, err := parse(os.Args[1:])
	if done {
		return
	}
	status := 0
	if err == nil {
		status, err = launcher.Run(o)
	}
	if err != nil {
		status = launcher.StatusFailed
		if e := (*launcher.Error)(nil); errors.As(err, &e) && e.Status != 0 {
			status = e.Status
		}
		_, _ = os.Stderr.WriteString("poemq-launch: " + err.Error() + "\n")
	}
	os.Exit(status)
}

// parse reads the flags. done means that they asked for words only.
func parse(args []string) (o launcher.Options, done bool, err error) {
	f := pflag.NewFlagSet("poemq-launch", pflag.ContinueOnError)
	f.SetInterspersed(false) // CMD's flags are CMD's
	f.Usage = func() {}
	f.StringVar(&o.Broker, "broker", env("POEMQ_BROKER", launcher.DefaultBroker), "the broker's socket (POEMQ_BROKER)")
	f.StringVar(&o.Quic, "quic", env("POEMQ_QUIC", ""), "require, prefer or off, where no rule of the broker's says otherwise (POEMQ_QUIC; default: as the broker is configured, prefer)")
	f.StringVar(&o.OnBrokerMissing, "on-broker-missing", env("POEMQ_ON_BROKER_MISSING", launcher.MissingEmbedded),
		"without a broker: embedded (start a private one), fail, or plain (go on over TCP) (POEMQ_ON_BROKER_MISSING)")
	f.StringVar(&o.Poemqd, "poemqd", env("POEMQ_POEMQD", ""), "poemqd for the private broker (POEMQ_POEMQD; default: beside this program, or where it is installed)")
	f.StringVar(&o.Via, "via", env("POEMQ_VIA", launcher.ViaSeccomp), "how CMD's calls are caught: seccomp, zpoline (a library in CMD), or auto (zpoline where seccomp cannot be had) (POEMQ_VIA)")
	f.StringVar(&o.Zpoline, "zpoline-loader", env("POEMQ_ZPOLINE_LOADER", ""), "the loader for --via zpoline (POEMQ_ZPOLINE_LOADER; default: libpoemq-zpoline.so beside this program, or where it is installed)")
	matches := f.StringArray("match", nil, "`DOMAIN,TYPE,PROTO` of sockets to carry; repeatable (default: inet and inet6, stream, 0 and tcp)")
	f.StringVar(&o.Argv0, "argv0", "", "what CMD finds as its own name (argv[0]); default: CMD")
	showVersion := f.Bool("version", false, "print the version and exit")
	showHelp := f.BoolP("help", "h", false, "print this and exit")
	f.IntVar(&o.HandoverFD, "handover-fd", -1, "")
	f.StringVar(&o.Inherited, "inherited", "", "")
	f.BoolVar(&o.Keeper, "keeper", false, "leave a process that keeps the session when the broker ends, for the next one there; needed without systemd only")
	f.IntVar(&o.KeepFD, "keep-fd", -1, "")
	_ = f.MarkHidden("keep-fd")
	_ = f.MarkHidden("handover-fd")
	_ = f.MarkHidden("inherited")
	o.EmbeddedMode = os.Getenv("POEMQ_EMBEDDED_MODE")

	switch err := f.Parse(args); {
	case err != nil:
		return o, false, &launcher.Error{What: err.Error(), Hint: "see poemq-launch --help"}
	case *showHelp:
		_, _ = os.Stdout.WriteString(usage + f.FlagUsages())
		return o, true, nil
	case *showVersion:
		_, _ = os.Stdout.WriteString("poemq-launch " + version + "\n")
		return o, true, nil
	}
	for _, s := range *matches {
		m, err := filter.ParseMatch(s)
		if err != nil {
			return o, false, &launcher.Error{What: "--match", Err: err}
		}
		o.Matches = append(o.Matches, m)
	}
	o.Args = f.Args()
	return o, false, nil
}

func env(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}
