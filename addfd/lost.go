package addfd

import (
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Lost watches sockets of programs that have neither an end of ours nor a name
// to watch them by: those that came out of a listening socket's queue have that
// socket's name, and bind(2) gives no second one; and those of a program that
// makes and closes so many that a name for each would cost too much.
//
// They are in an epoll set, which does not keep a file open and forgets it with
// its last descriptor (epoll(7), Questions and answers). A socket that lost its
// other end, or never had one, is EPOLLHUP, so who is not reported is closed. As
// long as there are any they are looked at four times a second.
type Lost struct {
	mu      sync.Mutex // guards what follows
	epoll   int        // made at first use; -1 otherwise
	next    int32
	held    map[int32]func()
	running bool
	over    bool
}

// NewLost watches nothing yet. Close it.
func NewLost() *Lost { return &Lost{epoll: -1, held: make(map[int32]func())} }

// Watch calls closed, once and on a goroutine of its own, after the program has
// closed its last descriptor of the socket that fd is a copy of. The result is
// for Forget, and not 0.
func (l *Lost) Watch(fd int, closed func()) (id int32, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return 0, unix.EBADF
	}
	if l.epoll < 0 {
		epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
		if err != nil {
			return 0, fmt.Errorf("epoll_create: %w", err)
		}
		l.epoll = epoll
	}
	for l.next++; l.next == 0 || l.held[l.next] != nil; {
		l.next++
	}
	if err := unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Fd: l.next}); err != nil {
		return 0, fmt.Errorf("epoll_ctl: %w", err)
	}
	l.held[l.next] = closed
	if !l.running {
		l.running = true
		go l.run()
	}
	return l.next, nil
}

// Forget ends the watching of a socket that gets another end. It stays in the
// set, which costs nothing worth mentioning.
func (l *Lost) Forget(id int32) {
	l.mu.Lock()
	delete(l.held, id)
	l.mu.Unlock()
}

// run looks until there is nothing to look at.
func (l *Lost) run() {
	t := time.NewTicker(probeEvery)
	defer t.Stop()
	for range t.C {
		if !l.look() {
			return
		}
	}
}

func (l *Lost) look() (more bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return false
	}
	open := l.hungUp()
	if open == nil {
		return true
	}
	for id, closed := range l.held {
		if _, ok := open[id]; !ok {
			delete(l.held, id)
			go closed()
		}
	}
	l.running = len(l.held) > 0
	return l.running
}

// hungUp lists who is open and without another end; nil when that cannot be
// told. Those forgotten may be among them: the set can be larger than held.
func (l *Lost) hungUp() map[int32]struct{} {
	for room := len(l.held) + 64; ; room *= 2 {
		events := make([]unix.EpollEvent, room)
		n, err := unix.EpollWait(l.epoll, events, 0)
		if err != nil {
			return nil
		}
		if n == room {
			continue
		}
		open := make(map[int32]struct{}, n)
		for _, e := range events[:n] {
			open[e.Fd] = struct{}{}
		}
		return open
	}
}

// Close ends watching.
func (l *Lost) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
	if l.epoll >= 0 {
		unix.Close(l.epoll)
	}
}
