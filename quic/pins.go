package quic

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// pinsFile has one line a peer: "IP:PORT sha256:BASE64 DATE", or, for a peer in
// a network namespace that has a name, "IP:PORT@NAME …". Empty lines and lines
// that begin with # are skipped.
const pinsFile = "known_peers"

// pins remembers the key each peer showed first, as ssh's known_hosts does.
// With a path it follows the file: other processes append to it, people edit
// it.
type pins struct {
	path string // "" keeps pins in memory

	mu    sync.Mutex // guards what follows, and orders appends of this process
	known map[Place][]pin
	seen  fileState // of the file when known was read
	// memory are pins of this process that could not be written.
	memory map[Place]pin
}

// Place is where a peer is, as pins know it: the same address leads elsewhere in
// another network namespace.
type Place struct {
	Peer netip.AddrPort // UDP
	NS   string         // the name of the network namespace; "" for all that have none
}

func (p Place) String() string {
	if p.NS == "" {
		return p.Peer.String()
	}
	return p.Peer.String() + "@" + p.NS
}

// ParsePlace reads "IP:PORT" or "IP:PORT@NAMESPACE".
func ParsePlace(s string) (p Place, err error) {
	addr, ns, named := strings.Cut(s, "@")
	if named && ns == "" {
		return Place{}, errors.New("an empty name")
	}
	p.NS = ns
	p.Peer, err = netip.ParseAddrPort(addr)
	p.Peer = netip.AddrPortFrom(p.Peer.Addr().Unmap(), p.Peer.Port())
	return p, err
}

type pin struct {
	key  string
	line int    // in the file, from 1; 0 in memory
	date string // as the file has it
}

type fileState struct {
	ino  uint64
	size int64
	mod  time.Time
}

// pinError says which line to remove. It is an ErrIdentity.
type pinError struct {
	peer         Place
	shown, known string
	path         string
	line         int
}

func (e *pinError) Error() string {
	where := "in the memory of this process"
	if e.line > 0 {
		where = fmt.Sprintf("line %d of %s; if the peer's key was changed on purpose, remove that line", e.line, e.path)
	}
	return fmt.Sprintf("peer identity does not match its pin: %v shows %s, pinned is %s (%s)", e.peer, e.shown, e.known, where)
}

func (e *pinError) Unwrap() error { return ErrIdentity }

func newPins(dir string) *pins {
	p := &pins{known: map[Place][]pin{}, memory: map[Place]pin{}}
	if dir != "" {
		p.path = filepath.Join(dir, pinsFile)
	}
	return p
}

// check compares the key a peer shows with its pin: nil when equal or when
// there is none, a *pinError when another is pinned, else an error of reading
// the file (nothing passes unverified).
func (p *pins) check(peer Place, key string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, err := p.find(peer, key)
	return err
}

// has reports that the peer's pin is there and is key.
func (p *pins) has(peer Place, key string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	known, err := p.find(peer, key)
	return known && err == nil
}

// confirm is called once the peer has proved that it has the key: it pins it
// if the peer has no pin yet. Another process may have pinned one meanwhile,
// so it checks again under the file's lock. warning tells why a pin lives in
// memory only.
func (p *pins) confirm(peer Place, key string) (first bool, warning, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if known, err := p.find(peer, key); known || err != nil {
		return false, nil, err
	}
	if p.path == "" {
		p.memory[peer] = pin{key: key}
		return true, nil, nil
	}
	f, err := openPins(p.path)
	if errors.Is(err, errLock) {
		return false, nil, err
	}
	if err != nil {
		p.memory[peer] = pin{key: key}
		return true, fmt.Errorf("%s cannot be written, the key of %v is pinned in memory only: %w", p.path, peer, err), nil
	}
	defer f.Close() // releases the lock
	if known, err := p.find(peer, key); known || err != nil {
		return false, nil, err
	}
	line := pinLine(peer, key, time.Now())
	if !endsLine(f) {
		line = "\n" + line
	}
	if _, err := f.WriteString(line); err != nil {
		p.memory[peer] = pin{key: key}
		return true, fmt.Errorf("%s cannot be written, the key of %v is pinned in memory only: %w", p.path, peer, err), nil
	}
	return true, nil, nil
}

func flock(f *os.File) error {
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// endsLine tells whether an editor left the file without a last newline.
func endsLine(f *os.File) bool {
	st, err := f.Stat()
	if err != nil || st.Size() == 0 {
		return true
	}
	var b [1]byte
	_, err = f.ReadAt(b[:], st.Size()-1)
	return err != nil || b[0] == '\n'
}

// find looks key up among the peer's pins. Several lines for one peer are
// alternatives. mu is held.
func (p *pins) find(peer Place, key string) (known bool, err error) {
	if err := p.refresh(); err != nil {
		return false, err
	}
	all := p.known[peer]
	if m, ok := p.memory[peer]; ok && len(all) == 0 {
		all = []pin{m}
	}
	for _, k := range all {
		if k.key == key {
			return true, nil
		}
	}
	if len(all) == 0 {
		return false, nil
	}
	return false, &pinError{peer: peer, shown: key, known: all[0].key, path: p.path, line: all[0].line}
}

// refresh reads the file again if it changed. mu is held.
func (p *pins) refresh() error {
	if p.path == "" {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Stat(p.path, &st); errors.Is(err, fs.ErrNotExist) {
		p.known, p.seen = map[Place][]pin{}, fileState{}
		return nil
	} else if err != nil {
		return fmt.Errorf("%s: %w", p.path, err)
	}
	now := fileState{st.Ino, st.Size, time.Unix(st.Mtim.Unix())}
	if now == p.seen {
		return nil
	}
	b, err := os.ReadFile(p.path)
	if err != nil {
		return err
	}
	known, err := parsePins(b)
	if err != nil {
		return fmt.Errorf("%s: %w", p.path, err)
	}
	p.known, p.seen = known, now
	return nil
}

func parsePins(b []byte) (map[Place][]pin, error) {
	known := map[Place][]pin{}
	sc := bufio.NewScanner(bytes.NewReader(b))
	for n := 1; sc.Scan(); n++ {
		f := strings.Fields(sc.Text())
		if len(f) == 0 || strings.HasPrefix(f[0], "#") {
			continue
		}
		peer, err := ParsePlace(f[0])
		if err != nil || len(f) < 2 || !strings.HasPrefix(f[1], "sha256:") {
			return nil, fmt.Errorf("line %d: want \"IP:PORT sha256:BASE64 DATE\", with @NAMESPACE after PORT if it has a name", n)
		}
		k := pin{key: f[1], line: n}
		if len(f) > 2 {
			k.date = f[2]
		}
		known[peer] = append(known[peer], k)
	}
	return known, sc.Err()
}
