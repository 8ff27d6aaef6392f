package rig

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Store keeps a broker's descriptors from one poemqd to the next, as systemd
// does (sd_pid_notify_with_fds(3)), and the socket that sessions come in at. It
// is the Place of brokers.
type Store struct {
	// Nofile limits the brokers' descriptors; 0 leaves them what they may have.
	Nofile int

	r      *Rig
	door   *os.File
	notify *net.UnixConn
	path   string

	mu   sync.Mutex // guards what follows
	held []heldFile
}

type heldFile struct {
	name string
	fd   int
}

// NewStore makes one for the brokers of a name.
func (r *Rig) NewStore(name string) *Store {
	r.Helper()
	s := &Store{r: r, path: r.Path("notify-" + name)}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(r.Mkdir("broker-"+name, ""), "broker.sock"), Net: "unix"})
	if err != nil {
		r.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if s.door, err = l.File(); err != nil {
		r.Fatal(err)
	}
	l.Close()
	if s.notify, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: s.path, Net: "unixgram"}); err != nil {
		r.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.receive()
	}()
	r.Cleanup(func() {
		s.notify.Close()
		<-done
		s.door.Close()
		s.Release()
	})
	return s
}

// Release lets go of all that is kept, as systemd does when a unit is stopped.
func (s *Store) Release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range s.held {
		unix.Close(h.fd)
	}
	s.held = nil
}

// Names lists what is kept.
func (s *Store) Names() (names []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range s.held {
		names = append(names, h.name)
	}
	return names
}

func (s *Store) receive() {
	buf, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4*16))
	for {
		n, oobn, _, _, err := s.notify.ReadMsgUnix(buf, oob)
		if err != nil {
			return
		}
		var fds []int
		if msgs, err := unix.ParseSocketControlMessage(oob[:oobn]); err == nil {
			for i := range msgs {
				if got, err := unix.ParseUnixRights(&msgs[i]); err == nil {
					fds = append(fds, got...)
				}
			}
		}
		s.take(string(buf[:n]), fds)
	}
}

// take does what one message asks for.
func (s *Store) take(text string, fds []int) {
	said := make(map[string]string)
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		said[key] = value
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case said["FDSTORE"] == "1":
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			s.held = append(s.held, heldFile{said["FDNAME"], fd})
		}
		return
	case said["FDSTOREREMOVE"] == "1":
		rest := s.held[:0]
		for _, h := range s.held {
			if h.name == said["FDNAME"] {
				unix.Close(h.fd)
				continue
			}
			rest = append(rest, h)
		}
		s.held = rest
	}
	for _, fd := range fds { // of a barrier
		unix.Close(fd)
	}
}

// Start starts a broker with all that is kept.
func (s *Store) Start(cmd *exec.Cmd) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	names := []string{"broker"}
	cmd.ExtraFiles = []*os.File{s.door}
	for _, h := range s.held {
		fd, err := unix.FcntlInt(uintptr(h.fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return err
		}
		f := os.NewFile(uintptr(fd), h.name)
		defer f.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
		names = append(names, h.name)
	}
	cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+s.path, "LISTEN_FDS="+strconv.Itoa(len(names)), "LISTEN_FDNAMES="+strings.Join(names, ":"))
	// LISTEN_PID is the number of a process that there is not yet.
	script := `LISTEN_PID=$$ exec "$0" "$@"`
	if s.Nofile > 0 {
		script = fmt.Sprintf("ulimit -n %d; ", s.Nofile) + script
	}
	cmd.Args = append([]string{"/bin/sh", "-c", script}, cmd.Args...)
	cmd.Path = cmd.Args[0]
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("with %d descriptors: %w", len(names), err)
	}
	return nil
}
