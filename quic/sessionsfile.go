package quic

import (
	"crypto/cipher"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// The file keeps sessions across restarts. It is a magic line, then, encrypted
// with a key derived from the identity key, a JSON list of sessions, the latest
// first. Processes that share the directory each write the whole file: the last
// one wins, and rename(2) keeps it in one piece.
const (
	sessionsName  = "sessions"
	sessionsMagic = "poemq sessions 1\n"
	// sessionsDelay is how long changes are gathered before they are written.
	sessionsDelay = 10 * time.Second
)

type sessionsFile struct {
	path string
	aead cipher.AEAD
	// complained: an error was logged. sessions.mu guards it.
	complained bool
}

func newSessionsFile(id *Identity) (*sessionsFile, error) {
	a, err := id.aead("poemq sessions file")
	if err != nil {
		return nil, err
	}
	return &sessionsFile{path: filepath.Join(id.dir, sessionsName), aead: a}, nil
}

// load reads the file on first use; mu is held. Whatever is wrong with it costs
// nothing but the sessions in it.
func (s *sessions) load() {
	if s.loaded {
		return
	}
	s.loaded = true
	if s.file == nil {
		return
	}
	all, err := s.file.read()
	if err != nil {
		s.complain("kept sessions are not read, handshakes will be full ones", err)
		return
	}
	now := time.Now()
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].fit(now) {
			s.add(all[i])
		}
	}
}

func (f *sessionsFile) read() ([]*session, error) {
	b, err := readPrivate(f.path, "kept sessions", unix.O_NOFOLLOW)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	all, err := decodeSessions(f.aead, b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.path, err)
	}
	return all, nil
}

func encodeSessions(a cipher.AEAD, all []*session) ([]byte, error) {
	b, err := json.Marshal(all)
	if err != nil {
		return nil, err
	}
	return seal(a, []byte(sessionsMagic), b), nil
}

func decodeSessions(a cipher.AEAD, b []byte) ([]*session, error) {
	if len(b) < len(sessionsMagic) || string(b[:len(sessionsMagic)]) != sessionsMagic {
		return nil, errors.New("not a file of sessions, or of another version")
	}
	b, err := open(a, len(sessionsMagic), b)
	if err != nil {
		return nil, fmt.Errorf("damaged, or written with another identity key: %w", err)
	}
	return parseSessions(b)
}

// parseSessions reads what was encrypted.
func parseSessions(b []byte) ([]*session, error) {
	var all []*session
	if err := json.Unmarshal(b, &all); err != nil {
		return nil, err
	}
	if len(all) > maxSessions {
		return nil, fmt.Errorf("%d sessions, at most %d are taken", len(all), maxSessions)
	}
	for i, n := range all {
		if n == nil {
			return nil, fmt.Errorf("session %d is null", i)
		}
	}
	return all, nil
}

// changed has the file written, not at once; mu is held.
func (s *sessions) changed() {
	if s.file == nil || s.closed || s.behind {
		return
	}
	s.behind = true
	if s.timer == nil {
		s.timer = time.AfterFunc(sessionsDelay, s.flush)
	} else {
		s.timer.Reset(sessionsDelay)
	}
}

// flush writes the file if it is behind.
func (s *sessions) flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.behind {
		return
	}
	s.behind = false
	all := make([]*session, 0, s.order.Len())
	for e := s.order.Front(); e != nil; e = e.Next() {
		all = append(all, e.Value.(*session))
	}
	b, err := encodeSessions(s.file.aead, all)
	if err == nil {
		err = replaceFile(s.file.path, b)
	}
	if err != nil {
		s.complain("sessions are not kept across restarts", err)
	}
}

// close writes what is not written yet. Sessions that come later are dropped.
func (s *sessions) close() {
	s.mu.Lock()
	s.closed = true
	stop(s.timer)
	s.mu.Unlock()
	s.flush()
}

// complain logs an error, and no other after it; mu is held.
func (s *sessions) complain(what string, err error) {
	if !s.file.complained {
		s.file.complained = true
		s.log.Warn(what, "err", err)
	}
}

// replaceFile puts b (mode 0600) in the place of path: who reads it, or dies
// meanwhile, has the old one or the new one. It is not forced to the disk: a
// file that a power cut leaves half is known as such.
func replaceFile(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}
