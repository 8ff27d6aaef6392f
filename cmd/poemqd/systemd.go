package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/poemq/poemq/broker"
	"golang.org/x/sys/unix"
)

// tell tells systemd something (sd_notify(3)); without one it does nothing.
func tell(state ...string) { _, _ = daemon.SdNotify(false, strings.Join(state, "\n")) }

// tellReloading is for the beginning of a reload, whose end is READY=1.
func tellReloading() {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now)
	tell(daemon.SdNotifyReloading, "MONOTONIC_USEC="+strconv.FormatInt(now.Nano()/1000, 10))
}

// watchdog tells systemd that b is well, for as long as it is, until ctx ends.
func watchdog(ctx context.Context, b *broker.Broker) {
	every, err := daemon.SdWatchdogEnabled(false)
	if err != nil || every == 0 {
		return
	}
	tick := time.NewTicker(every / 3)
	defer tick.Stop()
	for {
		wait, cancel := context.WithTimeout(ctx, every/3)
		if b.Answers(wait) {
			tell(daemon.SdNotifyWatchdog)
		}
		cancel()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// fdStore is systemd's store of descriptors (sd_pid_notify_with_fds(3),
// FileDescriptorStoreMax= in systemd.service(5)). It sends by itself, for
// go-systemd sends no descriptors.
type fdStore struct{ fd int }

// newFDStore is nil when nobody offers one.
func newFDStore() (*fdStore, error) {
	name := os.Getenv("NOTIFY_SOCKET")
	if name == "" {
		return nil, nil
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socket(AF_UNIX): %w", err)
	}
	tv := unix.NsecToTimeval(storeTimeout.Nanoseconds())
	if err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv); err == nil {
		err = unix.Connect(fd, &unix.SockaddrUnix{Name: name}) // a leading @ is an abstract name
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("NOTIFY_SOCKET %s: %w", name, err)
	}
	return &fdStore{fd}, nil
}

// storeTimeout is how long systemd may be too busy to be told something.
const storeTimeout = 5 * time.Second

func (s *fdStore) send(text string, fds ...int) error {
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	for {
		err := unix.Sendmsg(s.fd, []byte(text), rights, nil, unix.MSG_NOSIGNAL)
		if err != unix.EINTR {
			return os.NewSyscallError("sendmsg", err)
		}
	}
}

// Store has systemd keep fd. That it hangs up shall not end that (FDPOLL=0):
// most of ours look so.
func (s *fdStore) Store(name string, fd int) error {
	return s.send("FDSTORE=1\nFDPOLL=0\nFDNAME="+name, fd)
}

func (s *fdStore) Remove(name string) error { return s.send("FDSTOREREMOVE=1\nFDNAME=" + name) }

// Sync waits until systemd has read all that was sent before.
func (s *fdStore) Sync() error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	err = s.send("BARRIER=1", int(w.Fd()))
	w.Close()
	if err != nil {
		return err
	}
	if err := r.SetReadDeadline(time.Now().Add(storeTimeout)); err != nil {
		return err
	}
	if _, err := r.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
		return errors.New("systemd does not read its notifications")
	}
	return nil // end of file: it has closed the other end
}

// given are the descriptors that systemd started us with (sd_listen_fds(3)). They
// stay numbers: an *os.File would put some of them into the poller and close
// others at its own time.
type given struct {
	sockets map[string]int // of socket units, by their name
	left    []broker.Left  // of the broker before
}

var leftName = regexp.MustCompile(`^[0-9a-f]{16}\.`)

const firstGiven = 3 // SD_LISTEN_FDS_START

func takeGiven() given {
	g := given{sockets: make(map[string]int)}
	pid, _ := strconv.Atoi(os.Getenv("LISTEN_PID"))
	n, _ := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	names := strings.Split(os.Getenv("LISTEN_FDNAMES"), ":")
	for _, v := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		os.Unsetenv(v)
	}
	if pid != os.Getpid() {
		return g
	}
	for i := range n {
		fd, name := firstGiven+i, ""
		if i < len(names) {
			name = names[i]
		}
		unix.CloseOnExec(fd)
		if leftName.MatchString(name) {
			g.left = append(g.left, broker.Left{Name: name, FD: fd})
		} else {
			g.sockets[name] = fd
		}
	}
	return g
}

// socket is the listening socket of the name, nil when there is none.
func (g given) socket(name string) (*net.UnixListener, error) {
	fd, ok := g.sockets[name]
	if !ok {
		return nil, nil
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close() // FileListener has a copy
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("socket %s of systemd's: %w", name, err)
	}
	u, ok := l.(*net.UnixListener)
	if !ok {
		l.Close()
		return nil, fmt.Errorf("socket %s of systemd's is no UNIX socket", name)
	}
	u.SetUnlinkOnClose(false)
	return u, nil
}

// keeperOf is who keeps sessions for the broker after this one; nil: nobody.
func keeperOf() (broker.Keeper, error) {
	s, err := newFDStore()
	if s == nil {
		return nil, err
	}
	return s, err
}

// door is where sessions come in: systemd's socket, or one that is made at path.
func (g given) door(path string) (*net.UnixListener, error) {
	if l, err := g.socket(doorName); l != nil || err != nil {
		return l, err
	}
	return listenUnix(path)
}

// doorName is the socket's FileDescriptorName=.
const doorName = "broker"

// goOn takes over what the broker before left.
func (r *running) goOn(left []broker.Left, log *slog.Logger) (sessions int) {
	if len(left) == 0 {
		return 0
	}
	begin := time.Now()
	sessions = r.broker.Adopt(left)
	log.Info("sessions of the broker before go on", "sessions", sessions, "descriptors", len(left), "took", time.Since(begin).Round(time.Microsecond))
	return sessions
}
