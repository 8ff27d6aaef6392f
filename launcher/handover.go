package launcher

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/poemq/poemq/launcher/filter"
	"golang.org/x/sys/unix"
)

// patience is how long the broker may take for a connection and for its answer,
// in seconds.
const patience = 30

// dial connects to the broker's socket. It is done before the filter is loaded,
// which traps connect. The caller closes the fd.
func dial(path string) (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, &Error{What: "broker", On: path, Err: err}
	}
	if err := setPatience(fd); err == nil {
		err = connect(fd, path)
		if err == nil {
			return fd, nil
		}
		unix.Close(fd)
		return -1, dialError(path, err)
	}
	unix.Close(fd)
	return -1, &Error{What: "broker", On: path, Err: err}
}

func connect(fd int, path string) error {
	for {
		err := unix.Connect(fd, &unix.SockaddrUnix{Name: path})
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func setPatience(fd int) error {
	tv := unix.Timeval{Sec: patience}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv); err != nil {
		return err
	}
	return unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
}

// errBrokerMissing is for a socket that does not exist or that nobody serves.
var errBrokerMissing = errors.New("no broker is running there")

func dialError(path string, err error) error {
	e := &Error{What: "broker", On: path, Err: err}
	switch {
	case errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ECONNREFUSED):
		e.Err = errBrokerMissing
		e.Hint = "start poemqd, name its socket with --broker, or allow --on-broker-missing embedded"
	case errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM):
		e.Err = unix.EACCES
		e.Hint = "join the group that owns the socket, or name your own broker's with --broker"
	case errors.Is(err, unix.EAGAIN):
		e.Why, e.Err = "the broker does not accept connections", nil
		e.Hint = "look into poemqd's log"
	case errors.Is(err, unix.EINVAL):
		e.Why, e.Hint = "no valid socket path", "it may have at most 107 bytes"
	case errors.Is(err, unix.EPROTOTYPE):
		e.Hint = "this is not a broker's socket"
	}
	return e
}

// metadata is what poemq adds to the OCI state: a JSON text inside the JSON.
type metadata struct {
	Poemq int         `json:"poemq"` // version of this format
	Quic  string      `json:"quic,omitempty"`
	Match [][3]uint32 `json:"match"`
	NetNS bool        `json:"netns"` // the filter traps what changes the network namespace
	Cmd   string      `json:"cmd"`
	// Keeper is that whoever hands over stays to keep the session for the next
	// broker; Kept is how many descriptors it has for this one.
	Keeper bool `json:"keeper,omitempty"`
	Kept   int  `json:"kept,omitempty"`
}

// state makes the message of an OCI seccomp agent (runtime-spec,
// config-linux.md, "The Container Process State").
func state(pid int, quic string, matches []filter.Match, cmd string) ([]byte, error) {
	md := metadata{Poemq: 1, Quic: quic, Match: [][3]uint32{}, NetNS: true, Cmd: cmd}
	for _, m := range filter.Unique(matches) {
		md.Match = append(md.Match, [3]uint32{m.Domain, m.Type, m.Proto})
	}
	text, err := json.Marshal(md)
	if err != nil {
		return nil, err
	}
	const version = "1.0.2"
	return json.Marshal(specs.ContainerProcessState{
		Version:  version,
		Fds:      []string{specs.SeccompFdName},
		Pid:      pid,
		Metadata: string(text),
		State: specs.State{
			Version: version, ID: "poemq-" + strconv.Itoa(pid), Status: specs.StateCreating, Pid: pid, Bundle: "/",
		},
	})
}

// handover gives the listener to the broker on conn and waits for its answer.
// From here on the filter is loaded: only sendmsg and read are called. The
// caller closes both fds.
func handover(conn, listener int, message []byte) error {
	if err := send(conn, listener, message); err != nil {
		return brokerError(err)
	}
	line, err := readLine(conn)
	if err != nil {
		return brokerError(err)
	}
	var answer struct {
		Poemq int    `json:"poemq"`
		OK    bool   `json:"ok"`
		Error string `json:"error"`
	}
	switch err := json.Unmarshal(line, &answer); {
	case err != nil || answer.Poemq != 1:
		return &Error{What: "broker", Why: "it gave an answer this version does not understand: " + strconv.Quote(string(line)), Hint: "install poemqd and poemq-launch of the same version"}
	case answer.Error != "":
		return &Error{What: "broker", Why: "it refused: " + answer.Error}
	case !answer.OK:
		return &Error{What: "broker", Why: "it refused without a reason", Hint: "look into poemqd's log"}
	}
	return nil
}

// send writes the message, with the listener on its first part.
func send(conn, listener int, message []byte) error {
	rights := unix.UnixRights(listener)
	for len(message) > 0 {
		n, err := unix.SendmsgN(conn, message, rights, nil, unix.MSG_NOSIGNAL)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return os.NewSyscallError("sendmsg", err)
		}
		message, rights = message[n:], nil
	}
	return nil
}

var errWentAway = errors.New("it went away before it answered")

// readLine reads one line of at most 64 KiB.
func readLine(conn int) ([]byte, error) {
	var line []byte
	buf := make([]byte, 4096)
	for len(line) < 64<<10 {
		n, err := unix.Read(conn, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, os.NewSyscallError("read", err)
		}
		if n == 0 {
			return nil, errWentAway
		}
		line = append(line, buf[:n]...)
		if i := bytes.IndexByte(line, '\n'); i >= 0 {
			return line[:i], nil
		}
	}
	return nil, errors.New("its answer has no end")
}

func brokerError(err error) error {
	e := &Error{What: "broker", Err: err, Hint: "look into poemqd's log"}
	switch {
	case errors.Is(err, unix.EAGAIN):
		e.Err, e.Why = nil, "no answer within "+strconv.Itoa(patience)+" s"
	case errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET):
		e.Err = errWentAway
	}
	return e
}
