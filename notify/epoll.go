package notify

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// An epoll registration belongs to an open file and the descriptor number it
// was added by (epoll(7)), so it stays with the old file when a descriptor gets
// another one. Only a task that has the new file under the same number can
// register it such that the program finds it again: here a thread with a table
// of descriptors of its own.

// registration is one, with an epoll instance that epoll is a copy of.
type registration struct {
	epoll int
	event unix.EpollEvent
}

// MoveRegistrations has the target's epoll instances that watch its descriptor
// n as the file from watch it as the file to instead, with the same events and
// data. It is for a descriptor that was replaced, while from is still open. One
// that EPOLLONESHOT has disarmed tells errors and hang-ups again.
func (t *Target) MoveRegistrations(n, from, to int) error {
	regs, err := t.registrations(n, from)
	defer func() {
		for _, r := range regs {
			unix.Close(r.epoll)
		}
	}()
	if err != nil || len(regs) == 0 {
		return err
	}
	return onOwnThread(func() error { return moveAll(n, from, to, regs) })
}

// onOwnThread runs f on a thread that ends with it, which the process's first
// one never does.
func onOwnThread(f func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			err := onOwnThread(f) // on another, this one being locked
			runtime.UnlockOSThread()
			result <- err
			return
		}
		result <- f()
	}()
	return <-result
}

// registrations finds those of the descriptor n as the file that fd is a copy
// of. The caller closes the copies of the instances, even with an error.
func (t *Target) registrations(n, fd int) ([]registration, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	var regs []registration
	for number, link := range Files(t.TID) {
		if link != "anon_inode:[eventpoll]" {
			continue
		}
		info, err := os.ReadFile("/proc/" + strconv.Itoa(t.TID) + "/fdinfo/" + strconv.Itoa(number))
		if err != nil {
			continue // closed meanwhile
		}
		event, found := findRegistration(info, n, st.Ino)
		if !found {
			continue
		}
		epoll, err := t.Fd(number)
		if err != nil {
			return regs, err
		}
		regs = append(regs, registration{epoll, event})
	}
	return regs, nil
}

// findRegistration looks in what /proc/PID/fdinfo shows of an epoll instance
// (proc(5)) for the descriptor n with the inode number ino.
func findRegistration(info []byte, n int, ino uint64) (unix.EpollEvent, bool) {
	for line := range bytes.Lines(info) {
		// tfd: 5 events: 19 data: 500000005  pos:0 ino:61af sdev:7
		field := make(map[string]string)
		key := ""
		for _, word := range strings.Fields(strings.ReplaceAll(string(line), ":", ": ")) {
			if k, ok := strings.CutSuffix(word, ":"); ok {
				key = k
			} else {
				field[key] = word
			}
		}
		if field["tfd"] != strconv.Itoa(n) || field["ino"] != strconv.FormatUint(ino, 16) {
			continue
		}
		events, err1 := strconv.ParseUint(field["events"], 16, 32)
		data, err2 := strconv.ParseUint(field["data"], 16, 64)
		if err1 != nil || err2 != nil {
			continue
		}
		return unix.EpollEvent{Events: uint32(events), Fd: int32(data), Pad: int32(data >> 32)}, true
	}
	return unix.EpollEvent{}, false
}

// moveAll gives the thread it runs on a table of descriptors of its own, and
// the registrations the file to.
func moveAll(n, from, to int, regs []registration) error {
	// A signal could have the runtime switch goroutines while n is not its own.
	if err := blockSignals(); err != nil {
		return err
	}
	if err := unix.Unshare(unix.CLONE_FILES); err != nil {
		return fmt.Errorf("unshare descriptors: %w", err)
	}
	var all error
	for _, r := range regs {
		if errno := moveOne(n, from, to, &r); errno != 0 && errno != unix.ENOENT { // the program was quicker
			all = errors.Join(all, fmt.Errorf("move epoll registration of descriptor %d: %w", n, errno))
		}
	}
	return all
}
