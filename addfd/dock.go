package addfd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Dir is a directory of our own for the names of sockets: mode 0700, so that
// nobody else can connect to them. Remove it with Close. What a broker that was
// killed left behind is removed by the next OpenDir beside it.
type Dir struct {
	path string
	lock int // flock'ed for as long as the directory is in use
}

const dirPrefix = "poemq-"

// OpenDir makes the directory in the first of parents that can be written.
func OpenDir(parents ...string) (*Dir, error) {
	var errs []error
	for _, p := range parents {
		if p == "" {
			continue
		}
		path, err := os.MkdirTemp(p, dirPrefix)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		lock, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err == nil {
			err = unix.Flock(lock, unix.LOCK_EX|unix.LOCK_NB)
		}
		if err != nil {
			os.Remove(path)
			errs = append(errs, fmt.Errorf("lock %s: %w", path, err))
			continue
		}
		sweep(p, path)
		return &Dir{path: path, lock: lock}, nil
	}
	return nil, fmt.Errorf("no directory for sockets can be made (give one with --runtime-dir): %w", errors.Join(errs...))
}

// sweep removes directories like ours that nobody holds a lock on.
func sweep(parent, own string) {
	dirs, _ := filepath.Glob(filepath.Join(parent, dirPrefix+"*"))
	for _, d := range dirs {
		if d == own || !strings.HasPrefix(filepath.Base(d), dirPrefix) {
			continue
		}
		st, err := os.Lstat(d)
		if err != nil || st.Mode() != fs.ModeDir|0o700 {
			continue
		}
		fd, err := unix.Open(d, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			continue
		}
		var us unix.Stat_t
		if unix.Fstat(fd, &us) == nil && int(us.Uid) == os.Geteuid() && unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) == nil {
			removeSockets(d)
		}
		unix.Close(fd)
	}
}

// removeSockets removes a directory that holds nothing but sockets.
func removeSockets(dir string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if e.Type() == fs.ModeSocket {
			os.Remove(filepath.Join(dir, e.Name()))
		}
	}
	os.Remove(dir)
}

// Close removes the directory and what is in it.
func (d *Dir) Close() error {
	removeSockets(d.path)
	return unix.Close(d.lock)
}

// Dock connects sockets of programs to ends of the broker's.
type Dock struct {
	mu    sync.Mutex // one connect and its accept at a time; guards stale
	fd    int        // listening, non-blocking
	addr  unix.SockaddrUnix
	stale bool // the queue holds a connection whose accept failed
}

// NewDock listens in dir. Close it before dir.
func NewDock(dir *Dir) (*Dock, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("socket(AF_UNIX): %w", err)
	}
	d := &Dock{fd: fd, addr: unix.SockaddrUnix{Name: filepath.Join(dir.path, "dock")}}
	if err := unix.Bind(fd, &d.addr); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("bind %s: %w", d.addr.Name, err)
	}
	// Where accepted sockets inherit it, the sender of a first byte is known
	// even if it comes before Attach returns.
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1)
	if err := unix.Listen(fd, 4); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("listen %s: %w", d.addr.Name, err)
	}
	return d, nil
}

// Attach makes the program's socket, of which fd is a copy, and the returned
// end a connected pair. The end is non-blocking and the caller's. EISCONN: it
// has an end already. EINVAL: it listens.
func (d *Dock) Attach(fd int) (end int, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.empty(); err != nil {
		return -1, err
	}
	// The queue is empty, so this cannot block.
	if err := unix.Connect(fd, &d.addr); err != nil {
		return -1, err
	}
	end, _, err = unix.Accept4(d.fd, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
	if err != nil {
		d.stale = true
		return -1, fmt.Errorf("accept at the dock: %w", err)
	}
	return end, prepare(end)
}

// empty drops what a failed accept (EMFILE) left in the queue, or the next
// program would be given it. d.mu is held.
func (d *Dock) empty() error {
	for d.stale {
		end, _, err := unix.Accept4(d.fd, unix.SOCK_CLOEXEC)
		switch err {
		case nil:
			unix.Close(end)
		case unix.EAGAIN:
			d.stale = false
		default:
			return fmt.Errorf("accept at the dock: %w", err)
		}
	}
	return nil
}

// prepare makes end tell whose the bytes are, and closes it when that fails.
// Urgent bytes are read in their place as all others: RFC 6093, section 6, has
// applications ask for that, and it is what a network makes of them that clears
// URG.
func prepare(end int) error {
	if err := unix.SetsockoptInt(end, unix.SOL_SOCKET, unix.SO_PASSCRED, 1); err != nil {
		unix.Close(end)
		return fmt.Errorf("SO_PASSCRED: %w", err)
	}
	unix.SetsockoptInt(end, unix.SOL_SOCKET, unix.SO_OOBINLINE, 1)
	return nil
}

// Close stops listening; attached ends live on.
func (d *Dock) Close() error { return unix.Close(d.fd) }
