package launcher

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// The libraries of --via zpoline: the loader is preloaded, and loads the hook.
const (
	loaderName = "libpoemq-zpoline.so"
	hookName   = "libpoemq-hook.so"
)

// zpoline becomes the program with the libraries in it.
func zpoline(o Options, cmd command, in inherited) error {
	if err := catchable(cmd); err != nil {
		return err
	}
	loader, hook, err := findLibraries(o.Zpoline)
	if err != nil {
		return err
	}
	var id [16]byte
	if _, err := rand.Read(id[:]); err != nil {
		return &Error{What: "session", Err: err}
	}
	broker, err := brokerOf(o, cmd, in, id)
	if err != nil {
		return err
	}
	if broker == "" { // plain, which has been said
		return cmd.exec(in)
	}
	missing := MissingFail
	if o.OnBrokerMissing == MissingPlain {
		missing = MissingPlain
	}
	cmd.env = with(cmd.env, "LD_PRELOAD", preload(loader, cmd.env))
	if missing == MissingFail && value(cmd.env, "POEMQ_ZPOLINE") == "" {
		cmd.env = with(cmd.env, "POEMQ_ZPOLINE", "must") // rather than TCP that nobody asked for
	}
	for _, v := range [][2]string{
		{"LIBZPHOOK", hook},
		{"POEMQ_BROKER", broker},
		{"POEMQ_SESSION", hex.EncodeToString(id[:])},
		{"POEMQ_MATCH", matchText(o)},
		{"POEMQ_QUIC", o.Quic},
		{"POEMQ_NAME", cmd.base()},
		{"POEMQ_ON_BROKER_MISSING", missing},
	} {
		cmd.env = with(cmd.env, v[0], v[1])
	}
	return cmd.exec(in)
}

// brokerOf is the path of the broker that the program's processes go to: the
// given one, or a private one's own door. Empty: none, and that is wanted.
func brokerOf(o Options, cmd command, in inherited, id [16]byte) (string, error) {
	conn, err := dial(o.Broker)
	if err == nil {
		defer unix.Close(conn)
		if err := introduce(conn, -1, o, cmd, id); err != nil {
			return "", err
		}
		path, err := filepath.Abs(o.Broker) // the program may change its directory
		if err != nil {
			return "", &Error{What: "broker", On: o.Broker, Err: err}
		}
		return path, nil
	}
	switch {
	case !errors.Is(err, errBrokerMissing) || o.OnBrokerMissing == MissingFail:
		return "", err
	case o.OnBrokerMissing == MissingPlain:
		warn("broker: " + o.Broker + ": " + errBrokerMissing.Error() + "; going on over plain TCP")
		return "", nil
	}
	poemqd, err := findPoemqd(o.Poemqd, cmd.env)
	if err != nil {
		return "", err
	}
	path, door, err := openDoor()
	if err != nil {
		return "", err
	}
	defer unix.Close(door)
	if conn, err = startPrivate(poemqd, cmd.env, in); err == nil {
		defer unix.Close(conn)
		err = introduce(conn, door, o, cmd, id)
	}
	if err != nil {
		os.RemoveAll(filepath.Dir(path))
		return "", err
	}
	return path, nil
}

// openDoor listens where the program's processes can come, whatever user they
// have become. The session's id, not the path, decides who is let in. The
// private broker removes it.
func openDoor() (path string, door int, err error) {
	fail := func(err error) (string, int, error) {
		return "", -1, &Error{What: "embedded broker", On: "its socket", Err: err}
	}
	for _, dir := range []string{os.Getenv("XDG_RUNTIME_DIR"), "/run", os.TempDir()} {
		if dir == "" {
			continue
		}
		if dir, err = os.MkdirTemp(dir, "poemq-door-"); err == nil {
			path = filepath.Join(dir, "s")
			break
		}
	}
	if err != nil {
		return fail(err)
	}
	if door, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return fail(err)
	}
	err = errors.Join(os.Chmod(filepath.Dir(path), 0o711), unix.Bind(door, &unix.SockaddrUnix{Name: path}),
		os.Chmod(path, 0o666), unix.Listen(door, unix.SOMAXCONN))
	if err != nil {
		unix.Close(door)
		os.RemoveAll(filepath.Dir(path))
		return fail(err)
	}
	return path, door, nil
}

// introduce says hello for the program that this process becomes, and gives a
// private broker the door for all others (docs/hook.md); -1: there is none.
func introduce(conn, door int, o Options, cmd command, id [16]byte) error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return &Error{What: "embedded broker", Err: err}
	}
	defer unix.Close(pair[0])
	h, fds := hello(os.Getpid(), o, cmd.base(), id), []int{pair[1]}
	if door >= 0 {
		h[31] |= helloDoor
		fds = append(fds, door)
	}
	err = unix.Sendmsg(conn, h, unix.UnixRights(fds...), nil, unix.MSG_NOSIGNAL)
	unix.Close(pair[1])
	if err != nil {
		return brokerError(os.NewSyscallError("sendmsg", err))
	}
	if err := setPatience(pair[0]); err != nil {
		return &Error{What: "embedded broker", Err: err}
	}
	answer := make([]byte, 1024)
	n, err := unix.Read(pair[0], answer)
	for errors.Is(err, unix.EINTR) {
		n, err = unix.Read(pair[0], answer)
	}
	switch {
	case err != nil:
		return brokerError(os.NewSyscallError("read", err))
	case n == 0:
		return brokerError(errWentAway)
	case n < sizeAnswer:
		return &Error{What: "broker", Why: "it gave an answer this version does not understand", Hint: "install poemqd and poemq-launch of the same version"}
	case binary.NativeEndian.Uint32(answer) != answerWelcome:
		return &Error{What: "broker", Why: "it refused: " + string(answer[sizeAnswer:n])}
	}
	return nil
}

// Of zpoline/hook_wire.h.
const (
	helloVersion  = 1
	helloEnd      = 1
	helloDoor     = 4
	sizeHello     = 32
	sizeAnswer    = 120
	answerWelcome = 1
	mostName      = 64
	mostMatches   = 32
)

var quicNumbers = map[string]byte{"": 0, QuicRequire: 1, QuicPrefer: 2, QuicOff: 3}

func hello(pid int, o Options, name string, id [16]byte) []byte {
	if len(name) > mostName {
		name = name[:mostName]
	}
	ne := binary.NativeEndian
	b := make([]byte, sizeHello)
	copy(b, "pmqh")
	ne.PutUint16(b[4:], helloVersion)
	ne.PutUint16(b[6:], uint16(sizeHello+12*len(o.Matches)+len(name)))
	copy(b[8:], id[:])
	ne.PutUint32(b[24:], uint32(pid))
	b[28], b[29], b[30], b[31] = quicNumbers[o.Quic], byte(len(o.Matches)), byte(len(name)), helloEnd
	for _, m := range o.Matches {
		b = ne.AppendUint32(ne.AppendUint32(ne.AppendUint32(b, m.Domain), m.Type), m.Proto)
	}
	return append(b, name...)
}

// matchText is POEMQ_MATCH.
func matchText(o Options) string {
	var all []string
	for _, m := range o.Matches {
		all = append(all, m.String())
	}
	return strings.Join(all, ";")
}

// findLibraries finds the loader (the given one, or ours) and the hook.
func findLibraries(given string) (loader, hook string, err error) {
	var dirs []string
	if given != "" {
		dirs = append(dirs, filepath.Dir(given))
	}
	if exe := self(); exe != "" {
		dir := filepath.Dir(exe)
		dirs = append(dirs, dir, filepath.Join(dir, "../lib/poemq"), filepath.Join(dir, "../lib/x86_64-linux-gnu/poemq"))
	}
	dirs = append(dirs, "/usr/lib/poemq", "/usr/lib/x86_64-linux-gnu/poemq")
	if loader, err = findLibrary(given, loaderName, dirs); err == nil {
		hook, err = findLibrary("", hookName, dirs)
	}
	return loader, hook, err
}

func findLibrary(given, name string, dirs []string) (string, error) {
	var places []string
	if given != "" {
		places = []string{given}
	} else {
		for _, d := range dirs {
			places = append(places, filepath.Join(d, name))
		}
	}
	for _, p := range places {
		if p, err := filepath.Abs(p); err == nil && unix.Access(p, unix.R_OK) == nil {
			if strings.ContainsAny(p, " :") {
				return "", &Error{What: "--via zpoline", On: p, Why: "LD_PRELOAD takes no path with blanks or colons", Hint: "install it elsewhere"}
			}
			return p, nil
		}
	}
	return "", &Error{What: "--via zpoline", On: name, Why: "not found in " + strings.Join(places, ", "), Hint: "install it, name the loader with --zpoline-loader, or use --via seccomp"}
}

// preload is LD_PRELOAD with the loader first, once.
func preload(loader string, env []string) string {
	all := []string{loader}
	for _, p := range strings.FieldsFunc(value(env, "LD_PRELOAD"), func(r rune) bool { return r == ' ' || r == ':' }) {
		if p != loader {
			all = append(all, p)
		}
	}
	return strings.Join(all, ":")
}

func value(env []string, name string) string {
	for _, v := range env {
		if text, ok := strings.CutPrefix(v, name+"="); ok {
			return text
		}
	}
	return ""
}

// with is env with name set to text, or without it when that is empty.
func with(env []string, name, text string) []string {
	var out []string
	for _, v := range env {
		if !strings.HasPrefix(v, name+"=") {
			out = append(out, v)
		}
	}
	if text != "" {
		out = append(out, name+"="+text)
	}
	return out
}

// tooMany tells of more matches than the hook takes.
func (o *Options) tooMany() error {
	if o.Via == ViaSeccomp || len(o.Matches) <= mostMatches {
		return nil
	}
	return &Error{What: "--match", Why: strconv.Itoa(len(o.Matches)) + " are more than " + strconv.Itoa(mostMatches), Hint: "use --via seccomp"}
}
