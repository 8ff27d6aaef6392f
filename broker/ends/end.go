package ends

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Looker is whoever has an End. Look and LookAside begin a look: they own it,
// no other begins meanwhile, and they, or a goroutine they leave it to, must come
// to an end of it by Rest. Without that there is no other look any more.
type Looker interface {
	// Look is called when something happened at the end; over tells that nothing
	// will follow what is in its queue (EPOLLRDHUP, EPOLLHUP) or that there is an
	// error. It must not wait, nor take longer than reading from it: other ends
	// wait for it.
	Look(over bool)
	// LookAside is the same on a goroutine of its own, when what happened is not
	// known.
	LookAside()
}

// End is the broker's end of a program's socket: a non-blocking stream socket.
// Its methods may be called by any goroutine.
type End struct {
	set    *shard
	looker Looker
	slot   uint64 // in set, as the kernel keeps it; set's
	turn   atomic.Uint32
	news   chan struct{} // ends Park; made by the first, before turn says so

	mu     sync.RWMutex // keeps fd open
	fd     int
	closed bool
	room   chan struct{} // ends a wait for room; nil while nobody waits
	wide   bool          // its send buffer is bulkBuffer, or the most we may have
}

// bulkBuffer is the send buffer, in octets as setsockopt(2) takes them, of an end
// that was full once: what wakes the program to read then is worth it.
const bulkBuffer = 1 << 20

// What End.turn says.
const (
	unwatched uint32 = iota
	resting          // nobody looks
	looking
	lookAgain // something happened since the look began
	parked    // the look waits for that
)

// ErrStopped: the wait for room was stopped.
var ErrStopped = errors.New("the wait for room was stopped")

// New takes fd over. There are no looks before Watch.
func (s *Set) New(fd int, looker Looker) *End {
	return &End{set: s.shardOf(fd), looker: looker, fd: fd}
}

// FD is the descriptor, which Close may give to another file: use it between Hold
// and Release, or where Close cannot be called.
func (e *End) FD() int { return e.fd }

// Watch begins to have the looker called, for what has happened already as well.
// Errors: os.ErrClosed, or epoll_ctl(2)'s.
func (e *End) Watch() error {
	e.turn.Store(resting)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		e.Poke()
		return os.ErrClosed
	}
	return e.set.add(e)
}

// Poke has LookAside called as if something had happened.
func (e *End) Poke() {
	if e.happened() {
		go e.looker.LookAside()
	}
}

// Begin begins a look in the caller's goroutine, as if something had happened: see
// Looker. False: another look goes on, which then does not rest.
func (e *End) Begin() bool { return e.happened() }

// happened reports that the caller must look.
func (e *End) happened() bool {
	for {
		switch e.turn.Load() {
		case resting:
			if e.turn.CompareAndSwap(resting, looking) {
				return true
			}
		case looking:
			if e.turn.CompareAndSwap(looking, lookAgain) {
				return false
			}
		case parked:
			if e.turn.CompareAndSwap(parked, looking) {
				e.news <- struct{}{}
				return false
			}
		default:
			return false
		}
	}
}

// Rest ends a look, after which the next may begin at once. False: something
// happened meanwhile, and the look goes on.
func (e *End) Rest() bool {
	if e.turn.CompareAndSwap(looking, resting) {
		return true
	}
	e.turn.Store(looking)
	return false
}

// Park waits in a look until something happens, or has since it began. It is not
// for Look.
func (e *End) Park() {
	if e.news == nil {
		e.news = make(chan struct{}, 1)
	}
	if e.turn.CompareAndSwap(looking, parked) {
		<-e.news
		return
	}
	e.turn.Store(looking)
}

// Hold keeps the descriptor open until Release. False: it was closed.
func (e *End) Hold() bool {
	e.mu.RLock()
	if e.closed {
		e.mu.RUnlock()
		return false
	}
	return true
}

// Release ends Hold.
func (e *End) Release() { e.mu.RUnlock() }

// Write writes all of p, and waits for room, but not when stop is closed. took is
// told of each part that the kernel took, in octets. Errors: ErrStopped,
// os.ErrClosed, or the kernel's errno. One goroutine may write at a time.
func (e *End) Write(p []byte, took func(n int), stop <-chan struct{}) error {
	for {
		n, err := e.send(p)
		if n > 0 {
			took(n)
			p = p[n:]
		}
		switch {
		case err == nil && len(p) == 0:
			return nil
		case err == nil, errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			if err := e.awaitRoom(stop); err != nil {
				return err
			}
		default:
			return err
		}
	}
}

func (e *End) send(p []byte) (int, error) {
	if !e.Hold() {
		return 0, os.ErrClosed
	}
	defer e.Release()
	if len(p) == 0 {
		return 0, nil
	}
	// Raw: it does not wait, and the scheduler is not to give the processor away.
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(e.fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// awaitRoom waits until there may be room again, an error, or stop.
func (e *End) awaitRoom(stop <-chan struct{}) error {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return os.ErrClosed
	}
	room := make(chan struct{}, 1)
	e.room = room
	e.widen()
	err := e.set.change(e, events|unix.EPOLLOUT) // says so at once where there is some already
	e.mu.Unlock()
	if err != nil {
		return err
	}
	stopped := false
	select {
	case <-room:
	case <-stop:
		stopped = true
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.room = nil
	if e.closed {
		return os.ErrClosed
	}
	if err := e.set.change(e, events); err != nil || !stopped {
		return err
	}
	return ErrStopped
}

// widen makes room for more, once. Without CAP_NET_ADMIN net.core.wmem_max bounds
// it. e.mu is held.
func (e *End) widen() {
	if e.wide {
		return
	}
	e.wide = true
	if unix.SetsockoptInt(e.fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, bulkBuffer) != nil {
		_ = unix.SetsockoptInt(e.fd, unix.SOL_SOCKET, unix.SO_SNDBUF, bulkBuffer) // what there was will do
	}
}

// roomy ends a wait for room.
func (e *End) roomy() {
	e.mu.RLock()
	defer e.mu.RUnlock()
	e.tellRoom()
}

func (e *End) tellRoom() {
	if e.room == nil {
		return
	}
	select {
	case e.room <- struct{}{}:
	default:
	}
}

// Close closes the descriptor when nobody holds it any more, and ends a Write.
// The looker has a last look. A second call does nothing.
func (e *End) Close() {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return
	}
	e.closed = true
	e.set.remove(e)
	unix.RawSyscall(unix.SYS_CLOSE, uintptr(e.fd), 0, 0)
	e.tellRoom()
	e.mu.Unlock()
	e.Poke()
}
