package broker

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/poemq/poemq/broker/policy"
	"github.com/poemq/poemq/notify"
	"github.com/poemq/poemq/notify/handover"
	"golang.org/x/sys/unix"
)

// connKeeper is the keeper that poemq-launch left (launcher/keeper.go), at the
// other end of the connection that the session was handed over on.
type connKeeper struct{ fd int }

// keeperTimeout is how long a keeper may take for anything.
const keeperTimeout = 5 * time.Second

// newConnKeeper copies c, for as long as the session.
func newConnKeeper(c *net.UnixConn) (*connKeeper, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd := -1
	cerr := raw.Control(func(s uintptr) { fd, err = unix.FcntlInt(s, unix.F_DUPFD_CLOEXEC, 0) })
	if err = errors.Join(cerr, err); err != nil {
		return nil, fmt.Errorf("copy of a keeper's connection: %w", err)
	}
	return &connKeeper{fd}, nil
}

func (k *connKeeper) send(line string, fds ...int) error {
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	for {
		// The file is shared with package net, and so non-blocking: a keeper
		// reads at once, or is of no use.
		err := unix.Sendmsg(k.fd, []byte(line+"\n"), rights, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
		switch err {
		case unix.EINTR:
		case unix.EAGAIN:
			if err := k.await(unix.POLLOUT); err != nil {
				return err
			}
		default:
			return os.NewSyscallError("sendmsg", err)
		}
	}
}

func (k *connKeeper) await(events int16) error {
	p := []unix.PollFd{{Fd: int32(k.fd), Events: events}}
	for {
		n, err := unix.Poll(p, int(keeperTimeout.Milliseconds()))
		switch {
		case err == unix.EINTR:
		case err != nil:
			return err
		case n == 0:
			return errors.New("the keeper does not answer")
		default:
			return nil
		}
	}
}

func (k *connKeeper) Store(name string, fd int) error { return k.send("+"+name, fd) }

// Remove is done when the keeper is gone, as it is when its session is.
func (k *connKeeper) Remove(name string) error {
	if err := k.send("-" + name); !errors.Is(err, unix.EPIPE) {
		return err
	}
	return nil
}

// Sync waits for "!".
func (k *connKeeper) Sync() error {
	if err := k.send("?"); err != nil {
		return err
	}
	if err := k.await(unix.POLLIN); err != nil {
		return err
	}
	var buf [16]byte
	n, _, err := unix.Recvfrom(k.fd, buf[:], unix.MSG_DONTWAIT)
	if err == nil && n == 0 {
		err = errors.New("the keeper is gone")
	}
	return err
}

// close has the keeper look after itself.
func (k *connKeeper) close() { unix.Close(k.fd) }

// admitKept takes a session from a keeper on c, new or left by another broker.
func (b *Broker) admitKept(c *net.UnixConn, h *handover.Handover, p Peer) error {
	if b.storing != nil { // systemd keeps it
		s, err := b.NewSession(h, p.UID)
		if err == nil {
			err = handover.ReplyKept(c)
		}
		if err != nil {
			return err
		}
		s.pid.Store(int32(h.State.Pid))
		b.wg.Go(func() { _ = s.Serve() }) // logs its own end
		return nil
	}
	if err := handover.Reply(c, nil); err != nil {
		unix.Close(h.Listener)
		return err
	}
	left, err := receiveKept(c, h.Meta.Kept)
	if err != nil {
		unix.Close(h.Listener)
		closeLeft(left)
		return err
	}
	k, err := newConnKeeper(c)
	if err != nil {
		unix.Close(h.Listener)
		closeLeft(left)
		return err
	}
	store := newStoring(k, b.log)
	trusted := p.UID == 0 || int(p.UID) == os.Geteuid()
	if trusted && len(left) > 0 {
		id, _, _ := strings.Cut(left[0].Name, ".")
		left = append(left, Left{Name: id + ".listener", FD: h.Listener})
		if n := b.adoptFrom(left, store); n == 0 {
			k.close()
			return errors.New("nothing of the session can be gone on with")
		}
		return nil
	}
	return b.beginKept(h, p, left, k, store)
}

// beginKept begins a session that store keeps. What a user without the right to
// everything of ours brings is not believed: it names descriptors of any process.
// But its calls are answered.
func (b *Broker) beginKept(h *handover.Handover, p Peer, left []Left, k *connKeeper, store *storing) error {
	defer closeLeft(left)
	asked, err := policy.ParseMode(h.Meta.Quic)
	if err != nil {
		asked = policy.Unset
	}
	l, err := notify.NewListener(h.Listener)
	if err != nil {
		k.close()
		return err
	}
	s := &Session{name: h.Meta.Cmd, asked: asked, match: h.Meta.Match, seesSetns: h.Meta.NetNS, uid: p.UID, source: filtered{l}}
	for _, one := range left {
		if err := store.k.Remove(one.Name); err != nil {
			b.log.Warn("a keeper is gone", "error", err, "uid", p.UID)
		}
		if strings.HasSuffix(one.Name, ".journal") {
			s.caught = callsIn(one.FD)
		}
	}
	s.keptBy = store
	b.register(s)
	s.pid.Store(int32(p.PID))
	b.wg.Go(func() { _ = s.Serve() }) // logs its own end
	return nil
}

// callsIn are the calls in a journal that is not believed: they are failed with
// EINTR, where they are this listener's, and no thread is touched.
func callsIn(fd int) (calls []notify.Caught) {
	copied, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	j, _, err := openJournal(copied)
	if err != nil {
		return nil
	}
	defer j.close()
	for _, c := range j.calls() {
		calls = append(calls, notify.Caught{ID: c.ID})
	}
	return calls
}

// mostKept bounds what a keeper brings.
const mostKept = 1 << 16

// receiveKept reads n lines "+NAME", each with a descriptor. What came is the
// caller's to close, with an error too.
func receiveKept(c *net.UnixConn, n int) (left []Left, err error) {
	if n < 0 || n > mostKept {
		return nil, fmt.Errorf("a keeper of %d descriptors, %d is the most", n, mostKept)
	}
	var data []byte
	var fds []int
	defer func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}()
	buf, oob := make([]byte, 16<<10), make([]byte, unix.CmsgSpace(4*16))
	for len(left) < n {
		if err := c.SetReadDeadline(time.Now().Add(handover.Timeout)); err != nil {
			return left, err
		}
		got, oobn, _, _, err := c.ReadMsgUnix(buf, oob)
		if err != nil {
			return left, fmt.Errorf("what a keeper kept: %w", err)
		}
		data = append(data, buf[:got]...)
		messages, err := unix.ParseSocketControlMessage(oob[:oobn])
		if err != nil {
			return left, err
		}
		for i := range messages {
			if more, err := unix.ParseUnixRights(&messages[i]); err == nil {
				fds = append(fds, more...)
			}
		}
		for {
			line, rest, whole := bytes.Cut(data, []byte{'\n'})
			if !whole {
				break
			}
			if len(line) < 2 || line[0] != '+' || len(fds) == 0 || len(left) == n {
				return left, fmt.Errorf("what a keeper kept: %q", line)
			}
			left = append(left, Left{Name: string(line[1:]), FD: fds[0]})
			data, fds = rest, fds[1:]
		}
	}
	return left, c.SetReadDeadline(time.Time{})
}

func closeLeft(left []Left) {
	for _, one := range left {
		unix.Close(one.FD)
	}
}
