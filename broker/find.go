package broker

import (
	"errors"
	"io/fs"
	"iter"
	"os"
	"strconv"

	"github.com/poemq/poemq/addfd"
	"github.com/poemq/poemq/notify"
	"golang.org/x/sys/unix"
)

// errNoCopy says that the program's descriptor was not found where it was last
// seen, nor in any other process.
var errNoCopy = errors.New("the program's descriptor is not to be found")

// copyOf takes a copy of the program's descriptor away from any call of its.
// It looks where the descriptor was last seen, then for a process that
// inherited it or was given it. The caller closes it soon.
func (s *Socket) copyOf() (int, error) {
	s.mu.Lock()
	tid, n, relay := s.hint.tid, s.hint.fd, s.relay
	s.mu.Unlock()
	fd := -1
	err := s.b.targets.Use(tid, func(t *notify.Target) (err error) {
		fd, err = s.copyFrom(t, n)
		return err
	})
	if err == nil {
		return fd, nil
	}
	if relay != nil && relay.hungUp() {
		return -1, errNoCopy // closed, which is why
	}
	return s.search(n)
}

// copyFrom takes t's descriptor n if it is s.
func (s *Socket) copyFrom(t *notify.Target, n int) (int, error) {
	fd, err := t.Fd(n)
	if err != nil {
		return -1, err
	}
	if c, err := addfd.Cookie(fd); err != nil || c != s.cookie {
		unix.Close(fd)
		return -1, errNoCopy
	}
	return fd, nil
}

// search looks through all processes: first for one that has s at descriptor
// n, as a child has it that goes on with a connection its parent accepted, then
// for one that has it anywhere, as a program that was started on it.
func (s *Socket) search(n int) (int, error) {
	procs, err := os.ReadDir("/proc")
	if err != nil {
		return -1, errNoCopy
	}
	for _, number := range []func(pid string) int{
		func(pid string) int { return present(pid, n) },
		s.numberIn,
	} {
		for _, p := range procs {
			pid, err := strconv.Atoi(p.Name())
			if err != nil || pid == os.Getpid() {
				continue
			}
			at := number(p.Name())
			if at < 0 {
				continue
			}
			if fd, err := s.copyFromTask(pid, at); err == nil {
				s.seenAt(pid, at)
				return fd, nil
			}
		}
	}
	return -1, errNoCopy
}

func (s *Socket) copyFromTask(pid, n int) (int, error) {
	t, err := notify.OpenTarget(pid)
	if err != nil {
		return -1, err
	}
	defer t.Close()
	return s.copyFrom(t, n)
}

// present is n if the process has such a descriptor, or may have, or -1. It is
// cheaper than a pidfd, and few processes have it.
func present(pid string, n int) int {
	_, err := os.Lstat("/proc/" + pid + "/fd/" + strconv.Itoa(n))
	if err != nil && !errors.Is(err, fs.ErrPermission) {
		return -1
	}
	return n
}

// numberIn is one of the socket's descriptors in a process, or -1.
func (s *Socket) numberIn(pid string) int {
	for n := range s.numbersIn(pid) {
		return n
	}
	return -1
}

// numbersIn are the socket's descriptors in a process.
func (s *Socket) numbersIn(pid string) iter.Seq[int] {
	return func(yield func(int) bool) {
		id, err := strconv.Atoi(pid)
		if err != nil {
			return
		}
		want := "socket:[" + strconv.FormatUint(s.ino, 10) + "]"
		for n, link := range notify.Files(id) {
			if link == want && !yield(n) {
				return
			}
		}
	}
}
