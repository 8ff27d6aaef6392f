package broker

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/poemq/poemq/quic"
	"golang.org/x/sys/unix"
)

// tcpTransport is plain TCP, of the kernel's.
type tcpTransport struct {
	*net.TCPConn
	finSent atomic.Bool // CloseWrite was called
	remote  netip.AddrPort
}

func newTCP(c *net.TCPConn) *tcpTransport {
	return &tcpTransport{TCPConn: c, remote: addrPort(c.RemoteAddr())}
}

// Lost is nil: what has come can be read, and the kernel holds it.
func (t *tcpTransport) Lost() <-chan struct{} { return nil }

// AwaitRead waits in the poller, so that an idle connection holds no buffer.
func (t *tcpTransport) AwaitRead() {
	raw, err := t.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Read(func(fd uintptr) bool { // Read tells the error
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(p, 0)
		return err != nil || n != 0
	})
}

// Read never takes a reset for an end of file: once a write has been told of
// the reset, the kernel has reading find the end.
func (t *tcpTransport) Read(p []byte) (int, error) {
	n, err := t.TCPConn.Read(p)
	if err == io.EOF && !t.finSent.Load() && t.closedByReset() {
		err = unix.ECONNRESET
	}
	return n, tcpError(err)
}

// closedByReset reports that the connection is gone, which without a FIN of
// ours is by the peer's reset only.
func (t *tcpTransport) closedByReset() (gone bool) {
	raw, err := t.SyscallConn()
	if err != nil {
		return false
	}
	_ = raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		gone = err == nil && info.State == unix.BPF_TCP_CLOSE
	})
	return gone
}

func (t *tcpTransport) Write(p []byte) (int, error) {
	n, err := t.TCPConn.Write(p)
	return n, tcpError(err)
}

func tcpError(err error) error {
	switch {
	case err == nil, errors.Is(err, io.EOF):
		return err
	case errors.Is(err, unix.EPIPE):
		return errors.Join(quic.ErrStopped, err)
	case errors.Is(err, unix.ECONNRESET):
		return errors.Join(quic.ErrReset, err)
	}
	return errors.Join(quic.ErrLost, err)
}

func (t *tcpTransport) CloseWrite() error {
	t.finSent.Store(true)
	return t.TCPConn.CloseWrite()
}

func (t *tcpTransport) Reset() {
	t.SetLinger(0)
	t.TCPConn.Close()
}

// StopRead does nothing: the kernel answers data for a closed socket with RST
// when Reset or Close comes.
func (t *tcpTransport) StopRead() { t.CloseRead() }

// WhenWriteEnds waits for the connection's end in the poller.
func (t *tcpTransport) WhenWriteEnds(f func(error)) {
	raw, err := t.SyscallConn()
	if err != nil {
		f(net.ErrClosed)
		return
	}
	go func() {
		reset := false
		err := raw.Read(func(fd uintptr) bool {
			p := []unix.PollFd{{Fd: int32(fd)}}
			_, err := unix.Poll(p, 0)
			reset = p[0].Revents&unix.POLLERR != 0
			return err != nil || p[0].Revents != 0
		})
		if err != nil || !reset {
			f(net.ErrClosed)
			return
		}
		f(quic.ErrReset)
	}()
}

func (t *tcpTransport) LocalAddr() netip.AddrPort  { return addrPort(t.TCPConn.LocalAddr()) }
func (t *tcpTransport) RemoteAddr() netip.AddrPort { return t.remote }

// addrPort is the zero AddrPort for a nil a, which package net gives where the
// kernel has no peer's name: it was not connected yet, or not any more.
func addrPort(a net.Addr) netip.AddrPort {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := tcp.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// wasReset reports that the peer has reset the connection.
func (t *tcpTransport) wasReset() (reset bool) {
	raw, err := t.SyscallConn()
	if err != nil {
		return true
	}
	_ = raw.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd)}}
		n, err := unix.Poll(p, 0)
		reset = err == nil && n == 1 && p[0].Revents&unix.POLLERR != 0
	})
	return reset
}

// A reset drops what the kernel has not sent yet. Nothing tells when that is
// nothing any more, so it is looked for, less and less often.
const (
	firstLook = time.Millisecond
	lastLook  = 50 * time.Millisecond
)

// awaitSent returns when the peer's kernel has all that was written, when it
// has taken nothing for readWait, or when ctx ends.
func (t *tcpTransport) awaitSent(ctx context.Context) {
	raw, err := t.SyscallConn()
	if err != nil {
		return
	}
	before, since := 0, time.Now()
	for pause := firstLook; ; pause = min(2*pause, lastLook) {
		left := 0
		if raw.Control(func(fd uintptr) { left, _ = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) }) != nil || left == 0 {
			return
		}
		if left != before {
			before, since = left, time.Now()
		} else if time.Since(since) > readWait {
			return
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
	}
}

func awaitConnect(tcp *net.TCPConn) error {
	raw, err := tcp.SyscallConn()
	if err != nil {
		return err
	}
	var soErr int
	err = raw.Write(func(fd uintptr) bool {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		if n, err := unix.Poll(p, 0); err != nil || n == 0 {
			return false
		}
		soErr, _ = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
		return true
	})
	if err != nil {
		return err
	}
	if soErr != 0 {
		return unix.Errno(soErr)
	}
	return nil
}
