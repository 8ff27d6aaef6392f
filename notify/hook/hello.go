package hook

import (
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// maxFds is how many descriptors a message brings.
const maxFds = 3

// Guest is a process that has introduced itself and waits for a word: Server.Add
// or Refuse. It owns its descriptors.
type Guest struct {
	Hello
	Cred unix.Ucred // of the process, by the kernel
	// Door is a listening socket of AF_UNIX at which more of the same session
	// shall be let in, the receiver's from now on; or -1.
	Door int

	end   int // our end of the pair
	netns int // of the process when it said hello; or -1
}

// errSender says that a message is not from whom it speaks of: a child may have
// its parent's connections and not its rights.
var errSender = errors.New("hello: it is not from the process that made the connection")

// Receive reads one hello from c, a connection to the front door that the process
// sender has made.
func Receive(c *net.UnixConn, sender int) (*Guest, error) {
	buf, oob := make([]byte, maxMessage), make([]byte, unix.CmsgSpace(4*maxFds))
	n, oobn, flags, _, err := c.ReadMsgUnix(buf, oob)
	if err != nil {
		return nil, fmt.Errorf("hello: %w", err)
	}
	fds, _, err := control(oob[:oobn], nil)
	if err == nil && flags&(unix.MSG_CTRUNC|unix.MSG_TRUNC) != 0 {
		err = errShort
	}
	if err != nil {
		fds.close()
		return nil, fmt.Errorf("hello: %w", err)
	}
	return newGuest(buf[:n], &fds, sender)
}

// newGuest takes fds over. sender is the process that sent b, by the kernel's word.
func newGuest(b []byte, fds *files, sender int) (*Guest, error) {
	defer fds.close()
	h, err := DecodeHello(b)
	if err != nil {
		return nil, fmt.Errorf("hello: %w", err)
	}
	g := &Guest{Hello: *h}
	g.end = fds.take(true)
	g.netns = fds.take(h.fds&helloNetNS != 0)
	g.Door = fds.take(h.fds&helloDoor != 0)
	if g.end < 0 || h.fds&helloDoor != 0 && g.Door < 0 {
		g.Close()
		return nil, errors.New("hello: a descriptor is missing")
	}
	kind, err := unix.GetsockoptInt(g.end, unix.SOL_SOCKET, unix.SO_TYPE)
	domain, derr := unix.GetsockoptInt(g.end, unix.SOL_SOCKET, unix.SO_DOMAIN)
	cred, cerr := unix.GetsockoptUcred(g.end, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err = errors.Join(err, derr, cerr); err != nil || kind != unix.SOCK_SEQPACKET || domain != unix.AF_UNIX {
		g.Close()
		return nil, errors.Join(errors.New("hello: what came is no pair of SOCK_SEQPACKET"), err)
	}
	g.Cred = *cred
	if cred.Pid == 0 {
		err := errors.New("hello: the process's pid namespace is not visible from the broker's")
		g.Refuse(err)
		return nil, err
	}
	if int(cred.Pid) != sender {
		g.Refuse(errSender)
		return nil, errSender
	}
	// From here on the kernel says of each message who sent it.
	err = errors.Join(unix.SetNonblock(g.end, true), unix.SetsockoptInt(g.end, unix.SOL_SOCKET, unix.SO_PASSCRED, 1))
	if err != nil {
		g.Close()
		return nil, fmt.Errorf("hello: %w", err)
	}
	return g, nil
}

// Refuse tells the process why it is not let in, and closes.
func (g *Guest) Refuse(why error) {
	_ = unix.Send(g.end, refusal(why), unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
	g.Close()
}

// welcome lets it in.
func (g *Guest) welcome() error {
	a := answer{kind: answerWelcome}
	if !tracer() {
		a.val = int64(os.Getpid())
	}
	return unix.Send(g.end, a.encode(), unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
}

// tracer reports CAP_SYS_PTRACE. Who has not got it asks to be named with
// PR_SET_PTRACER, for Yama (prctl(2)).
func tracer() bool {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	return unix.Capget(&hdr, &data[0]) == nil && data[0].Effective&(1<<unix.CAP_SYS_PTRACE) != 0
}

// Close gives the descriptors back.
func (g *Guest) Close() {
	for _, fd := range []*int{&g.end, &g.netns, &g.Door} {
		if *fd >= 0 {
			unix.Close(*fd)
			*fd = -1
		}
	}
}

// control reads a control message: descriptors, close-on-exec, which are added to
// fds, and the process that sent it, 0 when the kernel does not say.
func control(oob []byte, fds files) (all files, sender int, err error) {
	for len(oob) > 0 {
		head, data, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			return fds, sender, fmt.Errorf("control message: %w", err)
		}
		oob = rest
		switch {
		case head.Level == unix.SOL_SOCKET && head.Type == unix.SCM_RIGHTS:
			for ; len(data) >= 4; data = data[4:] {
				fds = append(fds, int(int32(ne.Uint32(data))))
			}
		case head.Level == unix.SOL_SOCKET && head.Type == unix.SCM_CREDENTIALS && len(data) >= unix.SizeofUcred:
			sender = int(int32(ne.Uint32(data)))
		}
	}
	return fds, sender, nil
}
