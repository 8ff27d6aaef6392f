package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"time"

	"github.com/poemq/poemq/broker/api"
	"github.com/spf13/cobra"
)

func fallbackCommand(o *options) *cobra.Command {
	c := &cobra.Command{
		Use: "fallback", Short: "Show the destinations that are reached by TCP at once", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return show(c, o, "GET", "/v1/fallback", nil, printFallback)
		},
	}
	c.AddCommand(&cobra.Command{
		Use: "forget [HOST:PORT]", Short: "Have QUIC tried again at the next connection, everywhere or to one destination", Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			paths := []string{"/v1/fallback"}
			if len(args) > 0 {
				where, err := destinations(c.Context(), args[0])
				if err != nil {
					return err
				}
				paths = nil
				for _, one := range where {
					paths = append(paths, "/v1/fallback?destination="+url.QueryEscape(one.String()))
				}
			}
			return forget(c, o, paths)
		},
	})
	return c
}

func printFallback(w io.Writer, a api.Fallbacks) error {
	var rows [][]string
	for _, f := range a.Fallback {
		rows = append(rows, []string{
			address(f.Remote), fmt.Sprint(f.UID), fmt.Sprint(f.NetNS), f.Reason,
			f.Since.Local().Format(time.TimeOnly), time.Until(f.Expires).Round(time.Second).String(),
		})
	}
	return table(w, "DESTINATION UID NETNS REASON SINCE FOR", rows)
}

// resolveTimeout bounds looking a name up.
const resolveTimeout = 10 * time.Second

// destinations are the addresses that hostPort stands for.
func destinations(ctx context.Context, hostPort string) ([]netip.AddrPort, error) {
	host, port, err := net.SplitHostPort(hostPort)
	if err != nil {
		return nil, fmt.Errorf("%q is not like 192.0.2.1:443, [2001:db8::1]:443 or host.example:443", hostPort)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return nil, fmt.Errorf("%q is no port from 1 to 65535", port)
	}
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	var all []netip.AddrPort
	for _, a := range addrs {
		all = append(all, netip.AddrPortFrom(a.Unmap(), uint16(n)))
	}
	return all, nil
}

// forget does DELETE on each of paths, and tells how many entries there were.
func forget(c *cobra.Command, o *options, paths []string) error {
	client := o.client()
	defer client.Close()
	total := api.Forgotten{}
	for _, path := range paths {
		answer, err := api.Do[api.Forgotten](c.Context(), client, "DELETE", path, nil)
		if err != nil {
			return err
		}
		total.Forgotten += answer.Forgotten
	}
	if o.json {
		return printJSON(c.OutOrStdout(), total)
	}
	_, err := fmt.Fprintln(c.OutOrStdout(), "forgotten:", total.Forgotten)
	return err
}
