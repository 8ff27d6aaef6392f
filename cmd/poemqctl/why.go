package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"

	"github.com/spf13/cobra"
)

func whyCommand(control *string, asJSON *bool) *cobra.Command {
	var uid uint32
	var listen bool
	var session, cgroup, asked string
	c := &cobra.Command{
		Use: "why HOST:PORT", Short: "Tell how a connection would be carried, and which rule says so", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			addrs, err := destinations(c.Context(), args[0])
			if err != nil {
				return err
			}
			q := url.Values{"uid": {strconv.FormatUint(uint64(uid), 10)}, "session": {session}, "cgroup": {cgroup}, "asked": {asked}}
			for _, addr := range addrs {
				q.Del("to")
				q.Del("listen")
				if listen {
					q.Set("listen", addr)
				} else {
					q.Set("to", addr)
				}
				body, err := ask(c.Context(), *control, http.MethodGet, "/v1/why?"+q.Encode())
				if err != nil {
					return err
				}
				if err := printWhy(os.Stdout, addr, body, *asJSON); err != nil {
					return err
				}
			}
			return nil
		},
	}
	c.Flags().Uint32Var(&uid, "uid", uint32(os.Getuid()), "the program's user")
	c.Flags().BoolVar(&listen, "listen", false, "of a port that is listened on")
	c.Flags().StringVar(&session, "session", "", "the program's or container's name")
	c.Flags().StringVar(&cgroup, "cgroup", "", "the program's cgroup")
	c.Flags().StringVar(&asked, "quic", "", "what poemq-launch --quic asks for")
	return c
}

func printWhy(w io.Writer, addr string, body []byte, asJSON bool) error {
	if asJSON {
		_, err := w.Write(body)
		return err
	}
	var d struct{ Mode, By, Identity string }
	if err := json.Unmarshal(body, &d); err != nil {
		return err
	}
	if d.Identity != "" {
		d.By += ", identity " + d.Identity
	}
	_, err := fmt.Fprintf(w, "%s: %s (%s)\n", addr, d.Mode, d.By)
	return err
}
