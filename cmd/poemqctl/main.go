// Command poemqctl asks and steers a running poemqd, finds out what a host is
// able to, and keeps a fleet's CA.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"

	"github.com/poemq/poemq/broker/api"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// version is stamped in by the build (-ldflags -X).
var version = "devel"

func main() {
	root := &cobra.Command{
		Use: "poemqctl", Short: "Ask and steer a running poemqd", Version: version,
		SilenceUsage: true, SilenceErrors: true,
	}
	o := new(options)
	root.PersistentFlags().StringVar(&o.control, "control", "", "poemqd's control `SOCKET` (env POEMQ_CONTROL; default "+api.SystemSocket+", or the one of your own poemqd in XDG_RUNTIME_DIR)")
	root.PersistentFlags().BoolVar(&o.json, "json", false, "print JSON")
	root.AddCommand(
		versionCommand(o), statusCommand(o), psCommand(o), ssCommand(o), connsCommand(o), topCommand(o),
		whyCommand(o), fallbackCommand(o), trustCommand(o), caCommand(&o.json), ociProfileCommand(),
		reloadCommand(o), logLevelCommand(o), qlogCommand(o), doctorCommand(o),
		drainCommand(o), enableCommand(&o.json), disableCommand(&o.json),
	)
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	err := root.ExecuteContext(ctx)
	stop()
	if err != nil && !errors.Is(err, errSaid) {
		fmt.Fprintln(os.Stderr, "poemqctl:", err)
	}
	if err != nil {
		os.Exit(1)
	}
}

// errSaid is a failure that standard output tells of already.
var errSaid = errors.New("said")

// options are the flags of every command.
type options struct {
	control string
	json    bool
}

// socket is the control socket to ask: what was named, else the system's, else
// the user's own if there is one.
func (o *options) socket() string {
	for _, named := range []string{o.control, os.Getenv("POEMQ_CONTROL")} {
		if named != "" {
			return named
		}
	}
	if _, err := os.Stat(api.SystemSocket); err != nil {
		if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
			if own := filepath.Join(dir, "poemq", "control.sock"); exists(own) {
				return own
			}
		}
	}
	return api.SystemSocket
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func (o *options) client() *api.Client { return api.New(o.socket()) }

// show asks for path, and prints the answer: as it came with --json, else as
// print has it.
func show[T any](c *cobra.Command, o *options, method, path string, body any, print func(io.Writer, T) error) error {
	client := o.client()
	defer client.Close()
	if o.json {
		answer, err := client.Raw(c.Context(), method, path, body)
		if err == nil {
			_, err = c.OutOrStdout().Write(answer)
		}
		return err
	}
	answer, err := api.Do[T](c.Context(), client, method, path, body)
	if err != nil {
		return err
	}
	return print(c.OutOrStdout(), answer)
}

func versionCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if o.json {
				return printJSON(c.OutOrStdout(), map[string]string{"version": version})
			}
			_, err := fmt.Fprintln(c.OutOrStdout(), "poemqctl", version)
			return err
		},
	}
}
