package broker

import (
	"sync"
	"time"

	"github.com/poemq/poemq/addfd"
	"golang.org/x/sys/unix"
)

// A byte of ours stays unread in the queue of every end, so that the end's
// closing without a shutdown before it, however that comes about, is
// ECONNRESET to the program. When the program writes, the byte stands before
// what it wrote and is read with it. Of what is little the last octet then stays
// unread instead (up.go); otherwise another byte is laid. That takes a copy of
// the program's descriptor, some microseconds: a program that writes all the
// time has it done a little later.

// tripwires lays tripwires anew.
type tripwires struct {
	mu    sync.Mutex
	want  map[*relay]struct{} // nil when alarm is not set
	alarm alarm               // of layAll
}

// layEvery is how long a connection may be without a tripwire after a program
// wrote that has written as short a time before.
const layEvery = 3 * time.Millisecond

// searchShare: a search for a descriptor in vain is not made again before this
// many times as long.
const searchShare = 50

// layAfter lays a tripwire after the program wrote.
func (r *relay) layAfter() {
	if now := time.Now(); now.Sub(r.laid) > layEvery {
		r.laid = now
		r.lay()
		return
	}
	r.b.tripwires.add(r)
}

// add has r tidied, or a tripwire laid in its queue, soon.
func (t *tripwires) add(r *relay) {
	t.mu.Lock()
	first := t.want == nil
	if first {
		t.want = make(map[*relay]struct{})
	}
	t.want[r] = struct{}{}
	if first {
		t.alarm.set(layEvery)
	}
	t.mu.Unlock()
}

func (t *tripwires) layAll() {
	t.mu.Lock()
	want := t.want
	t.want = nil
	t.mu.Unlock()
	for r := range want {
		if !r.tidy() {
			r.lay()
		}
	}
}

// tidy leaves one octet in r's queue of those that were carried: more would count
// in the program's send buffer. False: there are none.
func (r *relay) tidy() bool {
	if !r.end.Hold() {
		return true
	}
	defer r.end.Release()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.seen == 0 {
		return false
	}
	_ = r.dropSeen() // an error is up's to find
	return true
}

// lay puts a tripwire into r's queue, unless there is something unread, which
// serves as well and will bring us here again.
func (r *relay) lay() {
	r.mu.Lock()
	sock := r.sock
	skip := r.aborted || r.done || r.armed+r.seen > 0 || sock == nil || addfd.HungUp(r.end.FD()) || time.Now().Before(r.searchFrom)
	r.mu.Unlock()
	if skip {
		return
	}
	begin := time.Now()
	fd, err := sock.copyOf()
	if err != nil { // closed, or passed on to where we cannot see it
		r.mu.Lock()
		r.searchFrom = time.Now().Add(searchShare * time.Since(begin))
		r.mu.Unlock()
		return
	}
	r.trip(fd)
	unix.Close(fd)
}

// trip lays a tripwire through fd, a copy of the program's descriptor.
func (r *relay) trip(fd int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.aborted || r.done {
		return
	}
	if addfd.Trip(fd) == nil {
		r.armed++
	}
}

// drain reads n fillers and leaves some; what the program managed to write among
// them is kept for the peer.
func (r *relay) drain(n, left int) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.takeOut(n); err != nil {
		return err
	}
	r.armed += left
	return nil
}

// takeOut reads n bytes of ours; r.mu is held.
func (r *relay) takeOut(n int) error {
	for n > 0 {
		var buf [64]byte
		got, ours, err := addfd.Recv(r.end.FD(), buf[:min(n, len(buf))])
		switch {
		case err != nil:
			return err
		case got == 0:
			return unix.ECONNRESET
		case ours:
			n -= got
		default:
			r.early = append(r.early, buf[:got]...)
		}
	}
	return nil
}

// abort ends r so that the program reads what it has been given, and then
// ECONNRESET; writes fail with EPIPE.
func (r *relay) abort() {
	r.mu.Lock()
	if r.aborted || r.done {
		r.mu.Unlock()
		return
	}
	r.aborted = true
	sock, t := r.sock, r.t
	protected := r.unread() || addfd.HungUp(r.end.FD())
	r.mu.Unlock()
	if t != nil {
		t.Reset()
	}
	if sock == nil {
		r.letGo() // it waits in a queue: accepted closes it
		return
	}
	sock.disconnected(0) // before the program can see it
	if !protected {
		if fd, err := sock.copyOf(); err == nil {
			addfd.Trip(fd)
			unix.Close(fd)
		} else if !r.gone() {
			r.b.log.Warn("a lost connection shows as its end to the program", "error", opError("reset", sock, err))
		}
	}
	r.end.Close()
}

// unread reports that there is something in the end's queue.
func (r *relay) unread() bool {
	n, err := addfd.Unread(r.end.FD())
	return err == nil && n > 0
}

// accepted gives r, which waited in a queue, the program's socket. The tripwire
// was laid when it was taken out.
func (r *relay) accepted(s *Socket) {
	r.sess.Store(s.sess)
	r.mu.Lock()
	r.sock = s
	aborted := r.aborted
	r.mu.Unlock()
	if aborted {
		r.end.Close()
		return
	}
	r.wake()
}
