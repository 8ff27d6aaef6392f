package hook

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Server serves the processes of one session. It owns its descriptors.
type Server struct {
	// Linger is how long it stays when no process is left: one that left its
	// parent may come in yet.
	Linger time.Duration
	// Alone, if set, is called when no process is left, on the serving thread.
	Alone func()
	// Idle is asked, when no process is left, whether nothing is left of them;
	// nil for yes. It runs on the serving thread.
	Idle func() bool

	epoll int
	wake  int // eventfd: there is something in posted

	mu     sync.Mutex // guards posted and ended
	posted []func()
	ended  bool
	stop   bool

	// fds is held while a descriptor of a connection or process is closed, and
	// read-locked while another thread uses one.
	fds sync.RWMutex

	// Of the serving thread.
	processes map[int]*process
	byFd      map[int]*conn
	byPidfd   map[int]*process
	guest     func(*Guest)
	buf, oob  []byte
	alone     time.Time // since when no process is left
}

// idleEvery is how often a server without processes asks whether it may end.
const idleEvery = 100 * time.Millisecond

// NewServer makes one. Serve it, or nothing of it is ever freed.
func NewServer() (*Server, error) {
	s := &Server{
		processes: make(map[int]*process), byFd: make(map[int]*conn), byPidfd: make(map[int]*process),
		buf: make([]byte, maxMessage+1), oob: make([]byte, unix.CmsgSpace(4*maxFds)+unix.CmsgSpace(unix.SizeofUcred)), alone: time.Now(),
	}
	var err error
	if s.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	if s.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		unix.Close(s.epoll)
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	if err := s.watch(s.wake); err != nil {
		unix.Close(s.epoll)
		unix.Close(s.wake)
		return nil, err
	}
	return s, nil
}

func (s *Server) watch(fd int) error {
	return unix.EpollCtl(s.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
}

// Post has f run on the serving thread, soon, in the order of the posts. False:
// the server has ended.
func (s *Server) Post(f func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return false
	}
	s.posted = append(s.posted, f)
	if len(s.posted) == 1 {
		one := [8]byte{1}
		unix.Write(s.wake, one[:]) // an eventfd takes 2^64-2 of these
	}
	return true
}

// Stop ends Serve from any goroutine.
func (s *Server) Stop() { s.Post(func() { s.stop = true }) }

// Add lets g in, which is the server's from now on. False: the server has ended.
func (s *Server) Add(g *Guest) bool { return s.Post(func() { s.add(g) }) }

// Serve receives calls and calls handle for each, on this goroutine's own
// thread, until no process is left or Stop. Guests that come over a connection
// are given to guest. Neither may block.
func (s *Server) Serve(handle func(*Call), guest func(*Guest)) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer s.end()
	s.guest = guest
	events := make([]unix.EpollEvent, 32)
	for !s.stop {
		wait := -1
		if len(s.processes) == 0 {
			if time.Since(s.alone) >= s.Linger && (s.Idle == nil || s.Idle()) && s.mayEnd() {
				return nil
			}
			wait = int(idleEvery.Milliseconds())
		}
		n, err := unix.EpollWait(s.epoll, events, wait)
		if err != nil && err != unix.EINTR {
			return fmt.Errorf("epoll_wait: %w", err)
		}
		for _, e := range events[:max(n, 0)] {
			s.event(int(e.Fd), handle)
		}
	}
	return nil
}

// mayEnd ends the taking of posts unless there are some.
func (s *Server) mayEnd() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = len(s.posted) == 0
	return s.ended
}

func (s *Server) event(fd int, handle func(*Call)) {
	if fd == s.wake {
		s.runPosted()
		return
	}
	if p := s.byPidfd[fd]; p != nil {
		s.exited(p)
		return
	}
	if c := s.byFd[fd]; c != nil {
		s.receive(c, handle)
	}
}

func (s *Server) runPosted() {
	var b [8]byte
	unix.Read(s.wake, b[:])
	s.mu.Lock()
	posted := s.posted
	s.posted = nil
	s.mu.Unlock()
	for _, f := range posted {
		f()
	}
}

func (s *Server) add(g *Guest) {
	p := s.processes[int(g.Cred.Pid)]
	if p != nil && p.exited { // its number is another's now
		s.forget(p)
		p = nil
	}
	if p == nil {
		p = &process{pid: int(g.Cred.Pid), same: g.PID == int(g.Cred.Pid), pidfd: -1, conns: make(map[int]*conn)}
		if fd, err := unix.PidfdOpen(p.pid, 0); err == nil && s.watch(fd) == nil {
			p.pidfd = fd
			s.byPidfd[fd] = p
		} else if err == nil {
			unix.Close(fd)
		}
		s.processes[p.pid] = p
	}
	c := &conn{fd: g.end, netns: g.netns, p: p}
	g.end, g.netns = -1, -1
	err := s.watch(c.fd)
	if err == nil {
		g.end = c.fd
		err = g.welcome()
		g.end = -1
	}
	g.Close()
	p.conns[c.fd], s.byFd[c.fd] = c, c
	if err != nil {
		s.drop(c)
	}
}

// receive takes one packet from c.
func (s *Server) receive(c *conn, handle func(*Call)) {
	n, oobn, flags, _, err := unix.Recvmsg(c.fd, s.buf, s.oob, unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
	if err == unix.EAGAIN || err == unix.EINTR {
		return
	}
	fds, sender, ferr := control(s.oob[:max(oobn, 0)])
	if err != nil || n == 0 || ferr != nil || flags&unix.MSG_TRUNC != 0 {
		fds.close()
		s.drop(c)
		return
	}
	defer fds.close()
	if IsHello(s.buf[:n]) {
		if g, err := newGuest(s.buf[:n], &fds, sender); err == nil {
			s.guest(g)
		}
		return
	}
	if sender != c.p.pid {
		return // a child that inherited the connection, and may only say hello on it
	}
	m, err := decode(s.buf[:n])
	if err != nil {
		s.drop(c)
		return
	}
	s.message(c, m, &fds, handle)
}

func (s *Server) message(c *conn, m *message, fds *files, handle func(*Call)) {
	switch m.kind {
	case kindCall:
		if c.call != nil { // a library of ours never does so
			s.drop(c)
			return
		}
		c.receipt(-1, errGone) // none came, or it would have been first
		call := newCall(s, c, m)
		call.file, call.netns = fds.take(m.fds&callFile != 0), fds.take(m.fds&callNetNS != 0)
		c.call = call
		handle(call)
		call.handled()
	case kindCancel:
		if c.call != nil && c.call.id == m.id {
			c.call.cancel()
		}
	case kindTaken:
		if m.nr >= 0 {
			c.receipt(int(m.nr), nil)
		} else {
			c.receipt(-1, unix.Errno(-m.nr))
		}
	}
}

// drop ends a connection.
func (s *Server) drop(c *conn) {
	if s.byFd[c.fd] != c {
		return
	}
	s.close1(c)
	s.left(c.p)
}

// exited: whoever still holds the process's connections, a child that inherited
// them, may introduce itself through them. No call of the process is left.
func (s *Server) exited(p *process) {
	p.exited = true
	for _, c := range p.conns {
		c.leave()
	}
	s.closeProcess(p)
	s.left(p)
}

// close1 closes a connection.
func (s *Server) close1(c *conn) {
	c.leave()
	delete(s.byFd, c.fd)
	delete(c.p.conns, c.fd)
	s.fds.Lock()
	defer s.fds.Unlock()
	unix.Close(c.fd) // and with it its place in epoll, no copy being left
	if c.netns >= 0 {
		unix.Close(c.netns)
	}
}

func (s *Server) closeProcess(p *process) {
	s.fds.Lock()
	defer s.fds.Unlock()
	delete(s.byPidfd, p.pidfd)
	p.close()
}

// left forgets a process that is gone.
func (s *Server) left(p *process) {
	if len(p.conns) > 0 || p.pidfd >= 0 {
		return
	}
	s.forget(p)
}

func (s *Server) forget(p *process) {
	for _, c := range p.conns {
		s.close1(c)
	}
	s.closeProcess(p)
	if s.processes[p.pid] == p {
		delete(s.processes, p.pid)
	}
	if len(s.processes) == 0 {
		s.alone = time.Now()
		if s.Alone != nil {
			s.Alone()
		}
	}
}

func (s *Server) end() {
	s.mu.Lock()
	s.ended = true
	posted := s.posted
	s.posted = nil
	s.mu.Unlock()
	for _, f := range posted { // guests among them would wait for ever
		f()
	}
	for _, p := range s.processes {
		s.forget(p)
	}
	unix.Close(s.wake)
	unix.Close(s.epoll)
}

var errNoRights = errors.New("the process cannot be looked at")
