package broker

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/poemq/poemq/broker/policy"
	"github.com/poemq/poemq/notify/hook"
)

// hooked is the source of the processes that the hook library introduced with
// one session id: a process tree, as under a filter.
type hooked struct {
	*hook.Server
	id hook.SessionID
	// door lets in the processes of this session alone; nil for a session at the
	// broker's own front door.
	door *net.UnixListener
}

// lingerHooked is how long the session of a private broker outlives its last
// process: a daemon that has closed our connections, and whose parent is gone,
// is heard of only when it opens a socket.
const lingerHooked = 2 * time.Second

func (h *hooked) serve(s *Session) error {
	h.Serve(func(c *hook.Call) {
		s.again = false
		s.handle(c)
	}, func(g *hook.Guest) { s.b.letIn(g, g.Cred.Uid) })
	s.b.mu.Lock()
	if s.b.hooked[h.id] == s {
		delete(s.b.hooked, h.id)
	}
	s.b.mu.Unlock()
	if h.door != nil {
		h.closeDoor()
	}
	return nil
}

// closeDoor removes the door with its directory, which the launcher made for it
// alone.
func (h *hooked) closeDoor() {
	path := h.door.Addr().String()
	h.door.Close()
	if dir := filepath.Dir(path); strings.HasPrefix(filepath.Base(dir), "poemq-door-") {
		_ = os.Remove(path)
		_ = os.Remove(dir)
	}
}

// admitHooked lets in a process that says hello on c.
func (b *Broker) admitHooked(c *net.UnixConn, p Peer, allow func(Peer) error) error {
	g, err := hook.Receive(c, int(p.PID))
	if err == nil && allow != nil {
		if err = allow(p); err != nil {
			g.Refuse(err)
		}
	}
	if err == nil {
		err = b.letIn(g, p.UID)
	}
	if err != nil {
		b.log.Warn("hello refused", "error", err, "pid", p.PID, "uid", p.UID)
	}
	return err
}

// letIn gives g to the session it names, or begins that.
func (b *Broker) letIn(g *hook.Guest, uid uint32) error {
	b.hookedMu.Lock()
	defer b.hookedMu.Unlock()
	b.mu.Lock()
	s := b.hooked[g.Session]
	b.mu.Unlock()
	if s != nil && s.source.(*hooked).Add(g) {
		return nil
	}
	s, err := b.newHooked(g, uid)
	if err != nil {
		g.Refuse(err)
		return err
	}
	s.pid.Store(g.Cred.Pid)
	h := s.source.(*hooked)
	h.Add(g)
	if h.door != nil {
		b.wg.Go(func() { _ = b.serveDoor(h) }) // ends with the session
	}
	b.wg.Go(func() { _ = s.Serve() }) // logs its own end
	return nil
}

func (b *Broker) newHooked(g *hook.Guest, uid uint32) (*Session, error) {
	asked, err := policy.ParseMode(g.Quic)
	if err != nil {
		return nil, fmt.Errorf("policy: %w", err)
	}
	h := &hooked{Server: hook.NewServer(), id: g.Session}
	if g.Door >= 0 {
		if h.door, err = listenerOf(g); err != nil {
			return nil, err
		}
	}
	s := &Session{name: g.Name, asked: asked, match: g.Match, seesSetns: true, uid: uid, source: h}
	if h.door != nil {
		h.Linger = lingerHooked
		h.Alone = func() {
			b.mu.Lock()
			defer b.mu.Unlock()
			s.alone = true
			b.changed.Broadcast()
		}
		h.Idle = func() bool { return !b.hasSocketsOf(s) }
	}
	b.register(s)
	b.mu.Lock()
	b.hooked[g.Session] = s
	b.mu.Unlock()
	return s, nil
}

func listenerOf(g *hook.Guest) (*net.UnixListener, error) {
	f := os.NewFile(uintptr(g.Door), "door")
	g.Door = -1
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("door: %w", err)
	}
	u, ok := l.(*net.UnixListener)
	if !ok {
		l.Close()
		return nil, fmt.Errorf("door: it is no AF_UNIX socket")
	}
	return u, nil
}

// serveDoor lets processes in at a session's own door, which anybody may knock
// at who knows where it is: only those that know the session's id, too.
func (b *Broker) serveDoor(h *hooked) error {
	defer h.door.Close()
	for {
		c, err := h.door.AcceptUnix()
		if err != nil {
			return err
		}
		b.wg.Go(func() {
			defer c.Close()
			begins, err := peek(c)
			if err != nil || !hook.IsHello(begins) {
				return
			}
			p, err := PeerOf(c)
			if err != nil {
				return
			}
			g, err := hook.Receive(c, int(p.PID))
			switch {
			case err != nil:
				b.log.Warn("hello refused", "error", err, "pid", p.PID, "uid", p.UID)
			case g.Session != h.id:
				g.Refuse(fmt.Errorf("this broker serves another process tree"))
			case !h.Add(g):
				g.Refuse(fmt.Errorf("the process tree has ended"))
			}
		})
	}
}

// hasSocketsOf reports whether programs have sockets of s open, wherever.
func (b *Broker) hasSocketsOf(s *Session) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, sock := range b.sockets {
		if sock.sess == s {
			return true
		}
	}
	return false
}
