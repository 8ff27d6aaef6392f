package main

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"time"

	"github.com/poemq/poemq/broker/api"
	"github.com/spf13/cobra"
)

// answerTime is how long poemqd may take beyond the deadline.
const answerTime = 10 * time.Second

func drainCommand(o *options) *cobra.Command {
	var deadline time.Duration
	c := &cobra.Command{
		Use: "drain", Short: "Have poemqd end when its connections have", Args: cobra.NoArgs,
		Long: "Has poemqd take no more sessions, wait until no connections are carried any\n" +
			"more, or the deadline has passed, and end. Under systemd the next one is started\n" +
			"at once and goes on with all programs; elsewhere sessions are waited for, too.",
		RunE: func(c *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(c.Context(), deadline+answerTime)
			defer cancel()
			c.SetContext(ctx)
			return show(c, o, "POST", "/v1/drain?deadline="+url.QueryEscape(deadline.String()), nil, printDrained)
		},
	}
	c.Flags().DurationVar(&deadline, "deadline", 30*time.Second, "how long connections are waited for")
	return c
}

func printDrained(w io.Writer, d api.Drained) error {
	after := "poemqd ends"
	if d.Kept {
		after += fmt.Sprintf("; the next one goes on with %d sessions", d.Sessions)
	}
	if d.Drained {
		_, err := fmt.Fprintln(w, "nothing is open any more;", after)
		return err
	}
	_, err := fmt.Fprintf(w, "the deadline has passed with %d connections and %d sessions open; %s\n", d.Relays, d.Sessions, after)
	return err
}
