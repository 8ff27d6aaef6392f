package main

import (
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"strings"

	"github.com/poemq/poemq/broker/api"
	"github.com/spf13/cobra"
)

func trustCommand(o *options) *cobra.Command {
	root := &cobra.Command{Use: "trust", Short: "Look at and change which key each peer is held to (docs/identity.md)"}
	root.AddCommand(
		&cobra.Command{
			Use: "list", Short: "List the peers' keys that are remembered", Args: cobra.NoArgs,
			RunE: func(c *cobra.Command, _ []string) error { return show(c, o, "GET", "/v1/trust", nil, printTrust) },
		},
		&cobra.Command{
			Use: "forget ADDRESS:PORT", Short: "Forget a peer's key: the next connection remembers the one it sees", Args: cobra.ExactArgs(1),
			RunE: func(c *cobra.Command, args []string) error {
				peer, err := peerAddress(args[0])
				if err != nil {
					return err
				}
				return forget(c, o, []string{"/v1/trust?peer=" + url.QueryEscape(peer)})
			},
		},
		&cobra.Command{
			Use: "pin ADDRESS:PORT sha256:BASE64", Short: "Hold a peer to this key, in place of what is remembered", Args: cobra.ExactArgs(2),
			RunE: func(c *cobra.Command, args []string) error {
				peer, err := peerAddress(args[0])
				if err != nil {
					return err
				}
				return show(c, o, "PUT", "/v1/trust", api.Pin{Peer: peer, Key: args[1]}, func(w io.Writer, p api.Pin) error {
					_, err := fmt.Fprintf(w, "%v is held to %s\n", p.Peer, p.Key)
					return err
				})
			},
		},
	)
	return root
}

// peerAddress does not look names up: pins are of addresses, and who answers for
// a name may change.
func peerAddress(s string) (string, error) {
	addr, ns, named := strings.Cut(s, "@")
	a, err := netip.ParseAddrPort(addr)
	if err != nil || a.Port() == 0 || named && ns == "" {
		return "", fmt.Errorf("%q is not like 192.0.2.1:443 or [2001:db8::1]:443, or 192.0.2.1:443@NAMESPACE: keys are remembered by address", s)
	}
	return s, nil
}

func printTrust(w io.Writer, a api.Trust) error {
	var rows [][]string
	for _, p := range a.Pins {
		where := "memory"
		if p.File != "" {
			where = strings.Join([]string{p.File, fmt.Sprint(p.Line)}, ":")
		}
		rows = append(rows, []string{p.Peer, p.Key, p.Since, where})
	}
	return table(w, "PEER KEY SINCE WHERE", rows)
}
