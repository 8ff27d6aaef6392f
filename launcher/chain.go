package launcher

/*
#include "inherit.h"
*/
import "C"

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// chain runs the program as a grandchild, under a poemqd that is its parent,
// and stays as a thin parent itself, so that whoever started poemq-launch has a
// process to wait for, to signal and to stop (doc.go, "Chain").
func chain(o Options, cmd command, in inherited, poemqd string) (int, error) {
	exe := self()
	if exe == "" {
		return 0, &Error{What: "embedded broker", On: "own path", Why: "unknown without /proc", Hint: "start poemq-launch with a path"}
	}
	var signals, status [2]int
	if err := pipes(&signals, &status); err != nil {
		return 0, &Error{What: "embedded broker", Err: err}
	}
	C.poemq_catch_signals(C.int(signals[1]))
	in.moved = moveAside(handedFD)
	poemqdPID, err := spawn(poemqd, chainArgs(o, in, poemqd, exe), cmd.env, in, status[1], false)
	unix.Close(status[1])
	if err != nil {
		return 0, &Error{What: "embedded broker", On: poemqd, Err: err, Hint: "name a working poemqd with --poemqd"}
	}
	letGo()
	C.poemq_set_mask(0) // what is blocked for the program is passed on to it, not kept here
	p := parent{in: in, signals: signals[0], status: status[0], poemqd: poemqdPID, pidfd: -1}
	return p.watch()
}

func pipes(ps ...*[2]int) error {
	for _, p := range ps {
		if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
			return os.NewSyscallError("pipe2", err)
		}
	}
	return nil
}

// chainArgs is poemqd's command line, with the inner launcher's in it.
func chainArgs(o Options, in inherited, poemqd, exe string) []string {
	fd := strconv.Itoa(handedFD)
	args := []string{
		poemqd, "private", "--chain", "--status-fd", fd, "--",
		exe, "--handover-fd", fd, "--inherited", in.String(), "--quic", o.Quic,
	}
	for _, m := range o.Matches {
		args = append(args, "--match", m.String())
	}
	if o.Argv0 != "" {
		args = append(args, "--argv0", o.Argv0)
	}
	return append(append(args, "--"), o.Args...)
}

// moveAside moves a descriptor that the program shall inherit out of the way of
// ours, and returns its new number, or 0 if it is not open.
func moveAside(fd int) int {
	if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC != 0 {
		return 0
	}
	const high = 10 // above the numbers that shells let people use
	moved, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD, high)
	if err != nil {
		return 0
	}
	return moved
}

// letGo closes what only the program needs: a pipe must end when it lets go of
// it. stderr stays.
func letGo() {
	if null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0); err == nil {
		_ = unix.Dup3(null, 0, unix.O_CLOEXEC)
		_ = unix.Dup3(null, 1, unix.O_CLOEXEC)
		unix.Close(null)
	}
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return
	}
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil || fd <= 2 {
			continue
		}
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 {
			unix.Close(fd) // ours are all close-on-exec
		}
	}
}

// parent is the outer launcher while the program runs.
type parent struct {
	in              inherited
	signals, status int // read ends
	poemqd          int // pid
	pid             int // the program's, once poemqd told it
	pidfd           int // the program's, or -1
	waiting         []signal
	buf             []byte // of status
}

type signal struct{ signo, code, pid int }

// watch passes signals on until poemqd tells how the program ended.
func (p *parent) watch() (int, error) {
	fds := []unix.PollFd{{Fd: int32(p.signals), Events: unix.POLLIN}, {Fd: int32(p.status), Events: unix.POLLIN}}
	for {
		if _, err := unix.Poll(fds, -1); err != nil {
			if errors.Is(err, unix.EINTR) {
				continue
			}
			return 0, &Error{What: "embedded broker", On: "poll", Err: err}
		}
		if fds[0].Revents != 0 {
			p.readSignal()
		}
		if fds[1].Revents != 0 {
			if status, done, err := p.readStatus(); done || err != nil {
				return status, err
			}
		}
	}
}

func (p *parent) readSignal() {
	var s C.struct_poemq_signal
	buf := unsafe.Slice((*byte)(unsafe.Pointer(&s)), unsafe.Sizeof(s)) // pipes pass so little whole
	if n, err := unix.Read(p.signals, buf); err == nil && n == len(buf) {
		p.signal(signal{int(s.signo), int(s.code), int(s.pid)})
	}
}

// siKernel is si_code of signals the kernel makes, by the terminal or a timer.
const siKernel = 0x80

// signal decides what becomes of one. The terminal sends its signals to the
// program by itself, being in the same process group; a timer set before
// execve(2) is not the program's here, so its signal is passed on.
func (p *parent) signal(s signal) {
	sent := s.code <= 0 || s.signo == int(unix.SIGALRM) && s.code == siKernel
	switch {
	case !sent || p.pid != 0 && s.pid == p.pid:
	case p.pid == 0:
		p.waiting = append(p.waiting, s)
		return
	default:
		p.forward(s.signo)
	}
	switch unix.Signal(s.signo) {
	case unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU:
		if p.in.ignored&(1<<(s.signo-1)) == 0 {
			C.poemq_stop_by(C.int(s.signo))
		}
	}
}

func (p *parent) forward(signo int) {
	if p.pidfd >= 0 {
		_ = unix.PidfdSendSignal(p.pidfd, unix.Signal(signo), nil, 0)
		return
	}
	_ = unix.Kill(p.pid, unix.Signal(signo))
}

// readStatus reads poemqd's lines; done means the program ended.
func (p *parent) readStatus() (status int, done bool, err error) {
	buf := make([]byte, 4096)
	n, err := unix.Read(p.status, buf)
	switch {
	case errors.Is(err, unix.EINTR):
		return 0, false, nil
	case err != nil || n == 0:
		return 0, true, p.abandoned()
	}
	p.buf = append(p.buf, buf[:n]...)
	for {
		line, rest, found := bytes.Cut(p.buf, []byte{'\n'})
		if !found {
			return 0, false, nil
		}
		p.buf = rest
		if status, done, err := p.report(line); done || err != nil {
			return status, done, err
		}
	}
}

// report handles one line. What it does not know it passes over: a newer poemqd
// may tell more.
func (p *parent) report(line []byte) (status int, done bool, err error) {
	var r struct {
		PID     int    `json:"pid"`
		Exit    *int   `json:"exit"`
		Signal  int    `json:"signal"`
		Stopped int    `json:"stopped"`
		Error   string `json:"error"`
	}
	if err := json.Unmarshal(line, &r); err != nil {
		return 0, true, &Error{What: "embedded broker", Why: "it reported what this version does not understand: " + strconv.Quote(string(line))}
	}
	switch {
	case r.Error != "":
		return 0, true, &Error{What: "embedded broker", Why: r.Error}
	case r.PID != 0:
		p.started(r.PID)
	case r.Exit != nil:
		return *r.Exit, true, nil
	case r.Signal != 0:
		C.poemq_die_by(C.int(r.Signal))
		return 128 + r.Signal, true, nil // not reached but for signals that do not kill
	case r.Stopped != 0 && p.stopped():
		C.poemq_stop_by(C.int(unix.SIGSTOP))
	}
	return 0, false, nil
}

func (p *parent) started(pid int) {
	p.pid = pid
	if fd, err := unix.PidfdOpen(pid, 0); err == nil {
		p.pidfd = fd
	}
	for _, s := range p.waiting {
		p.signal(s)
	}
	p.waiting = nil
}

// stopped tells whether the program is stopped now: the report may be old.
func (p *parent) stopped() bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(p.pid) + "/stat")
	if err != nil {
		return false
	}
	_, after, _ := strings.Cut(string(stat[bytes.LastIndexByte(stat, ')'):]), " ")
	return strings.HasPrefix(after, "T")
}

// abandoned is for a poemqd that ended without a last word. The program, whose
// connections are lost, is left to end by itself: its exit status is not known.
func (p *parent) abandoned() error {
	var ws unix.WaitStatus
	_, _ = unix.Wait4(p.poemqd, &ws, 0, nil)
	e := &Error{What: "embedded broker", Why: "poemqd ended without telling how the program did"}
	if ws.Signaled() {
		e.Why = "poemqd was killed by " + ws.Signal().String()
	}
	if p.pidfd < 0 {
		return e
	}
	warn(e.Error() + "; its connections are lost, waiting for the program to end")
	fds := []unix.PollFd{{Fd: int32(p.pidfd), Events: unix.POLLIN}, {Fd: int32(p.signals), Events: unix.POLLIN}}
	for fds[0].Revents == 0 {
		_, err := unix.Poll(fds, -1)
		if err == nil && fds[1].Revents != 0 {
			p.readSignal()
		}
	}
	return e
}
