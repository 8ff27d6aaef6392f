package broker

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"time"
	"unsafe"

	"github.com/poemq/poemq/notify"
	"github.com/poemq/poemq/notify/handover"
	"github.com/poemq/poemq/notify/hook"
	"golang.org/x/sys/unix"
)

// ServeSocket takes sessions at l, as an OCI seccomp agent, until l is closed.
// allow decides by who connects; nil allows everybody.
func (b *Broker) ServeSocket(l *net.UnixListener, allow func(Peer) error) error {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return nil
			}
			// No descriptors or memory left: it passes.
			b.log.Error("a handover cannot be accepted", "error", err)
			time.Sleep(100 * time.Millisecond)
			continue
		}
		go func() {
			defer c.Close()
			_ = b.Admit(c, allow)
		}()
	}
}

// Admit takes one session from c and serves it on a goroutine of its own, or one
// process that the hook library introduces. An error is logged and, to
// poemq-launch and the library, answered.
func (b *Broker) Admit(c *net.UnixConn, allow func(Peer) error) error {
	cred, err := PeerOf(c)
	if err != nil {
		b.log.Error("handover refused", "error", err)
		return err
	}
	if begins, err := peek(c); err == nil && hook.IsHello(begins) {
		return b.admitHooked(c, cred, allow)
	}
	h, err := handover.Receive(c)
	if err != nil {
		b.log.Warn("handover refused", "error", err, "pid", cred.PID, "uid", cred.UID)
		return err
	}
	if h.Meta.Version > 0 && h.Meta.Keeper {
		err := b.allowed(cred, h, allow)
		if err == nil {
			err = b.admitKept(c, h, cred)
		} else {
			_ = handover.Reply(c, err) // it is logged
		}
		if err != nil {
			b.log.Warn("handover of a keeper refused", "error", err, "pid", cred.PID, "uid", cred.UID)
		}
		return err
	}
	s, err := b.begin(h, cred, allow)
	if err != nil {
		b.log.Warn("handover refused", "error", err, "pid", cred.PID, "uid", cred.UID)
	}
	if h.Meta.Version > 0 {
		if rerr := handover.Reply(c, err); rerr != nil {
			b.log.Warn("the launcher did not wait for the answer", "error", rerr, "pid", cred.PID)
		}
	}
	if err != nil {
		return err
	}
	s.pid.Store(firstProcess(h, cred.PID))
	b.wg.Go(func() { _ = s.Serve() }) // logs its own end
	return nil
}

// allowed asks allow, and closes the listener if it says no.
func (b *Broker) allowed(p Peer, h *handover.Handover, allow func(Peer) error) error {
	if allow == nil {
		return nil
	}
	err := allow(p)
	if err != nil {
		unix.Close(h.Listener)
	}
	return err
}

func (b *Broker) begin(h *handover.Handover, p Peer, allow func(Peer) error) (*Session, error) {
	if err := b.allowed(p, h, allow); err != nil {
		return nil, err
	}
	if err := reach(h, p); err != nil {
		unix.Close(h.Listener)
		return nil, err
	}
	return b.NewSession(h, p.UID)
}

// reach asks whether anything can be done for the program. A container runtime
// tells its pid (crun 1.8 tells none of a process that "exec" brings: then the
// first call will show). poemq-launch, which may see itself under another
// number, becomes the program.
func reach(h *handover.Handover, p Peer) error {
	switch {
	case h.Meta.Version > 0:
		return notify.Reach(p.PID)
	case h.State.Pid > 0:
		return notify.Reach(h.State.Pid)
	}
	return nil
}

// peek looks at how the first message on c begins, which decides what it is.
func peek(c *net.UnixConn) (begins []byte, err error) {
	if err := c.SetReadDeadline(time.Now().Add(handover.Timeout)); err != nil {
		return nil, err
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	var buf [4]byte
	n := 0
	rerr := raw.Read(func(fd uintptr) bool {
		n, _, err = unix.Recvfrom(int(fd), buf[:], unix.MSG_PEEK)
		return err != unix.EAGAIN
	})
	return buf[:max(n, 0)], errors.Join(rerr, err)
}

// Peer is who is at the other end of a UNIX socket, as it was when it connected
// (SO_PEERCRED and SO_PEERGROUPS, unix(7) and socket(7)).
type Peer struct {
	PID      int
	UID, GID uint32
	Groups   []uint32 // supplementary ones
}

// In reports that the peer belongs to a group.
func (p Peer) In(gid uint32) bool { return p.GID == gid || slices.Contains(p.Groups, gid) }

// PeerOf asks the kernel who is at the other end of c.
func PeerOf(c *net.UnixConn) (p Peer, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return p, err
	}
	cerr := raw.Control(func(fd uintptr) {
		var cred *unix.Ucred
		if cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			p = Peer{PID: int(cred.Pid), UID: cred.Uid, GID: cred.Gid, Groups: peerGroups(int(fd))}
		}
	})
	if err = errors.Join(cerr, err); err != nil {
		return p, fmt.Errorf("SO_PEERCRED: %w", err)
	}
	return p, nil
}

// peerGroups is SO_PEERGROUPS; none when the kernel does not tell.
func peerGroups(fd int) []uint32 {
	groups := make([]uint32, 64)
	for {
		size := uint32(4 * len(groups))
		_, _, e := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch {
		case e == unix.ERANGE && int(size) > 4*len(groups):
			groups = make([]uint32, size/4)
		case e != 0:
			return nil
		default:
			return groups[:size/4]
		}
	}
}
