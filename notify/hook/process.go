package hook

import (
	"errors"
	"os"
	"sync"

	"github.com/poemq/poemq/notify"
	"golang.org/x/sys/unix"
)

// process is one that has introduced itself. It is of the server's turns.
type process struct {
	pid    int      // the kernel's word
	same   bool     // it sees itself under the same number: its thread ids are ours
	pidfd  int      // -1: not to be had, or closed
	f      *os.File // of pidfd, for the poller
	exited bool
	conns  map[*conn]struct{}
	target *notify.Target // nil until it is needed
}

func newProcess(g *Guest) *process {
	p := &process{pid: int(g.Cred.Pid), same: g.PID == int(g.Cred.Pid), pidfd: -1, conns: make(map[*conn]struct{})}
	if fd, err := unix.PidfdOpen(p.pid, unix.PIDFD_NONBLOCK); err == nil {
		p.pidfd, p.f = fd, os.NewFile(uintptr(fd), "pidfd")
	}
	return p
}

var errNoRights = errors.New("the process cannot be looked at")

// look gives the process's files and memory. The kernel grants it by the rules
// of ptrace(2).
func (p *process) look() (*notify.Target, error) {
	if p.target == nil {
		t, err := notify.OpenTarget(p.pid)
		if err != nil {
			return nil, err
		}
		p.target = t
	}
	return p.target, nil
}

func (p *process) close() {
	if p.target != nil {
		p.target.Close()
		p.target = nil
	}
	if p.pidfd >= 0 {
		p.f.Close()
		p.pidfd = -1
	}
}

// conn is one connection of a process. It is of the server's turns, but for f.
type conn struct {
	f      *os.File
	fd     int  // of f
	closed bool // guarded by the server's fds, too

	// receiving is held from before a message is received until it has had its
	// turn: they have it in their order. It is locked before the turn.
	receiving sync.Mutex

	netns int // of the process when it was made, or -1
	p     *process
	call  *Call // that waits for its answer; or nil
	// taken is called with the receipt for the descriptor that was sent last; nil
	// when none is awaited.
	taken func(at int, err error)
	note  any
}

// ready asks the kernel about one descriptor now.
func ready(fd int, events int16) int16 {
	p := []unix.PollFd{{Fd: int32(fd), Events: events}}
	for {
		_, err := unix.Poll(p, 0)
		if err != unix.EINTR {
			return p[0].Revents
		}
	}
}
