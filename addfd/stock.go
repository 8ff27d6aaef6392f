package addfd

import (
	"sync"

	"golang.org/x/sys/unix"
)

// Stock makes sockets before they are wanted, so that socket(2) need not wait for
// that. The zero Stock is ready; it makes none before the first Take.
type Stock struct {
	mu      sync.Mutex // guards what follows
	have    []stocked
	filling bool
	over    bool
}

type stocked struct {
	fd     int
	cookie uint64
	ino    uint64
}

const (
	stockSize = 32
	stockLow  = 16
)

// Take is New, out of the stock where there is one. ino is the socket's inode,
// as /proc/PID/fd shows it; 0 when it is not known.
func (s *Stock) Take(nonblock bool) (fd int, cookie, ino uint64, err error) {
	s.mu.Lock()
	if len(s.have) <= stockLow && !s.filling && !s.over {
		s.filling = true
		go s.fill()
	}
	n := len(s.have)
	if n == 0 {
		s.mu.Unlock()
		if fd, cookie, err = New(nonblock); err == nil {
			ino = Inode(fd)
		}
		return fd, cookie, ino, err
	}
	got := s.have[n-1]
	s.have = s.have[:n-1]
	s.mu.Unlock()
	if nonblock {
		if err := unix.SetNonblock(got.fd, true); err != nil {
			unix.Close(got.fd)
			return -1, 0, 0, err
		}
	}
	return got.fd, got.cookie, got.ino, nil
}

func (s *Stock) fill() {
	for s.add() {
	}
}

// add makes one socket; false ends the filling.
func (s *Stock) add() bool {
	fd, cookie, err := New(false)
	ino := uint64(0)
	if err == nil {
		ino = Inode(fd)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil || s.over || len(s.have) >= stockSize {
		s.filling = false
		if err == nil {
			unix.Close(fd)
		}
		return false
	}
	s.have = append(s.have, stocked{fd, cookie, ino})
	return true
}

// Close closes those in stock.
func (s *Stock) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
	for _, k := range s.have {
		unix.Close(k.fd)
	}
	s.have = nil
}
