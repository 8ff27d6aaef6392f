package quic

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Pin is a peer's key as it is remembered.
type Pin struct {
	Peer Place
	Key  string // "sha256:BASE64"
	Date string // when it was first seen, as the file has it; may be empty
	File string // that holds it; "" is this process's memory
	Line int    // in File, from 1
}

// Pins lists the keys that peers are held to, by address. Errors are of reading
// the file.
func (h *Host) Pins() ([]Pin, error) { return h.id.pins.list() }

// SetPin has peer held to key alone from now on, whatever was pinned before.
// Connections that are open stay. Errors: a key that is none; of writing.
func (h *Host) SetPin(peer Place, key string) error {
	return h.id.pins.set(peer, key)
}

// Unpin forgets the keys of peer, so that the next connection pins the one that
// is shown then. It tells how many there were. Errors are of writing.
func (h *Host) Unpin(peer Place) (int, error) { return h.id.pins.forget(peer) }

func (p *pins) list() ([]Pin, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.refresh(); err != nil {
		return nil, err
	}
	var all []Pin
	for peer, keys := range p.known {
		for _, k := range keys {
			all = append(all, Pin{Peer: peer, Key: k.key, Date: k.date, File: p.path, Line: k.line})
		}
	}
	for peer, k := range p.memory {
		if len(p.known[peer]) == 0 { // see find
			all = append(all, Pin{Peer: peer, Key: k.key})
		}
	}
	slices.SortFunc(all, func(a, b Pin) int {
		if c := cmp.Or(a.Peer.Peer.Compare(b.Peer.Peer), strings.Compare(a.Peer.NS, b.Peer.NS)); c != 0 {
			return c
		}
		return a.Line - b.Line
	})
	return all, nil
}

func (p *pins) set(peer Place, key string) error {
	if sum, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(key, keyPrefix)); err != nil || len(sum) != sha256.Size || !strings.HasPrefix(key, keyPrefix) {
		return fmt.Errorf("%q is no key: want sha256: and 44 characters of base64", key)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.memory, peer)
	if p.path == "" {
		p.memory[peer] = pin{key: key}
		return nil
	}
	_, err := p.rewrite(peer, pinLine(peer, key, time.Now()))
	return err
}

func (p *pins) forget(peer Place) (n int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.path != "" {
		if n, err = p.rewrite(peer, ""); err != nil {
			return n, err
		}
	}
	if _, ok := p.memory[peer]; ok {
		delete(p.memory, peer)
		n = max(n, 1)
	}
	return n, nil
}

func pinLine(peer Place, key string, now time.Time) string {
	return fmt.Sprintf("%v %s %s\n", peer, key, now.UTC().Format(time.DateOnly))
}

// openPins opens the file for appending and locks it. Whoever rewrites it puts
// another in its place, so it looks whether it still is the one there.
func openPins(path string) (*os.File, error) {
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, err
		}
		if err := flock(f); err != nil {
			f.Close()
			return nil, errors.Join(errLock, fmt.Errorf("lock %s: %w", path, err))
		}
		mine, err1 := f.Stat()
		there, err2 := os.Lstat(path)
		if err1 == nil && err2 == nil && os.SameFile(mine, there) {
			return f, nil
		}
		f.Close()
		if err := errors.Join(err1, err2); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
}

// errLock: the file can be written, but not by one process at a time.
var errLock = errors.New("the file cannot be locked")

// rewrite takes the lines of peer out and puts line at the end, if there is one.
// What else is in the file stays as it is, comments too. mu is held.
func (p *pins) rewrite(peer Place, line string) (gone int, err error) {
	f, err := openPins(p.path)
	if err != nil {
		return 0, err
	}
	defer f.Close() // releases the lock
	old, err := os.ReadFile(p.path)
	if err != nil {
		return 0, err
	}
	var b bytes.Buffer
	for l := range bytes.Lines(old) {
		if of, err := ParsePlace(firstField(string(l))); err == nil && of == peer {
			gone++
			continue
		}
		b.Write(l)
	}
	if gone == 0 && line == "" {
		return 0, nil
	}
	if n := b.Len(); n > 0 && b.Bytes()[n-1] != '\n' {
		b.WriteByte('\n')
	}
	b.WriteString(line)
	return gone, putInPlace(p.path, f, b.Bytes())
}

func firstField(line string) string {
	if f := strings.Fields(line); len(f) > 0 {
		return f[0]
	}
	return ""
}

// putInPlace puts a file with data in the place of path, which old is: all of
// it or nothing, with the same owner and mode.
func putInPlace(path string, old *os.File, data []byte) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(old.Fd()), &st); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) // not there any more when all went well
	_, err = tmp.Write(data)
	if err == nil {
		err = tmp.Chmod(fs.FileMode(st.Mode & 0o777))
	}
	if err == nil && (int(st.Uid) != os.Geteuid() || int(st.Gid) != os.Getegid()) {
		err = tmp.Chown(int(st.Uid), int(st.Gid))
	}
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}
