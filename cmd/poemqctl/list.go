package main

import (
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/poemq/poemq/broker/api"
	"github.com/spf13/cobra"
)

func statusCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Show what poemqd is doing", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return show(c, o, "GET", "/v1/status", nil, printStatus)
		},
	}
}

func printStatus(w io.Writer, s api.Status) error {
	up := time.Duration(s.Uptime * float64(time.Second)).Round(time.Second)
	_, err := fmt.Fprintf(w, "poemqd %s, pid %d, up %v\nsessions %d, sockets %d, connections %d\nfds %d, goroutines %d, heap %.1f MiB\n",
		s.Version, s.PID, up, s.Sessions, s.Sockets, s.Relays, s.Fds, s.Goroutines, float64(s.HeapBytes)/(1<<20))
	for _, f := range s.Fronts {
		if err == nil {
			_, err = fmt.Fprintln(w, frontLine(f))
		}
	}
	return err
}

func frontLine(f api.Front) string {
	s := fmt.Sprintf("%s %s to %s", f.Kind, f.Listen, f.To)
	for _, more := range []string{f.Mode, f.Identity} {
		if more != "" {
			s += ", " + more
		}
	}
	if f.Error != "" {
		return s + ": not served: " + f.Error
	}
	return fmt.Sprintf("%s: connections %d, total %d, failed %d", s, f.Connections, f.Total, f.Failed)
}

func psCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "ps", Short: "List sessions: launched process trees and containers", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return show(c, o, "GET", "/v1/sessions", nil, printSessions)
		},
	}
}

func printSessions(w io.Writer, a api.Sessions) error {
	var rows [][]string
	for _, s := range a.Sessions {
		rows = append(rows, []string{
			strconv.FormatUint(s.ID, 10), s.Program, number(s.PID), strconv.FormatUint(uint64(s.UID), 10), s.Quic,
			strconv.Itoa(s.Sockets), strconv.Itoa(s.Connections), strconv.FormatUint(s.Total, 10), strconv.FormatUint(s.Calls, 10),
			octets(s.Sent), octets(s.Received), age(s.Age),
		})
	}
	return table(w, "SESSION PROGRAM PID UID QUIC SOCKETS CONNECTIONS TOTAL CALLS SENT RECEIVED AGE", rows)
}

// number leaves 0 out.
func number[T int | uint64](n T) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}

func ssCommand(o *options) *cobra.Command {
	var listening bool
	var session uint64
	c := &cobra.Command{
		Use: "ss", Short: "List sockets: who has them, how they are carried and why, and how that goes", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			client := o.client()
			defer client.Close()
			a, err := api.Get[api.Sockets](c.Context(), client, "/v1/sockets")
			if err != nil {
				return err
			}
			chosen := api.Sockets{Sockets: []api.Socket{}}
			for _, s := range a.Sockets {
				if (!listening || s.State == "listening") && (session == 0 || s.Session == session) {
					chosen.Sockets = append(chosen.Sockets, s)
				}
			}
			if o.json {
				return printJSON(c.OutOrStdout(), chosen)
			}
			return printSockets(c.OutOrStdout(), chosen)
		},
	}
	c.Flags().BoolVarP(&listening, "listening", "l", false, "listening sockets only")
	c.Flags().Uint64Var(&session, "session", 0, "those of one session, by its `NUMBER`")
	return c
}

func printSockets(w io.Writer, a api.Sockets) error {
	var rows [][]string
	for _, s := range a.Sockets {
		lost, sent, received := "", "", ""
		if s.State == "connected" || s.Sent+s.Received > 0 {
			lost, sent, received = strconv.FormatUint(s.Lost, 10), octets(s.Sent), octets(s.Received)
		}
		cwnd := ""
		if s.CWnd > 0 {
			cwnd = octets(s.CWnd)
		}
		rows = append(rows, []string{
			s.Program, number(s.PID), s.State, s.Via, address(s.Local), address(s.Remote),
			millis(s.RTT), cwnd, lost, sent, received, age(s.Age), number(s.Connection), s.Why,
		})
	}
	return table(w, "PROGRAM PID STATE VIA LOCAL REMOTE RTT CWND LOST SENT RECEIVED AGE CONN WHY", rows)
}

func connsCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "conns", Short: "List QUIC connections, which sockets to one peer share", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return show(c, o, "GET", "/v1/connections", nil, printConnections)
		},
	}
}

func printConnections(w io.Writer, a api.Connections) error {
	var rows [][]string
	for _, n := range a.Connections {
		state := "open"
		switch {
		case n.Handshaking:
			state = "handshaking"
		case n.Draining:
			state = "draining"
		}
		qlog := n.Qlog
		rows = append(rows, []string{
			number(n.ID), n.Side, state, address(n.Local), address(n.Peer), strconv.Itoa(n.Streams), strconv.FormatUint(n.Total, 10),
			millis(n.RTT), octets(n.CWnd), strconv.FormatUint(n.PacketsLost, 10), octets(n.Sent), octets(n.Received), age(n.Age), n.Identity, qlog,
		})
	}
	return table(w, "CONN SIDE STATE LOCAL PEER STREAMS TOTAL RTT CWND LOST SENT RECEIVED AGE IDENTITY QLOG", rows)
}
