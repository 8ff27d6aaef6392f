package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func drainCommand(control *string, asJSON *bool) *cobra.Command {
	var deadline time.Duration
	c := &cobra.Command{
		Use: "drain", Short: "Have poemqd end when its connections have", Args: cobra.NoArgs,
		Long: "Has poemqd take no more sessions, wait until the connections that it carries are\n" +
			"over, or the deadline has passed, and end. Under systemd the next one is started\n" +
			"at once and goes on with all programs; elsewhere sessions are waited for, too.",
		RunE: func(c *cobra.Command, _ []string) error {
			return drain(c.Context(), *control, deadline, *asJSON, os.Stdout)
		},
	}
	c.Flags().DurationVar(&deadline, "deadline", 30*time.Second, "how long connections are waited for")
	return c
}

// answerTime is how long poemqd may take beyond the deadline.
const answerTime = 10 * time.Second

func drain(ctx context.Context, control string, deadline time.Duration, asJSON bool, w io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, deadline+answerTime)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", control)
		},
	}}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://poemqd/v1/drain?deadline="+url.QueryEscape(deadline.String()), nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("ask poemqd at %s: %w (is it running? name its socket with --control)", control, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	switch {
	case err != nil:
		return fmt.Errorf("poemqd at %s: %w", control, err)
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("poemqd at %s answered %s: %s", control, resp.Status, strings.TrimSpace(string(body)))
	case asJSON:
		_, err = w.Write(body)
		return err
	}
	var d struct {
		Drained          bool
		Relays, Sessions int
		Kept             bool
	}
	if err := json.Unmarshal(body, &d); err != nil {
		return fmt.Errorf("poemqd at %s: %w", control, err)
	}
	after := "poemqd ends"
	if d.Kept {
		after += fmt.Sprintf("; the next one goes on with %d sessions", d.Sessions)
	}
	if d.Drained {
		_, err = fmt.Fprintln(w, "nothing is open any more;", after)
	} else {
		_, err = fmt.Fprintf(w, "the deadline has passed with %d connections and %d sessions open; %s\n", d.Relays, d.Sessions, after)
	}
	return err
}
