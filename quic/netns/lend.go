package netns

import (
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// lent is a socket that is made once.
type lent struct {
	mu     sync.Mutex // guards what follows, and is held while the socket is lent
	fd     int        // ours, when made
	made   bool
	closed bool
}

// UDP calls f with a UDP socket of the namespace, AF_INET or AF_INET6, which is
// neither bound nor connected, and made at the first call alone: a socket's calls
// belong to its namespace whichever thread makes them. f uses it by itself until it
// returns; false says that the socket is not as it was, and not to be lent again.
// Errors are socket(2)'s, or Do's.
func (n *NS) UDP(family int, f func(fd int) (asItWas bool)) error {
	if n == nil {
		own, err := Self()
		if err != nil {
			return err
		}
		n = own
	}
	l := &n.lent4
	if family == unix.AF_INET6 {
		l = &n.lent6
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return ErrClosed
	}
	if !l.made {
		err := n.Do(func() (err error) {
			l.fd, err = unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
			return os.NewSyscallError("socket", err)
		})
		if err != nil {
			return err
		}
		l.made = true
	}
	if !f(l.fd) {
		l.drop()
	}
	return nil
}

// drop is called with l.mu held.
func (l *lent) drop() {
	if l.made {
		unix.Close(l.fd)
	}
	l.made = false
}

func (l *lent) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	l.drop()
}
