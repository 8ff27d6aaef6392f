package broker

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/poemq/poemq/addfd"
	"github.com/poemq/poemq/broker/ends"
	"github.com/poemq/poemq/quic"
	"golang.org/x/sys/unix"
)

// relay carries one connection's bytes between the broker's end of the
// program's socket and the transport. The end is its to close.
//
// up reads the end and writes the transport: as Look, in the goroutine of many
// ends, and where something has to be waited for in one of its own. down, the
// other way, has a goroutine. The end is closed when both are done and the program
// has closed its socket, or at once by abort, which is an error to the program.
type relay struct {
	b   *Broker
	end *ends.End

	account

	// hungUpEarly is called when the program closes its socket before there is
	// a connection. Set before watch.
	hungUpEarly func()

	// givenUp is called when the peer turns out to have given up before it had
	// our answer; nil for nothing to do. Set before start.
	givenUp func()

	mu sync.Mutex // guards what follows, and reading from the end
	// sock is the program's socket; nil while the connection waits in a
	// listening socket's queue.
	sock *Socket
	t    transport
	try  trier // t, if it is one
	// armed counts bytes of ours in the end's queue. The last is the tripwire.
	armed   int
	seen    int    // octets of the program's in the queue, the first, that the transport has
	glances bool   // glance has begun
	reset   bool   // glance found that the program closed with something unread
	left    bool   // the program has closed its socket
	early   []byte // what the program wrote among the fillers
	aborted bool
	done    bool
	atEnd   []func()
	// stopped: the peer's program reads no more. Our program learns it, as
	// with TCP, only by writing, and after what the peer sent before.
	stopped  bool
	upDone   bool // our program's FIN went
	upOver   bool // nothing more of our program's will go
	refusing bool // the peer's bytes came for a closed socket
	downDone bool // the peer's FIN came
	running  int  // directions
	// searchFrom is when the program's descriptor may be searched for again,
	// which was in vain before.
	searchFrom time.Time

	tried     int           // octets given to the transport since it last could have us wait
	laid      time.Time     // when the last tripwire was, for up only
	delivered atomic.Uint64 // octets given to our program
}

const (
	relayBuffer = 128 << 10
	// finWait is how long a peer may keep its direction open after our program
	// has closed its socket (net.ipv4.tcp_fin_timeout, tcp(7)).
	finWait = 60 * time.Second
	// readWait is how long a program may leave unread what came before a reset,
	// when it writes on, until it has the error without the rest.
	readWait = 5 * time.Second
	// refuseWait is how long what a program wrote before it closed its socket
	// may take when the peer's bytes for that socket ask for a reset.
	refuseWait = time.Second
)

var buffers = sync.Pool{New: func() any { return new([relayBuffer]byte) }}

// newRelay takes end over. watch begins its life; start gives it bytes.
func newRelay(b *Broker, end int) *relay {
	r := &relay{b: b}
	r.end = b.ends.New(end, r)
	b.countRelay(1)
	b.wg.Add(1)
	return r
}

// attach names the program's socket, from when on reading may begin.
func (r *relay) attach(s *Socket) {
	r.mu.Lock()
	r.sock = s
	r.mu.Unlock()
	r.sess.Store(s.sess)
}

// watch starts the up direction, which until start looks for the program's
// closing only.
func (r *relay) watch() {
	r.mu.Lock()
	r.running++
	r.mu.Unlock()
	r.watchEnd()
}

func (r *relay) watchEnd() {
	if err := r.end.Watch(); err != nil && !errors.Is(err, os.ErrClosed) {
		r.b.log.Warn("a connection is given up", "error", err)
		r.end.Close()
	}
}

// leave is the end of one direction; the last one tidies up.
func (r *relay) leave() {
	r.mu.Lock()
	r.running--
	r.done = r.running == 0
	last := r.done
	r.mu.Unlock()
	if last {
		r.finish()
	}
}

// start begins to carry bytes, after watch.
func (r *relay) start(t transport) {
	if r.begin(t, 0) {
		r.wake()
	}
}

// watchAndStart is both at once: what is there already is looked at once.
func (r *relay) watchAndStart(t transport) {
	if r.begin(t, 1) {
		r.watchEnd()
	} else {
		r.watch() // which ends it
	}
}

// begin begins to carry what comes from t; up is how many more directions begin.
// False: r has ended.
func (r *relay) begin(t transport, up int) bool {
	r.mu.Lock()
	r.t = t
	r.try, _ = t.(trier)
	dead := r.aborted || r.done
	if !dead {
		r.running += 1 + up
		r.b.ledger.begins(r)
	}
	r.mu.Unlock()
	if dead {
		t.Reset()
		return false
	}
	go func() {
		r.down()
		r.leave()
	}()
	return true
}

// wake has up look at the end again, now that it can do more, if there is
// anything. What comes later is news.
func (r *relay) wake() {
	if !r.end.Hold() {
		return
	}
	r.mu.Lock()
	n, err := addfd.Unread(r.end.FD())
	over := err != nil || addfd.ReadsEOF(r.end.FD())
	news := over || n > r.armed+r.seen || len(r.early) > 0
	r.mu.Unlock()
	r.end.Release()
	if news && r.end.Begin() {
		r.look(over, false)
	}
}

func (r *relay) finish() {
	r.mu.Lock()
	t, sock, atEnd, aborted := r.t, r.sock, r.atEnd, r.aborted
	r.mu.Unlock()
	r.settle(t, sock)
	r.end.Close()
	if t != nil {
		t.Close()
	}
	switch {
	case sock == nil:
	case aborted:
		sock.lost()
	default:
		sock.closedByProgram()
	}
	for _, f := range atEnd {
		f()
	}
	r.b.countRelay(-1)
	r.b.wg.Done()
}

// whenDone calls f after the last byte is carried.
func (r *relay) whenDone(f func()) {
	r.mu.Lock()
	if !r.done {
		r.atEnd = append(r.atEnd, f)
		r.mu.Unlock()
		return
	}
	r.mu.Unlock()
	f()
}

func (r *relay) send(p []byte) {
	r.sent.Add(uint64(len(p)))
	if r.stoppedWriting() {
		return // nobody reads it; the program learns so when down has ended
	}
	if _, err := r.t.Write(p); err != nil {
		r.writeFailed(err)
	}
	r.mu.Lock()
	r.tried = 0
	r.mu.Unlock()
}

func (r *relay) stoppedWriting() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stopped
}

// writeFailed notes that the peer takes no more. What it sent before may still be
// on its way to the program, which reads it first; the error is down's to tell.
func (r *relay) writeFailed(err error) {
	r.mu.Lock()
	ended, known, ours := r.downDone, r.stopped, errors.Is(err, net.ErrClosed)
	r.stopped = known || !ours
	r.mu.Unlock()
	r.failsBy(err)
	switch {
	case ended:
		r.cut(errnoAfterEnd(err))
	case ours:
		r.abort()
	case !known && !errors.Is(err, quic.ErrStopped):
		r.abortUnlessRead(r.delivered.Load())
	}
}

// endOfFile handles the program's shutdown(SHUT_WR) or close.
func (r *relay) endOfFile() {
	if r.lingersNot() && r.gone() {
		r.closedHard() // SO_LINGER with 0 seconds (socket(7))
		return
	}
	if err := r.closeWrite(); err != nil {
		r.writeFailed(err)
		return
	}
	// Until the program has closed its socket, only that can come.
	if r.awaitGone() {
		r.programGone()
	}
}

// closeWrite tells the peer that nothing more will come.
func (r *relay) closeWrite() error {
	r.finishes(endOurs)
	err := r.t.CloseWrite()
	if err != nil && !errors.Is(err, quic.ErrStopped) && !errors.Is(err, net.ErrClosed) {
		return err
	}
	r.mu.Lock()
	r.upDone = true
	over := r.downDone
	r.mu.Unlock()
	r.carriedAll()
	if over {
		r.sock.disconnected(0)
	}
	return nil
}

// programGone is for when the program has closed its socket and closeWrite is
// done.
func (r *relay) programGone() {
	r.mu.Lock()
	r.left = true
	over := r.downDone
	r.mu.Unlock()
	r.sock.closedByProgram()
	if over {
		return
	}
	// The peer may still send: that is a reset (down sees EPIPE). If it does
	// neither that nor end, it is not waited for longer than TCP does.
	timer := time.AfterFunc(finWait, r.t.StopRead)
	r.whenDone(func() { timer.Stop() })
}

func (r *relay) lingersNot() bool {
	return r.sock.lingerZero()
}

// closedHard is TCP's RST in the way of the peer.
func (r *relay) closedHard() {
	r.fails(endOurReset)
	r.sock.closedByProgram()
	r.t.Reset()
}

// abandonQueued ends a connection whose program went away before it was
// accepted, or whose attempt it gave up.
func (r *relay) abandonQueued() {
	r.mu.Lock()
	t := r.t
	r.mu.Unlock()
	r.fails(endGivenUp)
	if t != nil {
		t.Reset()
	}
}

// down carries what the peer sends.
func (r *relay) down() {
	discard := false
	for {
		r.t.AwaitRead() // without a buffer
		buf := buffers.Get().(*[relayBuffer]byte)
		n, err := r.t.Read(buf[:])
		if n > 0 && !discard {
			var lost <-chan struct{} // nothing can be lost after the last octets
			if err == nil || errors.Is(err, quic.ErrLost) {
				lost = r.t.Lost()
			}
			werr := r.deliver(buf[:n], lost)
			switch {
			case werr == nil, errors.Is(werr, ends.ErrStopped): // Read tells why
			case errors.Is(werr, os.ErrClosed):
				buffers.Put(buf)
				r.t.Reset()
				return
			case addfd.HungUp(r.end.FD()): // data for a closed socket
				buffers.Put(buf)
				r.refuse()
				return
			default:
				discard = true // shutdown(SHUT_RD): TCP takes it and drops it
			}
		}
		buffers.Put(buf)
		if err != nil {
			r.downEnded(err)
			return
		}
	}
}

func (r *relay) downEnded(err error) {
	if !errors.Is(err, io.EOF) {
		r.failsBy(err)
		r.abort()
		if errors.Is(err, quic.ErrGivenUp) && r.givenUp != nil {
			r.givenUp()
		}
		return
	}
	r.finishes(endPeers)
	r.mu.Lock()
	r.downDone = true
	sock, over, stopped := r.sock, r.upDone, r.stopped
	r.mu.Unlock()
	if over {
		sock.disconnected(0) // before the program can see it
	}
	r.mu.Lock()
	if !r.aborted && !r.done && !r.left {
		unix.Shutdown(r.end.FD(), unix.SHUT_WR)
	}
	r.mu.Unlock()
	switch {
	case stopped:
		r.cut(unix.EPIPE)
	case !over:
		r.t.WhenWriteEnds(r.writeEnded)
	}
}

// deliver gives p to our program, and waits for room until lost is closed.
func (r *relay) deliver(p []byte, lost <-chan struct{}) error {
	return r.end.Write(p, func(n int) { r.delivered.Add(uint64(n)) }, lost)
}

// hungUp reports that the program has closed its socket.
func (r *relay) hungUp() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.done || r.aborted || !addfd.HungUp(r.end.FD()) {
		return r.done
	}
	closed, err := r.closed(r.sock)
	return err == nil && closed
}

// discard closes an end that never became a connection, with fillers in it. The
// kernel shows the error before it frees them, so all but one are taken out:
// with POLLERR and POLLHUP the program is to see POLLOUT, as with TCP. What it
// wrote meanwhile would be lost, so it can write no more before.
func (r *relay) discard(fillers int) {
	r.mu.Lock()
	if !r.aborted && !r.done {
		unix.Shutdown(r.end.FD(), unix.SHUT_RD)
		_ = r.takeOut(fillers - 1) // closing it frees them too
	}
	r.aborted = true
	r.mu.Unlock()
	r.end.Close()
}
