// Package ends watches the broker's ends of programs' sockets.
//
// It does so with an epoll(7) of its own, for two reasons. Go's poller asks for
// EPOLLOUT of each descriptor, too; on an AF_UNIX socket that comes whenever the
// program reads, and wakes the broker for nothing. And it wakes a goroutine for
// each end, which for most of what programs write is more work than carrying it:
// here the goroutine of many ends looks at all that is new, and what it hands to a
// QUIC connection goes out together. An end that is idle needs no goroutine.
package ends

import (
	"fmt"
	"os"
	"runtime"
	"sync"
	"syscall"
	"unsafe"

	"github.com/poemq/poemq/internal/busypoll"
	"golang.org/x/sys/unix"
)

// events are what is watched for; each is told once (EPOLLET).
const events = unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLET

// batch is how many ends one epoll_wait tells of.
const batch = 64

// Set is all ends of a broker. Close it.
type Set struct {
	shards []*shard
	wg     sync.WaitGroup
}

// shard is an epoll descriptor and the goroutine that waits for it.
type shard struct {
	epoll *os.File // in Go's poller
	raw   syscall.RawConn
	fd    int

	mu    sync.Mutex // guards what follows
	slots []*End
	used  []uint32 // how often each slot was
	free  []uint32
}

// NewSet makes a set whose ends are looked at by as many goroutines. Errors are
// of epoll_create1(2).
func NewSet(goroutines int) (*Set, error) {
	s := &Set{}
	for range max(1, goroutines) {
		sh, err := newShard()
		if err != nil {
			s.Close()
			return nil, err
		}
		s.shards = append(s.shards, sh)
		s.wg.Go(sh.run)
	}
	return s, nil
}

func newShard() (*shard, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create1 for the ends of sockets: %w", err)
	}
	_ = unix.SetNonblock(fd, true) // only so that os takes it for pollable
	sh := &shard{fd: fd, epoll: os.NewFile(uintptr(fd), "ends")}
	if sh.raw, err = sh.epoll.SyscallConn(); err != nil {
		sh.epoll.Close()
		return nil, err
	}
	return sh, nil
}

// Close ends looking. Ends stay open.
func (s *Set) Close() {
	for _, sh := range s.shards {
		sh.epoll.Close()
	}
	s.wg.Wait()
}

func (s *Set) shardOf(fd int) *shard { return s.shards[fd%len(s.shards)] }

// run looks until the set is closed. It is one Read: what comes after a poll that had
// all there was wakes it, so there is no need for another poll before it waits.
func (sh *shard) run() {
	var happened [batch]unix.EpollEvent
	var ends [batch]*End
	_ = sh.raw.Read(func(uintptr) bool {
		for {
			n := sh.poll(&happened)
			sh.tell(happened[:n], &ends)
			if n < batch {
				busypoll.Before()
				return false
			}
			// Those who were given something have their turn before there is more.
			runtime.Gosched()
		}
	})
}

// Look looks at what has happened by now, in this goroutine, as the set's own do. It
// does not wait.
func (s *Set) Look() {
	var happened [batch]unix.EpollEvent
	var ends [batch]*End
	for _, sh := range s.shards {
		n := 0
		_ = sh.raw.Control(func(uintptr) { n = sh.poll(&happened) }) // an error: it is closed
		if n > 0 {
			sh.tell(happened[:n], &ends)
		}
	}
}

// poll does not wait, so the scheduler need not know of it.
func (sh *shard) poll(happened *[batch]unix.EpollEvent) int {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(sh.fd), uintptr(unsafe.Pointer(happened)), batch, 0, 0, 0)
	if errno != 0 {
		return 0
	}
	return int(n)
}

// tell passes on what happened. ends is room for it, and empty again afterwards.
func (sh *shard) tell(happened []unix.EpollEvent, ends *[batch]*End) {
	sh.find(happened, ends)
	for i, e := range ends[:len(happened)] {
		if e == nil {
			continue
		}
		ends[i] = nil
		e.tell(happened[i].Events)
	}
}

// tell passes on what happened.
func (e *End) tell(happened uint32) {
	if happened&(unix.EPOLLOUT|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		e.roomy()
	}
	if happened&^unix.EPOLLOUT != 0 && e.happened() {
		e.looker.Look(happened&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0)
	}
}

// find resolves the slots of what happened; nil for ends that are watched no more.
func (sh *shard) find(happened []unix.EpollEvent, ends *[batch]*End) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	for i := range happened {
		slot, use := uint32(happened[i].Fd), uint32(happened[i].Pad)
		if sh.used[slot] == use {
			ends[i] = sh.slots[slot]
		}
	}
}

// add begins to watch e; e.mu is held.
func (sh *shard) add(e *End) error {
	sh.mu.Lock()
	var slot uint32
	if n := len(sh.free); n > 0 {
		slot, sh.free = sh.free[n-1], sh.free[:n-1]
	} else {
		slot = uint32(len(sh.slots))
		sh.slots, sh.used = append(sh.slots, nil), append(sh.used, 0)
	}
	sh.used[slot]++
	sh.slots[slot] = e
	e.slot = uint64(sh.used[slot])<<32 | uint64(slot)
	sh.mu.Unlock()
	err := sh.control(unix.EPOLL_CTL_ADD, e, events)
	if err != nil {
		sh.drop(e)
	}
	return err
}

// change changes what e is watched for; e.mu is held.
func (sh *shard) change(e *End, events uint32) error {
	return sh.control(unix.EPOLL_CTL_MOD, e, events)
}

// remove ends watching e, if it is; e.mu is held. The kernel would not do so by
// itself when there is a copy of the descriptor.
func (sh *shard) remove(e *End) {
	if e.slot == 0 {
		return
	}
	_ = sh.control(unix.EPOLL_CTL_DEL, e, 0) // the set may be closed
	sh.drop(e)
}

func (sh *shard) drop(e *End) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	slot := uint32(e.slot)
	sh.slots[slot] = nil
	sh.free = append(sh.free, slot)
	e.slot = 0
}

func (sh *shard) control(op int, e *End, events uint32) error {
	ev := unix.EpollEvent{Events: events, Fd: int32(uint32(e.slot)), Pad: int32(e.slot >> 32)}
	if err := unix.EpollCtl(sh.fd, op, e.fd, &ev); err != nil {
		return fmt.Errorf("epoll_ctl of the end of a socket: %w", err)
	}
	return nil
}
