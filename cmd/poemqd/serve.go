package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/poemq/poemq/broker/config"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

func isReadOnly(err error) bool { return errors.Is(err, unix.EROFS) }

func serveCommand(o *options) *cobra.Command {
	var socket, control string
	c := &cobra.Command{
		Use: "serve", Short: "Serve sessions handed over at a socket", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return serve(o, socket, control) },
	}
	c.Flags().StringVar(&socket, "socket", "/run/poemq/broker.sock", "where sessions are handed over (OCI seccomp agent)")
	c.Flags().StringVar(&control, "control", "/run/poemq/control.sock", "where poemqctl asks; empty for nowhere")
	return c
}

func serve(o *options, socket, control string) error {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, unix.SIGHUP)
	c, err := config.Load(o.sources(false))
	if err != nil {
		return err
	}
	log, level := logger(c, slog.LevelInfo, os.Stderr)
	from := takeGiven()
	keeper, err := keeperOf()
	if err != nil {
		return err
	}
	r, err := start(c, log, keeper)
	if err != nil {
		return err
	}
	served, err := fronts(c, r.pki)
	if err != nil {
		return errors.Join(err, r.close())
	}
	door, err := from.door(socket)
	if err != nil {
		return errors.Join(err, r.close())
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	context.AfterFunc(ctx, func() { door.Close() })
	goesOn := r.goOn(from.left, log)
	stopControl := func() {}
	if control != "" {
		d := &drain{broker: r.broker, log: log, door: func() { door.Close() }, end: stop, kept: keeper != nil}
		if stopControl, err = r.serveControl(control, o, level, log, d); err != nil {
			return errors.Join(err, door.Close(), r.close())
		}
	}
	stopMetrics, err := r.serveMetrics(log)
	if err != nil {
		stopControl()
		return errors.Join(err, door.Close(), r.close())
	}
	r.broker.SetFronts(served)
	threads(c, log)
	reloads := make(chan struct{})
	go func() {
		defer close(reloads)
		r.reloadOn(ctx, hup, o, level, log)
	}()
	log.Info("poemqd serves", "version", version, "socket", socket, "control", control, "state-dir", stateDir(c), "configuration", c.Files(), "rules", len(c.Rules), "sessions", goesOn)
	go watchdog(ctx, r.broker)
	tell(daemon.SdNotifyReady, "STATUS=Serving "+socket)
	err = r.broker.ServeSocket(door, members(socket))
	<-ctx.Done() // what is drained ends first
	tell(daemon.SdNotifyStopping)
	stop()
	<-reloads
	stopControl()
	stopMetrics()
	log.Info("poemqd ends")
	return errors.Join(err, r.close())
}

// listenUnix makes a socket that its owner and group can use. One that nobody
// serves any more is replaced.
func listenUnix(path string) (*net.UnixListener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	if c, err := net.Dial("unix", path); err == nil {
		c.Close()
		return nil, fmt.Errorf("listen %s: another broker serves it", path)
	} else if errors.Is(err, unix.ECONNREFUSED) {
		os.Remove(path)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	old := unix.Umask(0o117)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	unix.Umask(old)
	if err == nil {
		// A path that somebody else has taken since would be removed, too. What
		// stays behind is replaced by the next who listens there.
		l.SetUnlinkOnClose(false)
	}
	return l, err
}
