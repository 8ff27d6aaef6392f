package addfd

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
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
	timer  *time.Timer // of probe; nil when nothing is probed
	closed bool
}

// Anchor is a name that only we know for one program's socket.
type Anchor struct {
	as     *Anchors
	wd     int32
	path   int    // O_PATH of a second link; -1 when linked is used
	linked string // the name, when it had to stay in the directory
	name   string // by which it is connected to
	bound  string // what the socket was bound to, which may be unlinked
	closed func()

	mu   sync.RWMutex // read-locked while the name is used
	over bool         // path is closed, and its number may be another's; written under mu and as.mu
}

// probeEvery is how often names are probed. Somebody may wait for the port of a
// socket that listened.
const probeEvery = 100 * time.Millisecond

// NewAnchors starts watching; Close ends it.
func NewAnchors(dir *Dir, log *slog.Logger) *Anchors { return newAnchors(dir, openInotify(log)) }

// newAnchors takes inotify over; -1 has the names probed.
func newAnchors(dir *Dir, inotify int) *Anchors {
	as := &Anchors{
		dir: dir, inotify: inotify, done: make(chan struct{}), stopped: make(chan struct{}),
		byWD: make(map[int32]*Anchor), probed: make(map[*Anchor]struct{}),
	}
	if as.inotify >= 0 {
		go as.watch(os.NewFile(uintptr(as.inotify), "inotify"))
	} else {
		close(as.stopped)
	}
	return as
}

// openInotify makes an inotify instance; -1: it or /proc is not to be had.
func openInotify(log *slog.Logger) int {
	const probed = "sockets that listen are looked at ten times a second for their closing"
	if _, err := os.Stat("/proc/self/fd"); err != nil {
		log.Warn(probed, "reason", "no /proc", "error", err)
		return -1
	}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		log.Warn(probed, "reason", "no inotify instance (fs.inotify.max_user_instances)", "error", err)
		return -1
	}
	return fd
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
	a := &Anchor{as: as, path: -1, bound: name, closed: closed}
	if as.inotify >= 0 && a.unlinkWatched(name) == nil {
		as.byWD[a.wd] = a
		return a, nil
	}
	a.linked = name
	a.name = name
	as.probeToo(a)
	return a, nil
}

// Adopt goes on with an anchor that another process held: path is a copy of its
// File, which is taken over. closed is as for Hold. ECONNREFUSED: the program
// has closed its socket.
func (as *Anchors) Adopt(path int, closed func()) (*Anchor, error) {
	a := &Anchor{as: as, path: path, closed: closed, name: "/proc/self/fd/" + strconv.Itoa(path)}
	if !a.Alive() {
		unix.Close(path)
		return nil, unix.ECONNREFUSED
	}
	as.mu.Lock()
	defer as.mu.Unlock()
	if as.inotify >= 0 {
		// The watch is on the inode, which the socket's own name and ours share.
		if wd, err := unix.InotifyAddWatch(as.inotify, a.name, unix.IN_DELETE_SELF); err == nil {
			a.wd = int32(wd)
			as.byWD[a.wd] = a
		}
	}
	// Sockets accepted from it may have its name, and it may have been closed
	// just before it was watched.
	as.probeToo(a)
	return a, nil
}

// File is what another process needs to go on with a: an open file of a's, no
// copy. false: there is none, since the name had to stay in the directory.
func (a *Anchor) File() (fd int, ok bool) { return a.path, a.path >= 0 }

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
	a.name = "/proc/self/fd/" + strconv.Itoa(a.path)
	return unix.Unlink(name)
}

// Connect puts a new connection into the listening socket's queue and returns
// the broker's end, non-blocking and the caller's. EAGAIN: the backlog is full.
// ECONNREFUSED: it does not listen, was shut down, is closed, or released.
func (a *Anchor) Connect() (end int, err error) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if a.over {
		return -1, unix.ECONNREFUSED
	}
	end, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	// unix.Connect writes to the address: each call has its own.
	if err := unix.Connect(end, &unix.SockaddrUnix{Name: a.name}); err != nil {
		unix.Close(end)
		return -1, err
	}
	// Not before: connect would give the end a name then (unix(7), Autobind),
	// which recvfrom would show to the program. Until Connect has returned,
	// nothing may be sent from the other side.
	return end, prepare(end)
}

// Alive reports whether the program still has the socket open. Unlike the
// callback it is true to the moment. A released anchor is not alive.
func (a *Anchor) Alive() bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if a.over {
		return false
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return true
	}
	defer unix.Close(fd)
	// A name with a stream socket behind it is of the wrong type; one with
	// nothing behind it refuses.
	return unix.Connect(fd, &unix.SockaddrUnix{Name: a.name}) == unix.EPROTOTYPE
}

// Release ends the watch; closed is not called any more (a call that has begun
// is not waited for).
func (a *Anchor) Release() {
	a.as.mu.Lock()
	defer a.as.mu.Unlock()
	a.drop()
}

// drop is called with as.mu held. It reports false when that was done.
func (a *Anchor) drop() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.over {
		return false
	}
	a.over = true
	delete(a.as.probed, a)
	if a.linked != "" {
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

// Probe has a closing seen that the file system does not tell: sockets accepted
// from a listening one share its name, and the directory entry behind it lives
// until the last of them is closed. An sshd that is stopped leaves its sessions
// and wants the port again.
func (a *Anchor) Probe() {
	a.as.mu.Lock()
	defer a.as.mu.Unlock()
	if !a.over {
		a.as.probeToo(a)
	}
}

// probeToo is called with the lock held.
func (as *Anchors) probeToo(a *Anchor) {
	as.probed[a] = struct{}{}
	if as.timer == nil && !as.closed {
		as.timer = time.AfterFunc(probeEvery, as.probe)
	}
}

func (as *Anchors) probe() {
	as.mu.Lock()
	defer as.mu.Unlock()
	for a := range as.probed {
		if !a.Alive() {
			a.gone()
		}
	}
	as.timer = nil
	if len(as.probed) > 0 && !as.closed {
		as.timer = time.AfterFunc(probeEvery, as.probe)
	}
}

// Close ends watching. Anchors still held are of no more use.
func (as *Anchors) Close() {
	as.mu.Lock()
	as.closed = true
	if as.timer != nil {
		as.timer.Stop()
	}
	as.mu.Unlock()
	close(as.done)
	<-as.stopped
}

// Path is the name of the socket itself, as PeerName of one that it is connected
// to tells it.
func (a *Anchor) Path() string { return a.bound }

// ConnectFrom puts a program's socket, of which fd is a copy, into the listening
// socket's queue: there is no end of the broker's. It waits for room in the
// backlog if fd is blocking. EISCONN: it is connected already. ECONNREFUSED: as
// Connect.
func (a *Anchor) ConnectFrom(fd int) error {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if a.over {
		return unix.ECONNREFUSED
	}
	return unix.Connect(fd, &unix.SockaddrUnix{Name: a.name})
}

// PeerName is the name of the socket at the other end of fd; "" when it has none.
func PeerName(fd int) string {
	sa, err := unix.Getpeername(fd)
	u, ok := sa.(*unix.SockaddrUnix)
	if err != nil || !ok || !strings.HasPrefix(u.Name, "/") { // no name is "@"
		return ""
	}
	return u.Name
}
