package main

import (
	"fmt"
	"io"
	"os"

	"github.com/poemq/poemq/broker/doctor"
	"github.com/spf13/cobra"
)

func doctorCommand(o *options) *cobra.Command {
	c := &cobra.Command{
		Use: "doctor [HOST:PORT…]", Short: "Try out what poemq needs of this host, and whether peers answer QUIC",
		Long: "Try out, as the user who asks, what poemq needs of this host. No broker is needed, and\n" +
			"nothing is changed. Each line is ok, warn (poemq works, with less) or fail, with what\n" +
			"to do. Peers that are named are asked by one UDP packet whether they answer QUIC; no\n" +
			"program there learns of it. The exit status is 1 if a line says fail.",
		RunE: func(c *cobra.Command, peers []string) error {
			self, err := os.Executable()
			if err != nil {
				return err
			}
			r := doctor.Run(c.Context(), doctor.Options{Control: o.socket(), Peers: peers, Child: []string{self, "doctor", "wait"}})
			if o.json {
				err = printJSON(c.OutOrStdout(), r)
			} else {
				err = printReport(c.OutOrStdout(), r)
			}
			if err == nil && r.Fail > 0 {
				err = errSaid
			}
			return err
		},
	}
	c.AddCommand(&cobra.Command{
		Use: "wait", Hidden: true, Args: cobra.NoArgs, Short: "Wait for the end of standard input",
		RunE: func(c *cobra.Command, _ []string) error {
			_, err := io.Copy(io.Discard, c.InOrStdin())
			return err
		},
	})
	return c
}

func printReport(w io.Writer, r doctor.Report) error {
	for _, c := range r.Checks {
		if _, err := fmt.Fprintf(w, "%-4s  %-22s %s\n", c.State, c.Name, printable(c.Found)); err != nil {
			return err
		}
		if c.Do == "" {
			continue
		}
		if _, err := fmt.Fprintf(w, "%30s→ %s\n", "", c.Do); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(w, "\n%d ok, %d warn, %d fail\n", r.OK, r.Warn, r.Fail)
	return err
}
