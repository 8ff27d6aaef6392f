package addfd

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Anchors watches sockets of programs that have no end of ours to hang up.
type Anchors struct {
	dir     *Dir
	inotify int // -1: not to be had, names are probed instead
	done    chan struct{}
	stopped chan struct{}

	mu     sync.Mutex // guards what follows
	next   uint64
	byWD   map[int32]*Anchor
	probed map[*Anchor]struct{}
}

// Anchor is a name that only we know for one program's socket.
type Anchor struct {
	as     *Anchors
	wd     int32
	path   int               // O_PATH of a second link; -1 when linked is used
	linked string            // the name, when it had to stay in the directory
	addr   unix.SockaddrUnix // its name only: x/sys writes into what it is given
	closed func()
	over   bool // guarded by as.mu
}

const probeEvery = 250 * time.Millisecond

// NewAnchors starts watching; Close ends it.
func NewAnchors(dir *Dir, log *slog.Logger) *Anchors {
	as := &Anchors{
		dir: dir, done: make(chan struct{}), stopped: make(chan struct{}),
		byWD: make(map[int32]*Anchor), probed: make(map[*Anchor]struct{}),
	}
	as.inotify = -1
	if _, err := os.Stat("/proc/self/fd"); err != nil {
		log.Warn("sockets that listen are looked at four times a second for their closing", "reason", "no /proc", "error", err)
	} else if as.inotify, err = unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK); err != nil {
		as.inotify = -1
		log.Warn("sockets that listen are looked at four times a second for their closing",
			"reason", "no inotify instance (fs.inotify.max_user_instances)", "error", err)
	}
	if as.inotify >= 0 {
		go as.watch(os.NewFile(uintptr(as.inotify), "inotify"))
	} else {
		go as.probe()
	}
	return as
}

// Hold names the program's socket, of which fd is a copy, and calls closed,
// once and on a goroutine of its own, after the program closed its last
// descriptor of it (no matter how many there are by then, and where). EINVAL:
// it has a name already.
func (as *Anchors) Hold(fd int, closed func()) (*Anchor, error) {
	as.mu.Lock()
	defer as.mu.Unlock()
	as.next++
	name := filepath.Join(as.dir.path, strconv.FormatUint(as.next, 36))
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: name}); err != nil {
		return nil, fmt.Errorf("bind %s: %w", name, err)
	}
	a := &Anchor{as: as, path: -1, closed: closed}
	if as.inotify >= 0 && a.unlinkWatched(name) == nil {
		as.byWD[a.wd] = a
		return a, nil
	}
	a.linked = name
	a.addr.Name = name
	as.probed[a] = struct{}{}
	return a, nil
}

// unlinkWatched takes the name away and leaves two things: a watch, which
// tells when the kernel drops the first link's directory entry, that is when
// the socket is closed; and, by a second link, a way to connect to it.
func (a *Anchor) unlinkWatched(name string) (err error) {
	second := name + "+"
	if err := unix.Link(name, second); err != nil {
		return err
	}
	defer unix.Unlink(second)
	if a.path, err = unix.Open(second, unix.O_PATH|unix.O_CLOEXEC, 0); err != nil {
		return err
	}
	wd, err := unix.InotifyAddWatch(a.as.inotify, name, unix.IN_DELETE_SELF)
	if err != nil {
		unix.Close(a.path)
		a.path = -1
		return err
	}
	a.wd = int32(wd)
	a.addr.Name = "/proc/self/fd/" + strconv.Itoa(a.path)
	return unix.Unlink(name)
}

// Connect puts a new connection into the listening socket's queue and returns
// the broker's end, non-blocking and the caller's. EAGAIN: the backlog is full.
// ECONNREFUSED: it does not listen, was shut down, or is closed.
func (a *Anchor) Connect() (end int, err error) {
	end, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	if err := passCred(end); err != nil {
		return -1, err
	}
	if err := unix.Connect(end, &unix.SockaddrUnix{Name: a.addr.Name}); err != nil {
		unix.Close(end)
		return -1, err
	}
	return end, nil
}

// Alive reports whether the program still has the socket open. Unlike the
// callback it is true to the moment.
func (a *Anchor) Alive() bool {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return true
	}
	defer unix.Close(fd)
	// A name with a stream socket behind it is of the wrong type; one with
	// nothing behind it refuses.
	return unix.Connect(fd, &unix.SockaddrUnix{Name: a.addr.Name}) == unix.EPROTOTYPE
}

// Release ends the watch; closed is not called any more (a call that has begun
// is not waited for).
func (a *Anchor) Release() {
	a.as.mu.Lock()
	defer a.as.mu.Unlock()
	a.drop()
}

// drop is called with the lock held. It reports false when that was done.
func (a *Anchor) drop() bool {
	if a.over {
		return false
	}
	a.over = true
	if a.linked != "" {
		delete(a.as.probed, a)
		unix.Unlink(a.linked)
		return true
	}
	if a.as.byWD[a.wd] == a {
		delete(a.as.byWD, a.wd)
		unix.InotifyRmWatch(a.as.inotify, uint32(a.wd))
	}
	unix.Close(a.path)
	return true
}

// gone is called with the lock held, for an anchor whose socket is closed.
func (a *Anchor) gone() {
	if a.drop() {
		go a.closed()
	}
}

func (as *Anchors) watch(f *os.File) {
	defer close(as.stopped)
	go func() {
		<-as.done
		f.Close()
	}()
	buf := make([]byte, 64<<10)
	for {
		n, err := f.Read(buf)
		if err != nil {
			return
		}
		as.mu.Lock()
		for b := buf[:n]; len(b) >= unix.SizeofInotifyEvent; {
			wd := int32(binary.NativeEndian.Uint32(b))
			mask := binary.NativeEndian.Uint32(b[4:])
			if mask&unix.IN_Q_OVERFLOW != 0 {
				as.reapUnseen()
			}
			a := as.byWD[wd]
			if a != nil && mask&unix.IN_DELETE_SELF != 0 {
				delete(as.byWD, wd) // the kernel has dropped the watch
				a.gone()
			}
			b = b[unix.SizeofInotifyEvent+int(binary.NativeEndian.Uint32(b[12:])):]
		}
		as.mu.Unlock()
	}
}

// reapUnseen looks at every anchor: the kernel had too many events to tell. It
// is called with the lock held.
func (as *Anchors) reapUnseen() {
	for _, a := range as.byWD {
		if !a.Alive() {
			a.gone()
		}
	}
}

func (as *Anchors) probe() {
	defer close(as.stopped)
	t := time.NewTicker(probeEvery)
	defer t.Stop()
	for {
		select {
		case <-as.done:
			return
		case <-t.C:
		}
		as.mu.Lock()
		held := make([]*Anchor, 0, len(as.probed))
		for a := range as.probed {
			held = append(held, a)
		}
		as.mu.Unlock()
		for _, a := range held {
			if !a.Alive() {
				as.mu.Lock()
				a.gone()
				as.mu.Unlock()
			}
		}
	}
}

// Close ends watching. Anchors still held are of no more use.
func (as *Anchors) Close() {
	close(as.done)
	<-as.stopped
}
