// Package handover is the way a seccomp listener reaches the broker: the OCI
// runtime specification's agent protocol, which runc, crun and poemq-launch
// all speak.
//
// One connection over a UNIX stream socket carries one containerProcessState
// (JSON) with descriptors by SCM_RIGHTS on its first message; the array fds
// names them in order. The state is acted on as soon as it is complete: older
// runc keeps the connection open afterwards. poemq-launch, known by its
// metadata, is answered with one line of JSON; runtimes expect no answer.
package handover

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Limits of what is taken from a connection.
const (
	MaxSize = 1 << 20 // bytes of JSON
	maxFds  = 16      // descriptors; the kernel allows 253
	Timeout = 10 * time.Second
)

// Metadata is what poemq-launch tells of itself in listenerMetadata. Container
// engines pass the string of the seccomp profile on, so that it may be written
// there too.
type Metadata struct {
	// Version is 1; 0 means that the metadata is not ours.
	Version int `json:"poemq"`
	// Quic is require, prefer or off; empty means as the broker is configured.
	Quic string `json:"quic,omitempty"`
	// Match lists domain, type, protocol of the sockets that are substituted;
	// empty means the default.
	Match [][3]int `json:"match,omitempty"`
	// NetNS tells that the filter traps setns(2) and unshare(2) of the network
	// namespace.
	NetNS bool `json:"netns,omitempty"`
	// Cmd names the program in logs.
	Cmd string `json:"cmd,omitempty"`
	// Keeper is that the sender stays to keep the session for the next broker,
	// and Kept how many descriptors it brings behind the answer, of the broker
	// before.
	Keeper bool `json:"keeper,omitempty"`
	Kept   int  `json:"kept,omitempty"`
}

// Handover is one session's beginning.
type Handover struct {
	State specs.ContainerProcessState
	Meta  Metadata
	// Listener is the seccomp listener fd, the receiver's to close.
	Listener int
}

// Receive reads one handover from c. On error every descriptor that came is
// closed, and c is left to the caller.
func Receive(c *net.UnixConn) (*Handover, error) {
	if err := c.SetReadDeadline(time.Now().Add(Timeout)); err != nil {
		return nil, err
	}
	var fds []int
	h, err := receive(c, &fds)
	if err == nil {
		h.Listener, fds, err = pick(&h.State, fds)
	}
	closeAll(fds) // surplus ones, or all
	if err != nil {
		return nil, fmt.Errorf("handover: %w", err)
	}
	return h, nil
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

func receive(c *net.UnixConn, fds *[]int) (*Handover, error) {
	var data []byte
	buf := make([]byte, 64<<10)
	oob := make([]byte, unix.CmsgSpace(4*maxFds))
	for {
		n, oobn, flags, _, err := c.ReadMsgUnix(buf, oob)
		got, perr := rights(oob[:oobn])
		*fds = append(*fds, got...)
		data = append(data, buf[:n]...)
		switch {
		case perr != nil:
			return nil, perr
		case flags&unix.MSG_CTRUNC != 0 || len(*fds) > maxFds:
			return nil, fmt.Errorf("more than %d descriptors came with it", maxFds)
		case len(data) > MaxSize:
			return nil, fmt.Errorf("longer than %d bytes", MaxSize)
		}
		if n > 0 {
			h, derr := Decode(data)
			if derr == nil || !errors.Is(derr, io.ErrUnexpectedEOF) {
				return h, derr
			}
		}
		if err != nil || n == 0 {
			return nil, ended(len(data), err)
		}
	}
}

func ended(n int, err error) error {
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		return fmt.Errorf("after %d bytes: %w", n, err)
	case n == 0:
		return errors.New("closed before anything came (a container runtime that failed to start does this)")
	}
	return fmt.Errorf("closed half-way, after %d bytes", n)
}

func rights(oob []byte) ([]int, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("control message: %w", err)
	}
	var all []int
	for i := range msgs {
		if fds, err := unix.ParseUnixRights(&msgs[i]); err == nil {
			all = append(all, fds...)
		}
	}
	return all, nil
}

// Decode parses one containerProcessState. io.ErrUnexpectedEOF: data is the
// beginning of one. What follows a complete state is refused.
func Decode(data []byte) (*Handover, error) {
	h := &Handover{Listener: -1}
	if len(bytes.TrimSpace(data)) == 0 {
		return nil, io.ErrUnexpectedEOF
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(&h.State); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, err
		}
		return nil, fmt.Errorf("not a containerProcessState: %w", err)
	}
	if rest := bytes.TrimSpace(data[dec.InputOffset():]); len(rest) > 0 {
		return nil, fmt.Errorf("%d bytes follow the containerProcessState", len(rest))
	}
	if h.State.Metadata != "" {
		// Metadata that is not ours belongs to somebody else's profile.
		if err := json.Unmarshal([]byte(h.State.Metadata), &h.Meta); err != nil {
			h.Meta = Metadata{}
		}
	}
	if h.Meta.Version > 1 {
		return nil, fmt.Errorf("poemq-launch speaks version %d of the metadata, this poemqd 1", h.Meta.Version)
	}
	return h, nil
}

// pick takes the listener from fds by its name and returns the rest.
func pick(st *specs.ContainerProcessState, fds []int) (int, []int, error) {
	for i, name := range st.Fds {
		if name != specs.SeccompFdName {
			continue
		}
		if i >= len(fds) {
			return -1, fds, fmt.Errorf("%s is announced, but only %d descriptors came", name, len(fds))
		}
		fd := fds[i]
		return fd, append(append([]int{}, fds[:i]...), fds[i+1:]...), nil
	}
	return -1, fds, fmt.Errorf("no %s among its descriptors %q", specs.SeccompFdName, st.Fds)
}

// Answer is the one line that poemq-launch waits for.
type Answer struct {
	Version int    `json:"poemq"`
	OK      bool   `json:"ok,omitempty"`
	Error   string `json:"error,omitempty"`
	Kept    bool   `json:"kept,omitempty"` // a keeper is not needed
}

// Reply answers a handover on c; refused is nil for yes.
func Reply(c *net.UnixConn, refused error) error { return reply(c, refused, false) }

// ReplyKept says yes to a keeper that is not needed.
func ReplyKept(c *net.UnixConn) error { return reply(c, nil, true) }

func reply(c *net.UnixConn, refused error, kept bool) error {
	a := Answer{Version: 1, OK: refused == nil, Kept: kept}
	if refused != nil {
		a.Error = refused.Error()
	}
	line, err := json.Marshal(a)
	if err != nil {
		return err
	}
	if err := c.SetWriteDeadline(time.Now().Add(Timeout)); err != nil {
		return err
	}
	_, err = c.Write(append(line, '\n'))
	return err
}
