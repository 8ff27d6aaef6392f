package hook

import (
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Server serves the processes of one session. It owns its descriptors.
//
// Calls, and what is posted, have their turns one after the other, on whatever
// thread comes: as a notify.Listener it has none of its own. A goroutine for each
// connection receives.
type Server struct {
	// Linger is how long it stays when no process is left: one that left its
	// parent may come in yet.
	Linger time.Duration
	// Alone, if set, is called in a turn when no process is left.
	Alone func()
	// Idle is asked, when no process is left, whether nothing is left of them;
	// nil for yes. It runs in a turn.
	Idle func() bool

	mu      sync.Mutex // guards posted, running and ended
	posted  []func()
	running bool // somebody runs what is posted, or will: Serve when it begins
	ended   bool

	// fds is held while a descriptor of a connection or process is closed, and
	// read-locked while somebody uses one out of turn.
	fds sync.RWMutex

	readers sync.WaitGroup // the goroutines of connections and processes
	changed chan struct{}  // has an element when Serve shall look whether to end

	turn      sync.Mutex // held by whoever has its turn; guards what follows
	stop      bool
	processes map[int]*process
	alone     time.Time // since when no process is left
	handle    func(*Call)
	guest     func(*Guest)
}

// idleEvery is how often a server without processes asks whether it may end.
const idleEvery = 100 * time.Millisecond

// NewServer makes one. Serve it, or nothing of it is ever freed.
func NewServer() *Server {
	return &Server{processes: make(map[int]*process), running: true, changed: make(chan struct{}, 1), alone: time.Now()}
}

// Post has f run in a turn of its own, soon, in the order of the posts. False: the
// server has ended.
func (s *Server) Post(f func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return false
	}
	s.posted = append(s.posted, f)
	if !s.running {
		s.running = true
		go s.runPosted()
	}
	return true
}

func (s *Server) runPosted() {
	s.turn.Lock()
	defer s.turn.Unlock()
	for {
		s.mu.Lock()
		posted := s.posted
		s.posted = nil
		if len(posted) == 0 {
			s.running = false
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		for _, f := range posted {
			f()
		}
	}
}

// anywhere is Post for an f that may as well run on the calling goroutine: at
// once if nobody has its turn.
func (s *Server) anywhere(f func()) bool {
	if !s.turn.TryLock() {
		return s.Post(f)
	}
	defer s.turn.Unlock()
	s.mu.Lock()
	ended := s.ended
	s.mu.Unlock()
	if !ended {
		f()
	}
	return !ended
}

// Stop ends Serve from any goroutine.
func (s *Server) Stop() {
	s.Post(func() {
		s.stop = true
		s.mayHaveEnded()
	})
}

// Add lets g in, which is the server's from now on. False: the server has ended.
func (s *Server) Add(g *Guest) bool { return s.Post(func() { s.add(g) }) }

// Serve has handle called for each call, in turns, until no process is left or
// Stop. Guests that come over a connection are given to guest. Neither may block.
func (s *Server) Serve(handle func(*Call), guest func(*Guest)) {
	defer s.end()
	s.turn.Lock()
	s.handle, s.guest = handle, guest
	s.turn.Unlock()
	s.runPosted()
	for {
		over, again := s.look()
		if over {
			return
		}
		select {
		case <-s.changed:
		case <-again:
		}
	}
}

// look tells whether Serve is over, or when to look again; nil for not before
// something changes.
func (s *Server) look() (over bool, again <-chan time.Time) {
	s.turn.Lock()
	defer s.turn.Unlock()
	switch {
	case s.stop:
		return true, nil
	case len(s.processes) > 0:
		return false, nil
	case time.Since(s.alone) >= s.Linger && (s.Idle == nil || s.Idle()) && s.mayEnd():
		return true, nil
	}
	return false, time.After(idleEvery)
}

// mayEnd ends the taking of posts unless there are some.
func (s *Server) mayEnd() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = len(s.posted) == 0
	return s.ended
}

func (s *Server) mayHaveEnded() {
	select {
	case s.changed <- struct{}{}:
	default: // it is going to look
	}
}

func (s *Server) add(g *Guest) {
	p := s.processes[int(g.Cred.Pid)]
	if p != nil && p.exited { // its number is another's now
		s.forget(p)
		p = nil
	}
	if p == nil {
		p = newProcess(g)
		s.processes[p.pid] = p
		if p.pidfd >= 0 {
			s.readers.Go(func() { s.awaitExit(p) })
		}
	}
	c := &conn{f: os.NewFile(uintptr(g.end), "connection of the hook library"), fd: g.end, netns: g.netns, p: p}
	err := g.welcome()
	g.end, g.netns = -1, -1
	g.Close()
	p.conns[c] = struct{}{}
	if err != nil {
		s.drop(c)
		return
	}
	s.readers.Go(func() { s.read(c) })
}

// message has its turn with what came on c. answered: it was a call, and has its
// answer, so that the next one may follow soon.
func (s *Server) message(c *conn, in *packet) (answered bool) {
	s.turn.Lock()
	defer s.turn.Unlock()
	fds, sender, err := in.control()
	defer fds.close()
	if c.closed {
		return false
	}
	if err != nil || in.cut() {
		s.drop(c)
		return false
	}
	if IsHello(in.data()) {
		if g, err := newGuest(in.data(), &fds, sender); err == nil {
			s.guest(g)
		}
		return false
	}
	if sender != c.p.pid {
		return false // a child that inherited the connection, and may only say hello on it
	}
	m, err := decode(in.data())
	if err != nil {
		s.drop(c)
		return false
	}
	return s.one(c, m, &fds)
}

func (s *Server) one(c *conn, m *message, fds *files) (answered bool) {
	switch m.kind {
	case kindCall:
		if c.call != nil { // a library of ours never does so
			s.drop(c)
			return false
		}
		c.receipt(-1, errGone) // none came, or it would have been first
		call := newCall(s, c, m)
		call.file, call.netns = fds.take(m.fds&callFile != 0), fds.take(m.fds&callNetNS != 0)
		c.call = call
		s.handle(call)
		call.handled()
		return call.over.Load()
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
	return false
}

// drop ends a connection.
func (s *Server) drop(c *conn) {
	if c.closed {
		return
	}
	s.close1(c)
	s.left(c.p)
}

// exited: whoever still holds the process's connections, a child that inherited
// them, may introduce itself through them. No call of the process is left.
func (s *Server) exited(p *process) {
	p.exited = true
	for c := range p.conns {
		c.leave()
	}
	s.closeProcess(p)
	s.left(p)
}

// close1 closes a connection.
func (s *Server) close1(c *conn) {
	c.leave()
	delete(c.p.conns, c)
	s.fds.Lock()
	defer s.fds.Unlock()
	c.closed = true
	c.f.Close()
	if c.netns >= 0 {
		unix.Close(c.netns)
	}
}

func (s *Server) closeProcess(p *process) {
	s.fds.Lock()
	defer s.fds.Unlock()
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
	for c := range p.conns {
		s.close1(c)
	}
	s.closeProcess(p)
	if s.processes[p.pid] == p {
		delete(s.processes, p.pid)
	}
	if len(s.processes) == 0 {
		s.alone = time.Now()
		s.mayHaveEnded()
		if s.Alone != nil {
			s.Alone()
		}
	}
}

func (s *Server) end() {
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	s.runPosted() // guests among it would wait for ever
	s.turn.Lock()
	for _, p := range s.processes {
		s.forget(p)
	}
	s.turn.Unlock()
	s.readers.Wait()
}
