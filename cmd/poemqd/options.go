package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"github.com/poemq/poemq/broker"
	"github.com/poemq/poemq/broker/config"
	"github.com/poemq/poemq/broker/journal"
	"github.com/poemq/poemq/broker/policy"
	"github.com/poemq/poemq/quic"
	"github.com/spf13/pflag"
)

// options are the flags that every way of running the broker has.
type options struct {
	config     string
	stateDir   string
	runtimeDir string
	logLevel   string
}

func (o *options) flags(f *pflag.FlagSet) {
	f.StringVar(&o.config, "config", os.Getenv("POEMQ_CONFIG"), "the configuration `FILE`, with FILE less .toml and with .d for drop-ins (env POEMQ_CONFIG; default "+config.SystemFile+")")
	f.StringVar(&o.stateDir, "state-dir", "", "where the key and the peers' pins are kept (env POEMQ_STATE_DIR; default /var/lib/poemq for root, else ~/.local/state/poemq)")
	f.StringVar(&o.runtimeDir, "runtime-dir", "", "where names of sockets are kept (env POEMQ_RUNTIME_DIR; default the first writable of XDG_RUNTIME_DIR, /run, /dev/shm, TMPDIR, /tmp)")
	f.StringVar(&o.logLevel, "log-level", "", "debug, info, warn or error (env POEMQ_LOG; default info, private: warn)")
}

// shipped is the file of defaults; the build may stamp in another place
// (-ldflags -X).
var shipped = config.ShippedFile

// sources are where the configuration is read. For a user's own broker, the
// user's file stands in place of the system's.
func (o *options) sources(ofUser bool) config.Sources {
	s := config.Sources{Shipped: shipped, File: config.SystemFile, Lenient: ofUser, Environ: os.Environ()}
	if o.config != "" {
		s.File, s.Required = o.config, true
	} else if ofUser {
		if file := config.UserFile(os.Getenv); file != "" {
			s.File = file
		}
	}
	for _, f := range []config.Flag{
		{Name: "--state-dir", Key: "state.dir", Text: o.stateDir},
		{Name: "--runtime-dir", Key: "runtime.dir", Text: o.runtimeDir},
		{Name: "--log-level", Key: "log.level", Text: o.logLevel},
	} {
		if f.Text != "" {
			s.Flags = append(s.Flags, f)
		}
	}
	return s
}

// ordinaryUser reports that this is nobody's system broker.
func ordinaryUser() bool { return os.Geteuid() != 0 }

// logger writes to stderr, where systemd and container engines look; w leads there. unset is
// the level when nobody has set one.
func logger(c *config.Config, unset slog.Level, w io.Writer) (*slog.Logger, *slog.LevelVar) {
	level := new(slog.LevelVar)
	level.Set(c.Log.Level)
	if c.Origin("log.level").Built() {
		level.Set(unset)
	}
	return slog.New(journal.New(w, level, journal.IsJournal(os.Stderr, os.Getenv("JOURNAL_STREAM")))), level
}

// stateDir is the state directory, or empty when there can be none.
func stateDir(c *config.Config) string {
	switch home, xdg := os.Getenv("HOME"), os.Getenv("XDG_STATE_HOME"); {
	case c.State.Dir != "":
		return c.State.Dir
	case os.Geteuid() == 0:
		return "/var/lib/poemq"
	case xdg != "":
		return filepath.Join(xdg, "poemq")
	case home != "":
		return filepath.Join(home, ".local", "state", "poemq")
	}
	return ""
}

// qlogUnset is where traces go that poemqctl turns on.
func qlogUnset(c *config.Config) string {
	if dir := stateDir(c); dir != "" {
		return filepath.Join(dir, "qlog")
	}
	return ""
}

// identity loads the key. A directory that was asked for must work; the
// default one may be missing, then the key lives in memory.
func identity(c *config.Config, log *slog.Logger) (*quic.Identity, error) {
	dir := stateDir(c)
	id, err := quic.LoadIdentity(dir)
	if err == nil || c.State.Dir != "" || !notWritable(err) {
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
	pki    *quic.PKI          // nil: peers are pinned
	unlook context.CancelFunc // ends looking for changes of the PKI's files
	config *config.Config     // that it was started with

	reloading sync.Mutex // one at a time
}

// start makes a broker; keeper may be nil.
func start(c *config.Config, log *slog.Logger, keeper broker.Keeper) (*running, error) {
	id, err := identity(c, log)
	if err != nil {
		return nil, err
	}
	r := &running{config: c, unlook: func() {}}
	pki, allow, err := fleet(c)
	if err != nil {
		return nil, err
	}
	r.pki = pki
	q := quic.Config{
		Identity: id, Log: log, PKI: pki, Authorize: allow.Authorize,
		MaxIdle: c.Wire.MaxIdle, KeepAlive: c.Wire.KeepAlive, HandshakeTimeout: c.Wire.HandshakeTimeout,
		UDPPort: uint16(c.Wire.UDPPort), PoolIdle: c.Pool.Idle, MaxConnections: c.Pool.MaxConnections, NoFastOpen: !c.Pool.FastOpen,
		NoResumption: !c.Wire.Resumption, QlogDir: c.Qlog.Dir, QlogUnset: qlogUnset(c), QlogMaxFiles: c.Qlog.MaxFiles, QlogMaxBytes: c.Qlog.MaxBytes,
		NoMigration: !c.Wire.Migration, Limits: quic.Limits(c.Limits),
	}
	if path := os.Getenv("SSLKEYLOGFILE"); path != "" {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		if err != nil {
			return nil, fmt.Errorf("SSLKEYLOGFILE: %w", err)
		}
		log.Warn("the secrets of every connection are written down (SSLKEYLOGFILE)", "file", path)
		q.KeyLog, r.keys = f, f
	}
	if r.host, err = quic.NewHost(q); err != nil {
		return nil, err
	}
	r.broker, err = broker.New(broker.Config{
		Host: r.host, Log: log, RuntimeDirs: runtimeDirs(c), Policy: rules(c), Fallback: broker.Fallback(c.Fallback),
		UDPPort: uint16(c.Wire.UDPPort), Guarded: allow.Names, Direct: c.Wire.Direct, Keeper: keeper,
	})
	if err != nil {
		return nil, errors.Join(err, r.host.Close())
	}
	if pki != nil {
		var ctx context.Context
		ctx, r.unlook = context.WithCancel(context.Background())
		go pki.Watch(ctx, log)
	}
	return r, nil
}

// threads is about speed only. Whoever starts a child does so before.
func threads(c *config.Config, log *slog.Logger) {
	if err := broker.Threads(c.Wire.BusyPoll); err != nil {
		log.Info("threads run as those of any program; carrying bytes takes more time", "error", err)
	}
}

// fleet is what the configuration says of certificates, and whom they let in.
// Without certificates pki is nil.
func fleet(c *config.Config) (pki *quic.PKI, allow quic.AllowList, err error) {
	for _, a := range c.Allows {
		one := quic.Allow{Peers: a.Peers}
		for _, p := range a.Ports {
			one.Ports = append(one.Ports, quic.PortRange(p))
		}
		allow = append(allow, one)
	}
	if err := allow.Validate(); err != nil {
		return nil, nil, err
	}
	t := c.TLS
	if t.Cert == "" && t.Key == "" && t.CA == "" && len(t.CRL) == 0 {
		if len(allow) > 0 {
			return nil, nil, fmt.Errorf("%s: [[allow]] needs [tls] cert, key and ca: a peer without a certificate has no name", c.Allows[0].Where)
		}
		return nil, nil, nil
	}
	pki, err = quic.LoadPKI(quic.PKIFiles{Cert: t.Cert, Key: t.Key, CA: t.CA, CRL: t.CRL})
	return pki, allow, err
}

func rules(c *config.Config) *policy.Policy { return policy.New(c.Policy.Default, c.Rules) }

func runtimeDirs(c *config.Config) []string {
	if c.Runtime.Dir != "" {
		return []string{c.Runtime.Dir}
	}
	return []string{os.Getenv("XDG_RUNTIME_DIR"), "/run", "/dev/shm", os.Getenv("TMPDIR"), "/tmp", "/"}
}

func (r *running) close() error {
	r.unlook()
	err := errors.Join(r.broker.Close(), r.host.Close())
	if r.keys != nil {
		err = errors.Join(err, r.keys.Close())
	}
	return err
}
