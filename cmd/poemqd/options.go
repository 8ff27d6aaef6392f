package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/poemq/poemq/broker"
	"github.com/poemq/poemq/quic"
	"github.com/spf13/pflag"
)

// options are what every way of running the broker has.
type options struct {
	stateDir   string
	runtimeDir string
	logLevel   string
}

func (o *options) flags(f *pflag.FlagSet) {
	f.StringVar(&o.stateDir, "state-dir", os.Getenv("POEMQ_STATE_DIR"), "where the key and the peers' pins are kept (env POEMQ_STATE_DIR; default /var/lib/poemq for root, else ~/.local/state/poemq)")
	f.StringVar(&o.runtimeDir, "runtime-dir", os.Getenv("POEMQ_RUNTIME_DIR"), "where names of sockets are kept (env POEMQ_RUNTIME_DIR; default the first writable of XDG_RUNTIME_DIR, /run, /dev/shm, TMPDIR, /tmp)")
	f.StringVar(&o.logLevel, "log-level", os.Getenv("POEMQ_LOG"), "debug, info, warn or error (env POEMQ_LOG; default info, private: warn)")
}

// logger writes to stderr, where systemd and container engines look.
func (o *options) logger(unset slog.Level, w io.Writer) (*slog.Logger, error) {
	level := unset
	if o.logLevel != "" {
		if err := level.UnmarshalText([]byte(o.logLevel)); err != nil {
			return nil, fmt.Errorf("log level %q is none of debug, info, warn, error", o.logLevel)
		}
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level})), nil
}

// state is the state directory, or empty when there can be none.
func (o *options) state() string {
	switch home, xdg := os.Getenv("HOME"), os.Getenv("XDG_STATE_HOME"); {
	case o.stateDir != "":
		return o.stateDir
	case os.Geteuid() == 0:
		return "/var/lib/poemq"
	case xdg != "":
		return filepath.Join(xdg, "poemq")
	case home != "":
		return filepath.Join(home, ".local", "state", "poemq")
	}
	return ""
}

// identity loads the key. A directory that was asked for must work; the
// default one may be missing, then the key lives in memory.
func (o *options) identity(log *slog.Logger) (*quic.Identity, error) {
	dir := o.state()
	id, err := quic.LoadIdentity(dir)
	if err == nil || o.stateDir != "" || !notWritable(err) {
		return id, err
	}
	log.Info("the key and the peers' pins live in memory only", "state-dir", dir, "reason", err)
	return quic.LoadIdentity("")
}

func notWritable(err error) bool {
	return errors.Is(err, os.ErrPermission) || errors.Is(err, os.ErrNotExist) || isReadOnly(err)
}

// running is a broker with what it stands on.
type running struct {
	broker *broker.Broker
	host   *quic.Host
	keys   io.Closer
}

func (o *options) start(log *slog.Logger) (*running, error) {
	id, err := o.identity(log)
	if err != nil {
		return nil, err
	}
	r := &running{}
	c := quic.Config{Identity: id, Log: log}
	if path := os.Getenv("SSLKEYLOGFILE"); path != "" {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		if err != nil {
			return nil, fmt.Errorf("SSLKEYLOGFILE: %w", err)
		}
		log.Warn("the secrets of every connection are written down (SSLKEYLOGFILE)", "file", path)
		c.KeyLog, r.keys = f, f
	}
	if r.host, err = quic.NewHost(c); err != nil {
		return nil, err
	}
	r.broker, err = broker.New(broker.Config{Host: r.host, Log: log, RuntimeDirs: o.runtimeDirs()})
	if err != nil {
		return nil, errors.Join(err, r.host.Close())
	}
	return r, nil
}

func (o *options) runtimeDirs() []string {
	if o.runtimeDir != "" {
		return []string{o.runtimeDir}
	}
	return []string{os.Getenv("XDG_RUNTIME_DIR"), "/run", "/dev/shm", os.Getenv("TMPDIR"), "/tmp", "/"}
}

func (r *running) close() error {
	err := errors.Join(r.broker.Close(), r.host.Close())
	if r.keys != nil {
		err = errors.Join(err, r.keys.Close())
	}
	return err
}
