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

// Receive reads one hello from c, a connection to the front door.
func Receive(c *net.UnixConn) (*Guest, error) {
	buf, oob := make([]byte, maxMessage), make([]byte, unix.CmsgSpace(4*maxFds))
	n, oobn, flags, _, err := c.ReadMsgUnix(buf, oob)
	if err != nil {
		return nil, fmt.Errorf("hello: %w", err)
	}
	fds, err := rights(oob[:oobn])
	if err == nil && flags&(unix.MSG_CTRUNC|unix.MSG_TRUNC) != 0 {
		err = errShort
	}
	if err != nil {
		fds.close()
		return nil, fmt.Errorf("hello: %w", err)
	}
	return newGuest(buf[:n], &fds)
}

// newGuest takes fds over.
func newGuest(b []byte, fds *files) (*Guest, error) {
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
	return g, unix.SetNonblock(g.end, true)
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

// rights are the descriptors of a control message, close-on-exec.
func rights(oob []byte) (files, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("control message: %w", err)
	}
	var all files
	for i := range msgs {
		if fds, err := unix.ParseUnixRights(&msgs[i]); err == nil {
			all = append(all, fds...)
		}
	}
	return all, nil
}
