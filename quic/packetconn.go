package quic

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// What quic-go asks of a socket beside reading and writing. It sets options, and
// the rest is there because its interface has it: packets are read by ReadBatch.

// SetReadBuffer sets SO_RCVBUF, in octets.
func (s *socket) SetReadBuffer(octets int) error { return s.setOption(unix.SO_RCVBUF, octets) }

// SetWriteBuffer sets SO_SNDBUF, in octets.
func (s *socket) SetWriteBuffer(octets int) error { return s.setOption(unix.SO_SNDBUF, octets) }

func (s *socket) setOption(name, value int) (err error) {
	cerr := s.cur.Load().control(func(fd int) { err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, name, value) })
	return errors.Join(cerr, os.NewSyscallError("setsockopt", err))
}

// SyscallConn is the UDP socket there is now, for options.
func (s *socket) SyscallConn() (syscall.RawConn, error) { return optionsConn{s.cur.Load()}, nil }

type optionsConn struct{ u *udp }

func (c optionsConn) Control(f func(uintptr)) error {
	return c.u.control(func(fd int) { f(uintptr(fd)) })
}

func (optionsConn) Read(func(uintptr) bool) error  { return errUnused }
func (optionsConn) Write(func(uintptr) bool) error { return errUnused }

var errUnused = fmt.Errorf("packets are read by ReadBatch and sent by WriteMsgUDP: %w", errors.ErrUnsupported)

// WriteTo is WriteMsgUDP without control messages.
func (s *socket) WriteTo(b []byte, addr net.Addr) (int, error) {
	to, ok := addr.(*net.UDPAddr)
	if !ok {
		return 0, &net.AddrError{Err: "not a UDP address", Addr: addr.String()}
	}
	n, _, err := s.WriteMsgUDP(b, nil, to)
	return n, err
}

// ReadFrom, ReadMsgUDP and deadlines of sending are not needed.
func (*socket) ReadFrom([]byte) (int, net.Addr, error) { return 0, nil, errUnused }

// ReadMsgUDP: see ReadFrom.
func (*socket) ReadMsgUDP(_, _ []byte) (n, oobn, flags int, addr *net.UDPAddr, err error) {
	return 0, 0, 0, nil, errUnused
}

// SetDeadline: see ReadFrom.
func (*socket) SetDeadline(time.Time) error { return errUnused }

// SetWriteDeadline: see ReadFrom.
func (*socket) SetWriteDeadline(time.Time) error { return errUnused }
