package launcher

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"strconv"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// The keeper is a process of its own between the launcher and the broker. It
// takes the launcher's handover, makes it to the broker in the launcher's place,
// and stays: it holds the listener and whatever the broker gives it, and hands
// all of it over again when the broker's socket comes back. It ends with the last
// task under the filter.
//
// On the connection that the handover was made on, the broker then sends lines
// (broker/keeper.go):
//
//	+NAME   with a descriptor: keep it
//	-NAME   let go of it
//	?       answered by "!" when everything before is done
//
// A handover that is made again says in its metadata how many descriptors come
// behind the answer, each as a line "+NAME".

// startKeeper starts one, gives it the connection to the broker and returns one
// to it, which is used in that one's place.
func startKeeper(broker string, conn int, env []string, in inherited) (int, error) {
	defer unix.Close(conn)
	exe := self()
	if exe == "" {
		return -1, &Error{What: "keeper", Why: "this program's own file cannot be told", Hint: "/proc has to be mounted"}
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, &Error{What: "keeper", Err: err}
	}
	args := []string{exe, "--keep-fd", strconv.Itoa(handedFD), "--broker", broker}
	_, err = spawn(exe, args, env, in, pair[1], true)
	unix.Close(pair[1])
	if err != nil {
		unix.Close(pair[0])
		return -1, &Error{What: "keeper", On: exe, Err: err}
	}
	if err := send(pair[0], conn, []byte(firstWord)); err != nil {
		unix.Close(pair[0])
		return -1, &Error{What: "keeper", On: exe, Err: err}
	}
	return pair[0], nil
}

// firstWord comes with the connection to the broker, before the message.
const firstWord = "K"

// keeper is one session's.
type keeper struct {
	broker   string
	state    specs.ContainerProcessState
	listener int
	conn     int // that the launcher made; -1 after its use
	kept     []keptFile
}

type keptFile struct {
	name string
	fd   int
}

// keep is the keeper's life; fd is the launcher's end.
func keep(broker string, fd int) error {
	k := keeper{broker: broker, listener: -1, conn: -1}
	if err := k.receive(fd); err != nil {
		return &Error{What: "keeper", On: "the launcher", Err: err}
	}
	conn, line, err := k.handOver()
	if err != nil {
		line, _ = json.Marshal(answer{Poemq: 1, Error: err.Error()})
	}
	_, werr := unix.Write(fd, append(line, '\n'))
	unix.Close(fd)
	if err != nil || werr != nil {
		return nil // told to the launcher, or nobody is there to be told
	}
	for conn >= 0 && k.serve(conn) {
		unix.Close(conn)
		conn = k.handOverAgain()
	}
	return nil
}

// answer is the broker's to a handover.
type answer struct {
	Poemq int    `json:"poemq"`
	OK    bool   `json:"ok,omitempty"`
	Error string `json:"error,omitempty"`
	// Kept is that the broker has somebody else keep the session.
	Kept bool `json:"kept,omitempty"`
}

// receive takes the launcher's message and the listener.
func (k *keeper) receive(fd int) error {
	var in incoming
	for {
		if err := in.read(fd); err != nil {
			return err
		}
		if text, ok := bytes.CutPrefix(in.data, []byte(firstWord)); ok && json.Unmarshal(text, &k.state) == nil {
			break
		}
	}
	if len(in.fds) != 2 {
		return errors.New("no connection or no listener came with the message")
	}
	k.conn, k.listener = in.fds[0], in.fds[1]
	return nil
}

// handOver makes the handover to the broker and returns the connection, -1 when
// the broker needs nobody to keep the session, and the answer.
func (k *keeper) handOver() (conn int, line []byte, err error) {
	if conn = k.conn; conn >= 0 {
		k.conn = -1
	} else if conn, err = dial(k.broker); err != nil {
		return -1, nil, err
	}
	defer func() {
		if err != nil {
			unix.Close(conn)
			conn = -1
		}
	}()
	message, err := k.message()
	if err != nil {
		return -1, nil, err
	}
	if err := send(conn, k.listener, message); err != nil {
		return -1, nil, err
	}
	if line, err = readLine(conn); err != nil {
		return -1, nil, err
	}
	var a answer
	switch err := json.Unmarshal(line, &a); {
	case err != nil:
		return -1, nil, err
	case !a.OK:
		return -1, nil, errors.New("the broker refused: " + a.Error)
	case a.Kept:
		unix.Close(conn)
		return -1, line, nil
	}
	for _, f := range k.kept {
		if err := send(conn, f.fd, []byte("+"+f.name+"\n")); err != nil {
			return -1, nil, err
		}
	}
	return conn, line, nil
}

// message is the launcher's, with how much is kept.
func (k *keeper) message() ([]byte, error) {
	var md metadata
	if err := json.Unmarshal([]byte(k.state.Metadata), &md); err != nil {
		return nil, err
	}
	md.Keeper, md.Kept = true, len(k.kept)
	text, err := json.Marshal(md)
	if err != nil {
		return nil, err
	}
	st := k.state
	st.Metadata = string(text)
	return json.Marshal(st)
}

const (
	firstRetry = 10 * time.Millisecond
	lastRetry  = 200 * time.Millisecond
)

// handOverAgain waits for a broker; -1 when there is nothing to keep any more.
func (k *keeper) handOverAgain() int {
	told := ""
	for pause := firstRetry; !k.ended(); pause = min(2*pause, lastRetry) {
		conn, _, err := k.handOver()
		if err == nil {
			return conn
		}
		if why := err.Error(); why != told && !errors.Is(err, errBrokerMissing) {
			told = why
			warn("keeper: " + why)
		}
		time.Sleep(pause) // nobody tells when the socket is there
	}
	return -1
}

// ended reports that no task is under the filter any more.
func (k *keeper) ended() bool {
	p := []unix.PollFd{{Fd: int32(k.listener)}}
	n, err := unix.Poll(p, 0)
	return err == nil && n == 1 && p[0].Revents&(unix.POLLHUP|unix.POLLNVAL) != 0
}

// serve does what the broker asks. It reports true when the broker is gone, and
// false when the tasks are.
func (k *keeper) serve(conn int) bool {
	var in incoming
	for {
		p := []unix.PollFd{{Fd: int32(conn), Events: unix.POLLIN}, {Fd: int32(k.listener)}}
		if _, err := unix.Poll(p, -1); err != nil && err != unix.EINTR {
			return false
		}
		if p[1].Revents&(unix.POLLHUP|unix.POLLNVAL) != 0 {
			return false
		}
		if p[0].Revents == 0 {
			continue
		}
		if in.read(conn) != nil {
			return true
		}
		for {
			i := bytes.IndexByte(in.data, '\n')
			if i < 0 {
				break
			}
			line := string(in.data[:i])
			in.data = in.data[i+1:]
			if !k.obey(conn, line, &in) {
				return true
			}
		}
	}
}

// obey does what one line asks; false: the connection is of no more use.
func (k *keeper) obey(conn int, line string, in *incoming) bool {
	switch {
	case line == "?":
		_, err := unix.Write(conn, []byte("!\n"))
		return err == nil
	case len(line) < 2:
		return false
	case line[0] == '+' && len(in.fds) > 0:
		k.kept = append(k.kept, keptFile{line[1:], in.fds[0]})
		in.fds = in.fds[1:]
	case line[0] == '-':
		rest := k.kept[:0]
		for _, f := range k.kept {
			if f.name == line[1:] {
				unix.Close(f.fd)
				continue
			}
			rest = append(rest, f)
		}
		k.kept = rest
	default:
		return false
	}
	return true
}

// incoming is what came on a connection and was not used yet.
type incoming struct {
	data []byte
	fds  []int
}

// read adds what comes next. The end is an error.
func (in *incoming) read(fd int) error {
	buf, oob := make([]byte, 16<<10), make([]byte, unix.CmsgSpace(4*16))
	for {
		n, oobn, _, _, err := unix.Recvmsg(fd, buf, oob, unix.MSG_CMSG_CLOEXEC)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return os.NewSyscallError("recvmsg", err)
		case n == 0:
			return errWentAway
		}
		in.data = append(in.data, buf[:n]...)
		messages, err := unix.ParseSocketControlMessage(oob[:oobn])
		if err != nil {
			return err
		}
		for i := range messages {
			if fds, err := unix.ParseUnixRights(&messages[i]); err == nil {
				in.fds = append(in.fds, fds...)
			}
		}
		return nil
	}
}
