package handover

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const whole = `{"ociVersion":"1.0.2","fds":["seccompFd"],"pid":7,"metadata":"{\"poemq\":1,\"quic\":\"require\",\"cmd\":\"nc\"}","state":{"ociVersion":"1.0.2","id":"box","status":"creating","bundle":"/b"}}`

func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		whole, whole[:40], whole + "\n", whole + "{}", "", " ", "null", "7", "[]", `{"fds":7}`,
		`{"metadata":"{\"poemq\":2}"}`, `{"metadata":"somebody else's"}`, `{"metadata":"{\"poemq\":1,\"match\":[[2,1,6]]}"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		h, err := Decode(data)
		if (h == nil) == (err == nil) {
			t.Fatalf("%v, %v", h, err)
		}
		if err != nil {
			return
		}
		if h.Listener != -1 || h.Meta.Version > 1 || !json.Valid(data) {
			t.Errorf("%+v of %q", h, data)
		}
		// It may come in pieces: the beginning of an object is never refused.
		if data[0] == '{' {
			for _, n := range []int{1, len(data) / 2} {
				if _, err := Decode(data[:n]); err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Errorf("the first %d bytes: %v", n, err)
				}
			}
		}
	})
}

// pair is a connection as from a container runtime, and what Receive reads.
func pair(t *testing.T) (runtime int, c *net.UnixConn) {
	t.Helper()
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(p[1]), "agent")
	conn, err := net.FileConn(f)
	f.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return p[0], conn.(*net.UnixConn)
}

// message is one sendmsg with so many descriptors.
type message struct {
	text string
	fds  int
}

func TestReceive(t *testing.T) {
	two := strings.Replace(whole, `["seccompFd"]`, `["other","seccompFd"]`, 1)
	for name, c := range map[string]struct {
		sent     []message
		stay     bool   // the connection is kept open, as by older runc
		err      string // in the error; empty for none
		listener int    // which descriptor is kept
	}{
		"in one message":       {sent: []message{{whole, 1}}},
		"kept open":            {sent: []message{{whole, 1}}, stay: true},
		"in pieces":            {sent: []message{{whole[:1], 1}, {whole[1:70], 0}, {whole[70:], 0}}, stay: true},
		"surplus":              {sent: []message{{whole, 5}}},
		"surplus later":        {sent: []message{{whole[:9], 1}, {whole[9:], 3}}},
		"named second":         {sent: []message{{two, 2}}, listener: 1},
		"named but not there":  {sent: []message{{two, 1}}, err: "only 1 descriptors came"},
		"none":                 {sent: []message{{whole, 0}}, err: "only 0 descriptors came"},
		"not named":            {sent: []message{{`{"fds":["other"]}`, 1}}, err: "no seccompFd"},
		"nothing at all":       {err: "closed before anything came"},
		"half":                 {sent: []message{{whole[:50], 2}}, err: "closed half-way, after 50 bytes"},
		"no JSON":              {sent: []message{{"hello", 1}}, stay: true, err: "not a containerProcessState"},
		"more follows":         {sent: []message{{whole + "{}", 1}}, stay: true, err: "follow"},
		"too many descriptors": {sent: []message{{whole, 40}}, stay: true, err: "more than 16"},
		"too many in all":      {sent: []message{{whole[:9], 10}, {whole[9:], 10}}, stay: true, err: "more than 16"},
		"too large":            {sent: []message{{`{"x":"`, 1}, {strings.Repeat("y", MaxSize), 0}}, stay: true, err: "longer than"},
		"of another version":   {sent: []message{{`{"metadata":"{\"poemq\":2}"}`, 1}}, err: "version 2"},
	} {
		t.Run(name, func(t *testing.T) { receiveCase(t, c.sent, c.stay, c.err, c.listener) })
	}
}

func receiveCase(t *testing.T, sent []message, stay bool, want string, listener int) {
	runtime, conn := pair(t)
	var hup []int // the other ends of what was sent, in order
	sending := make(chan struct{})
	var pipes [][2]int
	for _, m := range sent {
		for range m.fds {
			var p [2]int
			if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
				t.Fatal(err)
			}
			pipes = append(pipes, p)
			hup = append(hup, p[0])
			defer unix.Close(p[0])
		}
	}
	go func() {
		defer close(sending)
		left := pipes
		for _, m := range sent {
			var rights []int
			for _, p := range left[:m.fds] {
				rights = append(rights, p[1])
			}
			left = left[m.fds:]
			var oob []byte
			if len(rights) > 0 {
				oob = unix.UnixRights(rights...)
			}
			for text := []byte(m.text); len(text) > 0; oob = nil {
				n, err := unix.SendmsgN(runtime, text, oob, nil, unix.MSG_NOSIGNAL)
				if err != nil {
					break // refused half-way
				}
				text = text[n:]
			}
			for _, fd := range rights {
				unix.Close(fd)
			}
		}
		if !stay {
			unix.Close(runtime)
		}
	}()
	began := time.Now()
	h, err := Receive(conn)
	conn.Close()
	<-sending
	if stay {
		unix.Close(runtime)
	}
	if time.Since(began) > Timeout/2 {
		t.Error("it waited for more than there was to come")
	}
	if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
		t.Fatalf("error %v, want %q", err, want)
	}
	for i, fd := range hup {
		open := want == "" && i == listener
		if open == hungUp(t, fd) {
			t.Errorf("descriptor %d is open: %v, want %v", i, !open, open)
		}
	}
	if err != nil {
		return
	}
	if h.State.Pid != 7 || h.State.State.ID != "box" || h.Meta.Quic != "require" || h.Meta.Cmd != "nc" {
		t.Errorf("%+v", h)
	}
	unix.Close(h.Listener)
	if !hungUp(t, hup[listener]) {
		t.Error("the listener was not the only copy")
	}
}

func hungUp(t *testing.T, fd int) bool {
	t.Helper()
	p := []unix.PollFd{{Fd: int32(fd)}}
	if _, err := unix.Poll(p, 0); err != nil {
		t.Fatal(err)
	}
	return p[0].Revents&unix.POLLHUP != 0
}

func TestReply(t *testing.T) {
	for want, refused := range map[string]error{
		`{"poemq":1,"ok":true}` + "\n":      nil,
		`{"poemq":1,"error":"no\n"}` + "\n": errors.New("no\n"),
	} {
		launcher, conn := pair(t)
		if err := Reply(conn, refused); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 100)
		n, err := unix.Read(launcher, b)
		if err != nil || string(b[:n]) != want {
			t.Errorf("answer %q, %v, want %q", b[:max(n, 0)], err, want)
		}
		unix.Close(launcher)
	}
}
