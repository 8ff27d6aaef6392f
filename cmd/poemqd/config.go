package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/poemq/poemq/broker"
	"github.com/poemq/poemq/broker/api"
	"github.com/poemq/poemq/broker/config"
	"github.com/spf13/cobra"
)

func checkConfigCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "check-config [FILE…]", Short: "Look for faults in the configuration, or in these files",
		RunE: func(_ *cobra.Command, files []string) error {
			s := o.sources(ordinaryUser())
			if len(files) > 0 {
				s = config.Sources{More: files}
			}
			return checkConfig(s, os.Stdout)
		},
	}
}

func checkConfig(s config.Sources, out io.Writer) error {
	c, err := config.Load(s)
	if err != nil {
		return err
	}
	pki, _, err := fleet(c)
	if err != nil {
		return err
	}
	if _, err := fronts(c, pki); err != nil {
		return err
	}
	files := strings.Join(c.Files(), ", ")
	if files == "" {
		files = "no files, built-in defaults"
	}
	_, err = fmt.Fprintln(out, "ok:", files)
	return err
}

func (o *options) printConfig(w io.Writer) error {
	c, err := config.Load(o.sources(ordinaryUser()))
	if err != nil {
		return err
	}
	return c.Print(w)
}

// reloadOn reads the configuration again at each signal, until ctx ends.
func (r *running) reloadOn(ctx context.Context, hup <-chan os.Signal, o *options, level *slog.LevelVar, log *slog.Logger) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-hup:
			tellReloading()
			_, _ = r.reload(o.sources(false), level, log) // it says itself what came of it
			tell(daemon.SdNotifyReady)
		}
	}
}

// reload takes over what can change in a running broker. A fault leaves
// everything as it was.
func (r *running) reload(s config.Sources, level *slog.LevelVar, log *slog.Logger) (api.Reloaded, error) {
	r.reloading.Lock()
	defer r.reloading.Unlock()
	c, err := config.Load(s)
	var served []broker.Front
	if err == nil {
		served, err = fronts(c, r.pki)
	}
	if err == nil && r.pki != nil {
		err = r.pki.Reload()
	}
	if err != nil {
		log.Error("the configuration has faults; the one in force stays", "error", err)
		return api.Reloaded{}, err
	}
	level.Set(c.Log.Level)
	r.broker.SetFallback(broker.Fallback(c.Fallback))
	r.broker.SetPolicy(rules(c))
	r.broker.SetFronts(served)
	waiting := r.config.AtRestart(c)
	if len(waiting) > 0 {
		log.Warn("settings wait for a restart", "settings", waiting)
	}
	log.Info("configuration read again", "configuration", c.Files(), "rules", len(c.Rules))
	return api.Reloaded{Files: append([]string{}, c.Files()...), Rules: len(c.Rules), Waiting: append([]string{}, waiting...)}, nil
}
