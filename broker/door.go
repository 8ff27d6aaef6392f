package broker

import (
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/poemq/poemq/notify"
	"github.com/poemq/poemq/notify/handover"
	"github.com/poemq/poemq/notify/hook"
	"golang.org/x/sys/unix"
)

// ServeSocket takes sessions at l, as an OCI seccomp agent, until l is closed.
// allow decides by the uid of who connects; nil allows everybody.
func (b *Broker) ServeSocket(l *net.UnixListener, allow func(uid uint32) error) error {
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
func (b *Broker) Admit(c *net.UnixConn, allow func(uid uint32) error) error {
	cred, err := peerCred(c)
	if err != nil {
		b.log.Error("handover refused", "error", err)
		return err
	}
	if begins, err := peek(c); err == nil && hook.IsHello(begins) {
		return b.admitHooked(c, cred, allow)
	}
	h, err := handover.Receive(c)
	if err != nil {
		b.log.Warn("handover refused", "error", err, "pid", cred.Pid, "uid", cred.Uid)
		return err
	}
	s, err := b.begin(h, cred, allow)
	if err != nil {
		b.log.Warn("handover refused", "error", err, "pid", cred.Pid, "uid", cred.Uid)
	}
	if h.Meta.Version > 0 {
		if rerr := handover.Reply(c, err); rerr != nil {
			b.log.Warn("the launcher did not wait for the answer", "error", rerr, "pid", cred.Pid)
		}
	}
	if err != nil {
		return err
	}
	s.pid.Store(firstProcess(h, cred.Pid))
	b.wg.Go(func() { _ = s.Serve() }) // logs its own end
	return nil
}

func (b *Broker) begin(h *handover.Handover, cred *unix.Ucred, allow func(uid uint32) error) (*Session, error) {
	if allow != nil {
		if err := allow(cred.Uid); err != nil {
			unix.Close(h.Listener)
			return nil, err
		}
	}
	if err := reach(h, cred); err != nil {
		unix.Close(h.Listener)
		return nil, err
	}
	return b.NewSession(h, cred.Uid)
}

// reach asks whether anything can be done for the program. A container runtime
// tells its pid (crun 1.8 tells none of a process that "exec" brings: then the
// first call will show). poemq-launch, which may see itself under another
// number, becomes the program.
func reach(h *handover.Handover, cred *unix.Ucred) error {
	switch {
	case h.Meta.Version > 0:
		return notify.Reach(int(cred.Pid))
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

func peerCred(c *net.UnixConn) (cred *unix.Ucred, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	cerr := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err = errors.Join(cerr, err); err != nil {
		return nil, fmt.Errorf("SO_PEERCRED: %w", err)
	}
	return cred, nil
}
