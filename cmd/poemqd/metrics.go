package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"

	"github.com/poemq/poemq/broker/control"
	"github.com/poemq/poemq/broker/journal"
	"github.com/poemq/poemq/broker/metrics"
)

// serveMetrics serves metrics and the status page where [metrics] listen says.
func (r *running) serveMetrics(log *slog.Logger) (stop func(), err error) {
	at := r.config.Metrics.Listen
	if at == "" {
		return func() {}, nil
	}
	var l net.Listener
	if filepath.IsAbs(at) {
		l, err = listenGroup(at)
	} else {
		l, err = net.Listen("tcp", at)
	}
	if err != nil {
		return nil, fmt.Errorf("[metrics] listen: %w", err)
	}
	log.Info("metrics and status page", "listen", l.Addr().String())
	return metrics.Serve(l, metrics.Source{Broker: r.broker, Journal: journal.Of(log), Version: version}, log), nil
}

// listenGroup makes a socket for the owner and the group poemq, if there is one
// and we may give it that.
func listenGroup(path string) (net.Listener, error) {
	l, err := listenUnix(path)
	if err != nil {
		return nil, err
	}
	if g, err := user.LookupGroup(control.Group); err == nil {
		gid, err := strconv.Atoi(g.Gid)
		if err == nil {
			err = os.Chown(path, -1, gid)
		}
		if err != nil && !errors.Is(err, os.ErrPermission) {
			return nil, errors.Join(err, l.Close())
		}
	}
	return l, nil
}
