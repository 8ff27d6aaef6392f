package addfd

import (
	"errors"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Programs register a socket with epoll or poll it before they do anything
// else; event loops of some decide by POLLHUP.
func TestFreshPollsAsTCP(t *testing.T) {
	tcp, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(tcp)
	want := pollBits(t, tcp)
	if got := pollBits(t, newSocket(t, false)); got != want || got != unix.POLLOUT|unix.POLLHUP {
		t.Errorf("poll of a fresh socket: %#x, of a TCP socket %#x, in the doc 0x14", got, want)
	}
}

// A read from a socket that is not connected must not block: TCP's does not,
// and nobody would ever wake it.
func TestReadsFailAtOnce(t *testing.T) {
	fresh := newSocket(t, false)
	_, listening := listener(t, newSpring(t, openInotify(quiet)), 1)
	for name, fd := range map[string]int{"fresh": fresh, "listening": listening} {
		b := make([]byte, 1)
		if _, _, err := unix.Recvfrom(fd, b, 0); err == nil || errors.Is(err, unix.EAGAIN) {
			t.Errorf("recv on a %s socket: %v, want an error that is not EAGAIN", name, err)
		}
		if _, err := unix.Read(fd, b); err == nil || errors.Is(err, unix.EAGAIN) {
			t.Errorf("read on a %s socket: %v, want an error that is not EAGAIN", name, err)
		}
	}
}

// sendto with MSG_FASTOPEN connects without connect(2), past the filter. These
// two errnos are what a kernel without TCP Fast Open gives (tcp(7)); programs
// then connect in the ordinary way. The send must not get anywhere.
func TestFastOpenIsRefused(t *testing.T) {
	for _, nonblock := range []bool{false, true} {
		fd := newSocket(t, nonblock)
		err := unix.Sendto(fd, []byte("early"), unix.MSG_FASTOPEN|unix.MSG_NOSIGNAL, &unix.SockaddrInet4{Port: 9, Addr: [4]byte{127, 0, 0, 1}})
		if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EINPROGRESS) {
			t.Errorf("sendto(MSG_FASTOPEN), nonblock %v: %v, want EOPNOTSUPP", nonblock, err)
		}
		if _, err := unix.Getpeername(fd); !errors.Is(err, unix.ENOTCONN) {
			t.Errorf("it is connected: %v", err)
		}
	}
}

// A write before connect fails as TCP's: EPIPE or ENOTCONN, with SIGPIPE if not
// suppressed.
func TestWriteOfFreshFails(t *testing.T) {
	err := unix.Sendto(newSocket(t, false), []byte("x"), unix.MSG_NOSIGNAL, nil)
	if !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.ENOTCONN) {
		t.Errorf("send on a fresh socket: %v", err)
	}
}

// State is found by the cookie, so it must be the same by every way to the
// file, and never that of another.
func TestCookieFollowsTheFile(t *testing.T) {
	fd, cookie, err := New(false)
	if err != nil {
		t.Fatal(err)
	}
	dup, err := unix.Dup(fd)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
	defer unix.Close(dup)
	if got, err := Cookie(dup); err != nil || got != cookie {
		t.Errorf("cookie of the duplicate: %d, %v, want %d", got, err, cookie)
	}
	if got, _ := Cookie(newSocket(t, false)); got == cookie {
		t.Error("two sockets have one cookie")
	}
	if _, err := Cookie(0); !errors.Is(err, unix.ENOTSOCK) {
		t.Errorf("cookie of what is no socket: %v, want ENOTSOCK", err)
	}
}

// O_NONBLOCK is a flag of the file and is set before the program has it.
func TestNonblocking(t *testing.T) {
	for _, want := range []bool{false, true} {
		fd := newSocket(t, want)
		if Nonblocking(fd) != want {
			t.Errorf("New(%v) is not so", want)
		}
		if err := syscall.SetNonblock(fd, !want); err != nil {
			t.Fatal(err)
		}
		if Nonblocking(fd) == want {
			t.Error("a change of O_NONBLOCK is not seen")
		}
	}
}
