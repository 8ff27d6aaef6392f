package addfd

import (
	"encoding/binary"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// Closed reports that the program has closed its socket, for an end that is
// HungUp: shutting down both directions, by either side, looks the same. An
// error says that it cannot be told.
func Closed(end int) (bool, error) {
	switch now := events(end, 0); {
	case now&unix.POLLHUP == 0:
		return false, nil
	case now&unix.POLLERR != 0:
		return true, nil // closed with data unread; nothing else sets it
	}
	if n, err := unix.IoctlGetInt(end, unix.SIOCOUTQ); err == nil && n > 0 {
		return false, nil // what waits to be read is dropped at the last close
	}
	var st unix.Stat_t
	if err := unix.Fstat(end, &st); err != nil {
		return false, err
	}
	peer, err := diagnose(uint32(st.Ino))
	return peer == 0, err
}

// diag asks the kernel about sockets (sock_diag(7)).
var diag struct {
	mu  sync.Mutex
	fd  int // 0: not tried yet; -1: not to be had
	buf [1024]byte
}

// Of linux/unix_diag.h.
const (
	udiagShowPeer = 1 << 2
	unixDiagPeer  = 2
	unixDiagReq   = 24 // size of struct unix_diag_req
	unixDiagMsg   = 16 // size of struct unix_diag_msg
)

// diagnose returns the inode of the peer of the socket that has ino: 0 when
// nobody has that open.
func diagnose(ino uint32) (peer uint32, err error) {
	diag.mu.Lock()
	defer diag.mu.Unlock()
	if diag.fd == 0 {
		diag.fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
		if err != nil {
			diag.fd = -1
		}
	}
	if diag.fd < 0 {
		return 0, unix.EOPNOTSUPP
	}
	q := diagRequest(ino, 0, udiagShowPeer)
	if err := unix.Sendto(diag.fd, q, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return 0, fmt.Errorf("sock_diag: %w", err)
	}
	// The answer to a request for one socket is there when sendto returns.
	n, _, err := unix.Recvfrom(diag.fd, diag.buf[:], unix.MSG_DONTWAIT)
	if err != nil {
		return 0, fmt.Errorf("sock_diag: %w", err)
	}
	return peerOf(diag.buf[:n])
}

// Open gives the cookies (SO_COOKIE) of all AF_UNIX sockets of our network
// namespace that are open or wait in a queue.
func Open() (map[uint64]bool, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, fmt.Errorf("sock_diag: %w", err)
	}
	defer unix.Close(fd)
	q := diagRequest(0, unix.NLM_F_DUMP, 0)
	if err := unix.Sendto(fd, q, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, fmt.Errorf("sock_diag: %w", err)
	}
	open, buf := make(map[uint64]bool), make([]byte, 32<<10)
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err != nil {
			return nil, fmt.Errorf("sock_diag: %w", err)
		}
		if over, err := cookiesOf(buf[:n], open); over || err != nil {
			return open, err
		}
	}
}

// cookiesOf adds those in one part of a dump; over is that it was the last.
func cookiesOf(b []byte, open map[uint64]bool) (over bool, err error) {
	ne := binary.NativeEndian
	for len(b) >= unix.SizeofNlMsghdr {
		length := int(ne.Uint32(b))
		if length < unix.SizeofNlMsghdr || length > len(b) {
			return false, unix.EBADMSG
		}
		switch typ := ne.Uint16(b[4:]); {
		case typ == unix.NLMSG_DONE:
			return true, nil
		case typ == unix.NLMSG_ERROR && length >= unix.SizeofNlMsghdr+4:
			return false, fmt.Errorf("sock_diag: %w", unix.Errno(-int32(ne.Uint32(b[16:]))))
		case typ == unix.SOCK_DIAG_BY_FAMILY && length >= unix.SizeofNlMsghdr+unixDiagMsg:
			m := b[unix.SizeofNlMsghdr:] // family, type, state, pad; inode; cookie
			open[uint64(ne.Uint32(m[8:]))|uint64(ne.Uint32(m[12:]))<<32] = true
		}
		b = b[min((length+3)&^3, len(b)):]
	}
	return false, nil
}

// diagRequest asks about AF_UNIX sockets: about one with an inode, or with
// NLM_F_DUMP about all.
func diagRequest(ino uint32, flags uint16, show uint32) []byte {
	ne := binary.NativeEndian
	q := make([]byte, unix.SizeofNlMsghdr+unixDiagReq)
	ne.PutUint32(q, uint32(len(q)))
	ne.PutUint16(q[4:], unix.SOCK_DIAG_BY_FAMILY)
	ne.PutUint16(q[6:], unix.NLM_F_REQUEST|flags)
	q[16] = unix.AF_UNIX
	ne.PutUint32(q[20:], ^uint32(0)) // any state
	ne.PutUint32(q[24:], ino)
	ne.PutUint32(q[28:], show)
	ne.PutUint64(q[32:], ^uint64(0)) // no cookie
	return q
}

// peerOf reads the answer.
func peerOf(b []byte) (uint32, error) {
	ne := binary.NativeEndian
	if len(b) < unix.SizeofNlMsghdr+4 {
		return 0, unix.EBADMSG
	}
	if typ := ne.Uint16(b[4:]); typ == unix.NLMSG_ERROR {
		return 0, fmt.Errorf("sock_diag: %w", unix.Errno(-int32(ne.Uint32(b[16:]))))
	}
	if len(b) < unix.SizeofNlMsghdr+unixDiagMsg {
		return 0, unix.EBADMSG
	}
	for b = b[unix.SizeofNlMsghdr+unixDiagMsg:]; len(b) >= unix.SizeofRtAttr+4; {
		length := int(ne.Uint16(b))
		if ne.Uint16(b[2:]) == unixDiagPeer {
			return ne.Uint32(b[4:]), nil
		}
		if length < unix.SizeofRtAttr {
			break
		}
		b = b[min((length+3)&^3, len(b)):]
	}
	return 0, unix.EBADMSG
}
