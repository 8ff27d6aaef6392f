package main

import (
	"errors"
	"log/slog"
	"os"

	"github.com/poemq/poemq/broker/api"
	"github.com/poemq/poemq/broker/control"
)

// serveControl answers poemqctl; see docs/api.md. The socket is for everybody:
// who asks is authorised by what the kernel tells of the peer.
func (r *running) serveControl(path string, o *options, level *slog.LevelVar, log *slog.Logger, d *drain) (stop func(), err error) {
	l, err := listenUnix(path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o666); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return control.Serve(l, control.Config{
		Broker: r.broker, Host: r.host, Log: log, Version: version, Level: level,
		Reload: func() (api.Reloaded, error) { return r.reload(o.sources(false), level, log) },
		Drain:  d.run, End: d.end,
	}), nil
}
