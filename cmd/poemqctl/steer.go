package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/poemq/poemq/broker/api"
	"github.com/spf13/cobra"
)

func reloadCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "reload", Short: "Have poemqd read its configuration again; with faults the old one stays", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return show(c, o, "POST", "/v1/reload", nil, func(w io.Writer, a api.Reloaded) error {
				files := strings.Join(a.Files, ", ")
				if files == "" {
					files = "no files, built-in defaults"
				}
				if _, err := fmt.Fprintf(w, "reloaded: %s; rules %d\n", files, a.Rules); err != nil || len(a.Waiting) == 0 {
					return err
				}
				_, err := fmt.Fprintln(w, "these wait for a restart:", strings.Join(a.Waiting, ", "))
				return err
			})
		},
	}
}

func logLevelCommand(o *options) *cobra.Command {
	levels := []string{"debug", "info", "warn", "error"}
	return &cobra.Command{
		Use: "log-level [debug|info|warn|error]", Short: "Show the log's level, or change it until the next start or reload",
		Args: cobra.MaximumNArgs(1), ValidArgs: levels,
		RunE: func(c *cobra.Command, args []string) error {
			method, body := "GET", any(nil)
			if len(args) > 0 {
				method, body = "PUT", api.LogLevel{Level: args[0]}
			}
			return show(c, o, method, "/v1/log-level", body, func(w io.Writer, a api.LogLevel) error {
				_, err := fmt.Fprintln(w, a.Level)
				return err
			})
		},
	}
}

func qlogCommand(o *options) *cobra.Command {
	root := &cobra.Command{
		Use: "qlog", Short: "Write a trace (qlog) of a QUIC connection, or end it",
		Long: "Write a trace (qlog) of a QUIC connection, or end it. CONN is the number that\n" +
			"poemqctl ss and poemqctl conns show. A connection can be traced from its beginning\n" +
			"only: one that runs already takes no new streams then, goes on with those it has,\n" +
			"and the next one with that peer is traced. A trace holds addresses and sizes, no\n" +
			"keys and no data.",
	}
	for _, on := range []bool{true, false} {
		use, short := "on CONN", "Trace this connection, or the one that takes its place"
		if !on {
			use, short = "off CONN", "End the trace of this connection, and trace none with that peer any more"
		}
		root.AddCommand(&cobra.Command{
			Use: use, Short: short, Args: cobra.ExactArgs(1),
			RunE: func(c *cobra.Command, args []string) error {
				id, err := strconv.ParseUint(args[0], 10, 64)
				if err != nil {
					return fmt.Errorf("%q is no number of a connection: see the column CONN of poemqctl ss", args[0])
				}
				return show(c, o, "PUT", fmt.Sprintf("/v1/connections/%d/qlog", id), api.Qlog{On: on}, printTraced)
			},
		})
	}
	return root
}

func printTraced(w io.Writer, t api.Traced) error {
	var err error
	switch {
	case !t.On && t.File != "":
		_, err = fmt.Fprintf(w, "%v: the trace has ended: %s\n", t.Peer, t.File)
	case !t.On:
		_, err = fmt.Fprintf(w, "%v: connections to come are not traced\n", t.Peer)
	case t.Next:
		_, err = fmt.Fprintf(w, "%v: the next connection is traced, in %s; this one takes no new streams\n", t.Peer, t.Dir)
	default:
		_, err = fmt.Fprintf(w, "%v: traced already: %s\n", t.Peer, t.File)
	}
	return err
}
