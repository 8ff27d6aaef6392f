package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
)

func fallbackCommand(control *string, asJSON *bool) *cobra.Command {
	c := &cobra.Command{
		Use: "fallback", Short: "Show the destinations that are reached by TCP at once", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return fallback(c.Context(), *control, *asJSON, os.Stdout)
		},
	}
	c.AddCommand(&cobra.Command{
		Use: "forget [HOST:PORT]", Short: "Have QUIC tried again at the next connection, everywhere or to one destination", Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			where := []string{""}
			if len(args) > 0 {
				var err error
				if where, err = destinations(c.Context(), args[0]); err != nil {
					return err
				}
			}
			return forget(c.Context(), *control, *asJSON, where, os.Stdout)
		},
	})
	return c
}

func fallback(ctx context.Context, control string, asJSON bool, w io.Writer) error {
	body, err := ask(ctx, control, http.MethodGet, "/v1/fallback")
	if err != nil {
		return err
	}
	if asJSON {
		_, err = w.Write(body)
		return err
	}
	var answer struct {
		Fallback []struct {
			Destination netip.AddrPort `json:"destination"`
			UID         uint32         `json:"uid"`
			NetNS       uint64         `json:"netns"`
			Reason      string         `json:"reason"`
			Since       time.Time      `json:"since"`
			Expires     time.Time      `json:"expires"`
		} `json:"fallback"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return fmt.Errorf("poemqd at %s: %w", control, err)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if len(answer.Fallback) > 0 {
		fmt.Fprintln(t, "DESTINATION\tUID\tNETNS\tREASON\tSINCE\tFOR")
	}
	for _, f := range answer.Fallback {
		fmt.Fprintf(t, "%v\t%d\t%d\t%s\t%s\t%v\n", f.Destination, f.UID, f.NetNS, f.Reason,
			f.Since.Local().Format(time.TimeOnly), time.Until(f.Expires).Round(time.Second))
	}
	return t.Flush()
}

// destinations are the addresses that hostPort stands for, as poemqd names them.
func destinations(ctx context.Context, hostPort string) ([]string, error) {
	host, port, err := net.SplitHostPort(hostPort)
	if err != nil {
		return nil, fmt.Errorf("%q is not like 192.0.2.1:443, [2001:db8::1]:443 or host.example:443", hostPort)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return nil, fmt.Errorf("%q is no port from 1 to 65535", port)
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	var all []string
	for _, a := range addrs {
		all = append(all, netip.AddrPortFrom(a.Unmap(), uint16(n)).String())
	}
	return all, nil
}

func forget(ctx context.Context, control string, asJSON bool, where []string, w io.Writer) error {
	total := 0
	for _, one := range where {
		path := "/v1/fallback"
		if one != "" {
			path += "?destination=" + url.QueryEscape(one)
		}
		body, err := ask(ctx, control, http.MethodDelete, path)
		if err != nil {
			return err
		}
		var answer struct{ Forgotten int }
		if err := json.Unmarshal(body, &answer); err != nil {
			return fmt.Errorf("poemqd at %s: %w", control, err)
		}
		total += answer.Forgotten
	}
	if asJSON {
		_, err := fmt.Fprintf(w, "{\"forgotten\":%d}\n", total)
		return err
	}
	_, err := fmt.Fprintln(w, "forgotten:", total)
	return err
}
