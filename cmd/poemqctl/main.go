// Command poemqctl asks and steers a running poemqd, and keeps a fleet's CA.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/spf13/cobra"
)

// version is stamped in by the build (-ldflags -X).
var version = "devel"

func main() {
	root := &cobra.Command{
		Use: "poemqctl", Short: "Ask and steer a running poemqd", Version: version,
		SilenceUsage: true, SilenceErrors: true,
	}
	var control string
	var asJSON bool
	root.PersistentFlags().StringVar(&control, "control", envOr("POEMQ_CONTROL", "/run/poemq/control.sock"), "poemqd's control socket (env POEMQ_CONTROL)")
	root.PersistentFlags().BoolVar(&asJSON, "json", false, "print JSON")
	root.AddCommand(
		&cobra.Command{
			Use: "version", Short: "Print the version", Args: cobra.NoArgs,
			Run: func(*cobra.Command, []string) { printVersion(os.Stdout, asJSON) },
		},
		&cobra.Command{
			Use: "status", Short: "Show what poemqd is doing", Args: cobra.NoArgs,
			RunE: func(c *cobra.Command, _ []string) error { return status(c.Context(), control, asJSON, os.Stdout) },
		},
		caCommand(&asJSON),
		ociProfileCommand(),
		fallbackCommand(&control, &asJSON),
		whyCommand(&control, &asJSON),
		drainCommand(&control, &asJSON),
		enableCommand(&asJSON), disableCommand(&asJSON),
	)
	if err := root.ExecuteContext(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "poemqctl:", err)
		os.Exit(1)
	}
}

func envOr(name, unset string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return unset
}

func printVersion(w io.Writer, asJSON bool) {
	if asJSON {
		fmt.Fprintf(w, "{\"version\":%q}\n", version)
		return
	}
	fmt.Fprintln(w, "poemqctl", version)
}

const askTimeout = 10 * time.Second

// ask has the control API do method on path, and gives its answer.
func ask(ctx context.Context, control, method, path string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", control)
		},
	}}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, method, "http://poemqd"+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask poemqd at %s: %w (is it running? name its socket with --control)", control, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("poemqd at %s answered %s: %s", control, resp.Status, bytes.TrimSpace(body))
	}
	return body, err
}

func status(ctx context.Context, control string, asJSON bool, w io.Writer) error {
	body, err := ask(ctx, control, http.MethodGet, "/v1/status")
	if err != nil {
		return err
	}
	if asJSON {
		_, err = w.Write(body)
		return err
	}
	var s struct {
		Version    string  `json:"version"`
		PID        int     `json:"pid"`
		Uptime     float64 `json:"uptime_seconds"`
		Sessions   int     `json:"sessions"`
		Sockets    int     `json:"sockets"`
		Relays     int     `json:"relays"`
		Goroutines int     `json:"goroutines"`
		Fds        int     `json:"fds"`
		HeapBytes  uint64  `json:"heap_bytes"`
		Fronts     []front `json:"fronts"`
	}
	if err := json.Unmarshal(body, &s); err != nil {
		return fmt.Errorf("poemqd at %s: %w", control, err)
	}
	up := time.Duration(s.Uptime * float64(time.Second)).Round(time.Second)
	_, err = fmt.Fprintf(w, "poemqd %s, pid %d, up %v\nsessions %d, sockets %d, connections %d\nfds %d, goroutines %d, heap %.1f MiB\n",
		s.Version, s.PID, up, s.Sessions, s.Sockets, s.Relays, s.Fds, s.Goroutines, float64(s.HeapBytes)/(1<<20))
	for _, f := range s.Fronts {
		if err == nil {
			_, err = fmt.Fprintln(w, f)
		}
	}
	return err
}

// front is a port that poemqd itself serves.
type front struct {
	Kind        string `json:"kind"`
	Listen      string `json:"listen"`
	To          string `json:"to"`
	Mode        string `json:"mode"`
	Identity    string `json:"identity"`
	Connections int64  `json:"connections"`
	Total       uint64 `json:"total"`
	Failed      uint64 `json:"failed"`
	Error       string `json:"error"`
}

func (f front) String() string {
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
