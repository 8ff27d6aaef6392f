package broker

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/poemq/poemq/addfd"
	"github.com/poemq/poemq/quic"
	"golang.org/x/sys/unix"
)

// relay carries one connection's bytes between the broker's end of the
// program's socket and the transport. The end is its to close.
//
// Two goroutines: up reads the end and writes the transport, down the other
// way. The end is closed when both are done and the program has closed its
// socket, or at once by abort, which is an error to the program.
type relay struct {
	b   *Broker
	end *os.File
	raw syscall.RawConn
	fd  int // of end

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
	// armed counts bytes of ours in the end's queue. The last is the tripwire.
	armed   int
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
	running  int  // goroutines
	// searchFrom is when the program's descriptor may be searched for again,
	// which was in vain before.
	searchFrom time.Time

	laid      time.Time     // when the last tripwire was, for up only
	delivered atomic.Uint64 // octets given to our program
}

const (
	relayBuffer = 64 << 10
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
	r := &relay{b: b, fd: end, end: os.NewFile(uintptr(end), "end")}
	r.raw, _ = r.end.SyscallConn() // fails for a nil file only
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
	go func() {
		r.up()
		r.carriedAll()
		r.leave()
	}()
}

// leave is the end of one of the goroutines; the last one tidies up.
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

// start begins to carry bytes.
func (r *relay) start(t transport) {
	r.mu.Lock()
	r.t = t
	dead := r.aborted || r.done
	if !dead {
		r.running++
		r.b.ledger.begins(r)
	}
	r.mu.Unlock()
	if dead {
		t.Reset()
		return
	}
	go func() {
		r.down()
		r.leave()
	}()
	r.wake()
}

// wake has up look at the end again although nothing came.
func (r *relay) wake() { r.end.SetReadDeadline(time.Unix(1, 0)) }

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

// What up finds at the end, besides io.EOF and an errno.
var (
	errClosed  = errors.New("the program closed its socket")
	errAborted = errors.New("the relay was aborted")
)

// up carries what the program writes.
func (r *relay) up() {
	for {
		buf, n, err := r.read()
		if n > 0 {
			r.send(buf[:n])
			buffers.Put(buf)
			r.layAfter()
			continue
		}
		switch {
		case errors.Is(err, io.EOF):
			r.endOfFile()
		case errors.Is(err, errClosed):
			if r.hungUpEarly != nil {
				r.hungUpEarly()
			}
			r.abandonQueued()
		case errors.Is(err, errAborted), errors.Is(err, os.ErrClosed):
		default: // ECONNRESET: closed with data unread
			r.closedHard()
		}
		return
	}
}

func (r *relay) send(p []byte) {
	r.sent.Add(uint64(len(p)))
	if r.stoppedWriting() {
		return // nobody reads it; the program learns so when down has ended
	}
	if _, err := r.t.Write(p); err != nil {
		r.writeFailed(err)
	}
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
	r.finishes(endOurs)
	err := r.t.CloseWrite()
	switch {
	case err == nil, errors.Is(err, quic.ErrStopped), errors.Is(err, net.ErrClosed):
	default:
		r.writeFailed(err)
		return
	}
	r.mu.Lock()
	r.upDone = true
	over := r.downDone
	r.mu.Unlock()
	r.carriedAll()
	if over {
		r.sock.disconnected(0)
	}
	// Until the program has closed its socket, only that can come.
	if r.await(r.gone) != nil {
		return
	}
	r.sock.closedByProgram()
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

// read waits for bytes of the program's. It has a buffer only when there are
// some: the caller puts it back when n > 0.
func (r *relay) read() (buf *[relayBuffer]byte, n int, err error) {
	werr := r.await(func() bool {
		buf = buffers.Get().(*[relayBuffer]byte)
		n, err = r.receive(buf[:])
		if n == 0 {
			buffers.Put(buf)
		}
		return err != unix.EAGAIN
	})
	if werr != nil {
		return nil, 0, werr
	}
	return buf, n, err
}

// await calls ready whenever something happened at the end, until it says so.
// os.ErrClosed: the end was closed.
func (r *relay) await(ready func() bool) error {
	for {
		switch err := r.raw.Read(func(uintptr) bool { return ready() }); {
		case err == nil:
			return nil
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return os.ErrClosed // the poller's own error has no name
		}
		r.end.SetReadDeadline(time.Time{}) // wake
	}
}

// receive takes what is in the queue and is not the tripwire. EAGAIN: nothing.
func (r *relay) receive(buf []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		switch {
		case r.aborted:
			return 0, errAborted
		case r.sock == nil || r.t == nil:
			if closed, err := addfd.Closed(r.fd); closed || err != nil && addfd.HungUp(r.fd) {
				return 0, errClosed
			}
			return 0, unix.EAGAIN
		case len(r.early) > 0:
			n := copy(buf, r.early)
			r.early = r.early[n:]
			return n, nil
		case r.armed > 0 && r.onlyTripwire():
			return 0, unix.EAGAIN
		}
		n, ours, err := addfd.Recv(r.fd, buf)
		switch {
		case err != nil:
			return 0, err
		case n == 0:
			return 0, io.EOF
		case !ours:
			return n, nil
		}
		r.armed -= n
	}
}

// onlyTripwire reports that nothing but the tripwire is in the queue, nor will
// anything follow it.
func (r *relay) onlyTripwire() bool {
	n, err := unix.IoctlGetInt(r.fd, unix.SIOCINQ)
	return err == nil && n <= r.armed && !readsEOF(r.fd)
}

// readsEOF reports that the program's end writes no more.
func readsEOF(fd int) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
	n, err := unix.Poll(p, 0)
	return err == nil && n == 1 && p[0].Revents&(unix.POLLRDHUP|unix.POLLHUP) != 0
}

// down carries what the peer sends.
func (r *relay) down() {
	discard := false
	for {
		r.t.AwaitRead() // without a buffer
		buf := buffers.Get().(*[relayBuffer]byte)
		n, err := r.t.Read(buf[:])
		if n > 0 && !discard {
			werr := r.deliver(buf[:n])
			switch {
			case werr == nil:
			case errors.Is(werr, os.ErrClosed):
				buffers.Put(buf)
				r.t.Reset()
				return
			case addfd.HungUp(r.fd): // data for a closed socket
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
	if !r.aborted && !r.done {
		unix.Shutdown(r.fd, unix.SHUT_WR)
	}
	r.mu.Unlock()
	switch {
	case stopped:
		r.cut(unix.EPIPE)
	case !over:
		r.t.WhenWriteEnds(r.writeEnded)
	}
}

func (r *relay) deliver(p []byte) error {
	var err error
	werr := r.raw.Write(func(fd uintptr) bool {
		for len(p) > 0 {
			n, e := unix.SendmsgN(int(fd), p, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
			switch e {
			case nil:
				p = p[n:]
				r.delivered.Add(uint64(n))
			case unix.EINTR:
			case unix.EAGAIN:
				return false
			default:
				err = e
				return true
			}
		}
		return true
	})
	if werr != nil {
		return os.ErrClosed // as in await
	}
	return err
}

// hungUp reports that the program has closed its socket.
func (r *relay) hungUp() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.done || r.aborted || !addfd.HungUp(r.fd) {
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
		unix.Shutdown(r.fd, unix.SHUT_RD)
		_ = r.takeOut(fillers - 1) // closing it frees them too
	}
	r.aborted = true
	r.mu.Unlock()
	r.end.Close()
}
