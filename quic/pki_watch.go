package quic

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// settleTime is how long files are left alone after a change: a
	// certificate and its key are seldom renamed at the same instant.
	settleTime = 200 * time.Millisecond
	// watchAnyway is how often files are read without being told: not every
	// file system tells, and certificates expire by themselves.
	watchAnyway = 10 * time.Minute
)

// Watch reloads when the files change, until ctx ends; then it returns nil. It
// watches directories, since files are renamed into place and Kubernetes swaps
// a symbolic link above them. A reload that fails is logged once for each new
// reason, and tried again at the next change. Errors: the kernel gives no
// watch.
func (p *PKI) Watch(ctx context.Context, log *slog.Logger) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch certificates: %w", err)
	}
	defer w.Close()
	if err := p.watchDirs(w); err != nil {
		return fmt.Errorf("watch certificates: %w", err)
	}
	said := ""
	try := func(always bool) {
		err := p.reload(always)
		if err == nil {
			said = ""
		} else if err.Error() != said {
			said = err.Error()
			log.Error("certificates", "err", err)
		}
		if err := p.watchDirs(w); err != nil { // links may lead elsewhere now
			log.Debug("watch certificates", "err", err)
		}
	}
	try(false) // for what came after they were read and before the watch
	anyway := time.NewTicker(watchAnyway)
	defer anyway.Stop()
	var settled <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-w.Events:
			if settled == nil {
				settled = time.After(settleTime)
			}
		case err := <-w.Errors:
			log.Warn("watch certificates", "err", err)
			if settled == nil {
				settled = time.After(settleTime)
			}
		case <-settled:
			settled = nil
			try(false)
		case <-anyway.C:
			try(true)
		}
	}
}

// watchDirs watches the directories of the files and of what they link to.
// Adding one again changes nothing.
func (p *PKI) watchDirs(w *fsnotify.Watcher) error {
	var failed error
	for _, path := range append([]string{p.files.Cert, p.files.Key, p.files.CA}, p.files.CRL...) {
		failed = errors.Join(failed, w.Add(filepath.Dir(path)))
		target, err := filepath.EvalSymlinks(path)
		if err == nil {
			err = w.Add(filepath.Dir(target))
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // it may be between two renames
			failed = errors.Join(failed, err)
		}
	}
	return failed
}
