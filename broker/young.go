package broker

import (
	"errors"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// young holds the sockets that were made last. Most are connected or listen at
// once and never need watching; those that do not get an anchor, so that their
// closing is seen. Until then a copy of the descriptor is kept. When there are
// too many, the oldest go to Lost, which sees their closing later, but costs a
// program that makes and closes sockets in a loop far less.
type young struct {
	mu       sync.Mutex // guards what follows
	queue    []youngSocket
	timer    *time.Timer // nil when the queue is empty
	thinning bool        // thin runs
}

type youngSocket struct {
	s  *Socket
	fd int
}

const (
	youngFor = 500 * time.Millisecond
	// maxYoung is when room is made; mostYoung is when the caller has to wait
	// for it.
	maxYoung  = 128
	mostYoung = 8 * maxYoung
)

// add takes fd over.
func (y *young) add(b *Broker, s *Socket, fd int) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.queue = append(y.queue, youngSocket{s, fd})
	if len(y.queue) > maxYoung && !y.thinning {
		y.thinning = true
		go y.thin(b)
	}
	if len(y.queue) > mostYoung {
		unix.Close(y.crowd(b))
	}
	if y.timer == nil {
		y.timer = time.AfterFunc(youngFor, func() { y.age(b) })
	}
}

// thin makes room away from the session's turn: the program's next
// one would wait for it.
func (y *young) thin(b *Broker) {
	for {
		y.mu.Lock()
		if len(y.queue) <= maxYoung/2 {
			y.thinning = false
			y.mu.Unlock()
			return
		}
		fd := y.crowd(b)
		y.mu.Unlock()
		unix.Close(fd) // the last descriptor most often, which takes long
	}
}

// grow anchors the oldest; y.mu is held. The caller closes its descriptor.
func (y *young) grow(b *Broker) (fd int) {
	old := y.queue[0]
	y.queue = without(y.queue, 1)
	b.watchClose(old.s, old.fd)
	return old.fd
}

// crowd gives the oldest to Lost; y.mu is held. The caller closes its
// descriptor.
func (y *young) crowd(b *Broker) (fd int) {
	old := y.queue[0]
	id, err := b.lost.Watch(old.fd, old.s.closedByProgram)
	if err != nil {
		return y.grow(b)
	}
	y.queue = without(y.queue, 1)
	old.s.mu.Lock()
	old.s.crowded = id
	old.s.mu.Unlock()
	return old.fd
}

// remove ends the holding of s: what happens to it now shows its closing. The
// caller has a copy of the program's descriptor.
func (y *young) remove(b *Broker, s *Socket) {
	y.mu.Lock()
	defer y.mu.Unlock()
	s.mu.Lock()
	crowded := s.crowded
	s.crowded = 0
	s.mu.Unlock()
	if crowded != 0 {
		b.lost.Forget(crowded)
		return
	}
	for i := len(y.queue) - 1; i >= 0; i-- { // it is most likely the last
		if y.queue[i].s == s {
			unix.Close(y.queue[i].fd)
			y.queue = append(y.queue[:i], y.queue[i+1:]...)
			return
		}
	}
}

// age anchors those that have been held long enough, and comes again for the
// next.
func (y *young) age(b *Broker) {
	y.mu.Lock()
	defer y.mu.Unlock()
	for len(y.queue) > 0 {
		left := youngFor - time.Since(y.queue[0].s.created)
		if left > 0 {
			y.timer = time.AfterFunc(left, func() { y.age(b) })
			return
		}
		unix.Close(y.grow(b))
	}
	y.timer = nil
}

// close lets go of all.
func (y *young) close() {
	y.mu.Lock()
	defer y.mu.Unlock()
	if y.timer != nil {
		y.timer.Stop()
	}
	for _, o := range y.queue {
		unix.Close(o.fd)
	}
	y.queue = nil
}

// watchClose anchors s, of which fd is a copy, unless that is done or its
// closing shows otherwise.
func (b *Broker) watchClose(s *Socket, fd int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.anchor != nil || s.state == connected || s.state == closed || s.dial != nil && s.dial.docked() {
		return
	}
	a, err := b.anchors.Hold(fd, s.closedByProgram)
	if errors.Is(err, unix.EINVAL) { // it has its listening socket's name
		if s.crowded, err = b.lost.Watch(fd, s.closedByProgram); err == nil {
			return
		}
	}
	if err != nil {
		b.log.Warn("a socket's closing will not be seen", "error", opError("anchor", s, err))
		return
	}
	s.anchor = a
	s.keepAnchor(a)
}
