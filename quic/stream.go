package quic

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	quicgo "github.com/quic-go/quic-go"
)

// Stream is one TCP connection of a program: a bidirectional QUIC stream after
// its header and status. One goroutine may read while another writes; the
// other methods may be called by any.
//
// A stream is over, and counts no more for its connection, when both
// directions are: reading by an error of Read (io.EOF included), StopRead or
// Reset; writing by CloseWrite, Reset or the peer. The owner must bring it
// there; Close does what is left.
type Stream struct {
	c             *conn
	s             atomic.Pointer[quicgo.Stream] // another takes its place when 0-RTT is rejected
	ctx           context.Context               // ends with writing
	early         *earlyStream                  // nil unless opened before the end of the handshake
	local, remote netip.AddrPort

	// awaits is what a stream opened fast has yet to read; the reader's.
	awaits struct {
		status bool
		port   uint16
		err    error // what came instead
	}

	unanswered atomic.Bool // it is among c.opening

	wmu  sync.Mutex // keeps CloseWrite out of a running Write (quic-go wants that)
	over atomic.Uint32

	read, written atomic.Uint64 // octets
}

const (
	readOver uint32 = 1 << iota
	writeOver
	earlyOver // it is settled what becomes of 0-RTT data

	allOver = readOver | writeOver | earlyOver
)

// newStream takes s over, which the caller has counted with c.
func newStream(c *conn, s *quicgo.Stream, local, remote netip.AddrPort) *Stream {
	st := &Stream{c: c, ctx: s.Context(), local: local, remote: remote}
	st.s.Store(s)
	st.over.Store(earlyOver)
	st.watch(s)
	return st
}

// watch ends writing with s.
func (st *Stream) watch(s *quicgo.Stream) {
	// The context ends when the peer stops us, too: that must be known even
	// if nobody writes. CancelWrite then lets quic-go forget the stream.
	context.AfterFunc(s.Context(), func() {
		if st.half(writeOver) && context.Cause(s.Context()) != quicgo.ErrStreamClosed {
			s.CancelWrite(streamReset)
		}
	})
}

// half marks a direction as over and tells whether it was not before.
func (st *Stream) half(dir uint32) bool {
	old := st.over.Or(dir)
	if dir == readOver {
		st.answered()
	}
	if old != allOver && old|dir == allOver {
		st.c.release()
	}
	return old&dir == 0
}

// opensFast notes that the answer of the peer's port is to be read later.
func (st *Stream) opensFast() {
	st.awaits.status = true
	st.unanswered.Store(true)
	st.c.mu.Lock()
	defer st.c.mu.Unlock()
	if st.c.opening == nil {
		st.c.opening = make(map[uint16]int)
	}
	st.c.opening[st.awaits.port]++
}

// answered notes that it has been read, or will not be.
func (st *Stream) answered() {
	if !st.unanswered.CompareAndSwap(true, false) {
		return
	}
	st.c.mu.Lock()
	defer st.c.mu.Unlock()
	if st.c.opening[st.awaits.port]--; st.c.opening[st.awaits.port] == 0 {
		delete(st.c.opening, st.awaits.port)
	}
}

// Read reads what the peer wrote. Errors: io.EOF after the peer's FIN;
// ErrReset, after what came before the reset; ErrLost when the connection is
// dead, never io.EOF then; net.ErrClosed after StopRead or Reset of our own.
func (st *Stream) Read(p []byte) (int, error) {
	if err := st.lateStatus(); err != nil {
		return 0, err
	}
	n, err := (*received)(st).Read(p)
	st.read.Add(uint64(n))
	st.c.octets.Add(int64(n))
	return n, st.readEnd(err)
}

// received reads from QUIC, with its errors.
type received Stream

func (st *received) Read(p []byte) (int, error) {
	for {
		n, err := st.s.Load().Read(p)
		again, err := st.early.retry(err)
		if !again {
			return n, err
		}
	}
}

func (st *received) await() {
	var b [1]byte
	for again := true; again; {
		_, err := st.s.Load().Peek(b[:]) // Read tells the error, after what came before it
		again, _ = st.early.retry(err)
	}
}

// lateStatus reads the status of a stream opened fast. A refusal is a reset: the
// program has been told that it is connected.
func (st *Stream) lateStatus() error {
	if !st.awaits.status {
		return st.awaits.err
	}
	err := st.readStatus()
	if isTimeout(err) {
		return err
	}
	st.awaits.status = false
	st.answered()
	if err == nil {
		return nil
	} else if errors.Is(err, net.ErrClosed) { // our own doing; what was written still counts
		st.awaits.err = err
		return err
	}
	st.c.h.log.Info("connection refused after it was taken for open", "peer", st.remote, "err", err)
	st.Reset()
	if !errors.Is(err, ErrLost) {
		err = fmt.Errorf("%w: %w", ErrReset, err)
	}
	st.awaits.err = err
	return err
}

// AwaitRead returns when Read would not wait: there is data, its end or an
// error. It lets a relay wait without a buffer.
func (st *Stream) AwaitRead() {
	if st.lateStatus() != nil {
		return
	}
	(*received)(st).await()
}

func (st *Stream) readEnd(err error) error {
	err = streamError(err)
	if err != nil && !isTimeout(err) {
		st.half(readOver)
	}
	return err
}

// WriteTo copies to w until io.EOF, in pieces of 64 KiB (io.WriterTo).
func (st *Stream) WriteTo(w io.Writer) (int64, error) {
	buf := make([]byte, 64<<10)
	return io.CopyBuffer(w, struct{ io.Reader }{st}, buf)
}

// Write blocks until p is handed to QUIC; little more than a packet is
// buffered beyond what the peer's window takes. Errors: ErrReset, ErrStopped,
// ErrLost, net.ErrClosed after CloseWrite or Reset.
func (st *Stream) Write(p []byte) (int, error) {
	st.wmu.Lock()
	defer st.wmu.Unlock()
	n, err := st.send(p)
	st.written.Add(uint64(n))
	return n, streamError(err)
}

// TryWrite is Write of all of p if that needs no waiting. False: nothing was
// written, and Write is to be called, which has the error if there is one. What
// QUIC holds then grows by p whatever the path takes, up to the peer's window: the
// caller has to call Write now and then.
func (st *Stream) TryWrite(p []byte) bool {
	if !st.wmu.TryLock() {
		return false
	}
	defer st.wmu.Unlock()
	if st.early.begin() {
		st.early.mu.Unlock()
		return false
	}
	if st.s.Load().TryWriteAll(p) != nil {
		return false
	}
	st.written.Add(uint64(len(p)))
	return true
}

// send writes to QUIC, with its errors.
func (st *Stream) send(p []byte) (n int, err error) {
	if st.early != nil {
		if n, err = st.early.write(st, p); err != nil || n == len(p) {
			return n, err
		}
	}
	m, err := st.s.Load().Write(p[n:])
	return n + m, err
}

// answer writes the status, as Write does, but it is not counted.
func (st *Stream) answer(s status) (int, error) {
	st.wmu.Lock()
	defer st.wmu.Unlock()
	n, err := st.send([]byte{byte(s)})
	return n, streamError(err)
}

// BytesRead counts what Read has given, in octets.
func (st *Stream) BytesRead() uint64 { return st.read.Load() }

// BytesWritten counts what Write has taken, in octets.
func (st *Stream) BytesWritten() uint64 { return st.written.Load() }

// CloseWrite sends FIN after what was written: shutdown(SHUT_WR). It waits for
// a running Write. Errors: what ended writing before; a second call has none.
func (st *Stream) CloseWrite() error {
	st.wmu.Lock()
	defer st.wmu.Unlock()
	if st.ctx.Err() == nil && (st.early.closeWrite(st) || st.s.Load().Close() == nil) {
		return nil
	}
	if cause := context.Cause(st.ctx); cause != quicgo.ErrStreamClosed {
		return streamError(cause)
	}
	return nil
}

// Reset aborts both directions, as TCP's RST. What Write has taken before is
// still delivered when the peer knows RESET_STREAM_AT, as all of our version
// do; a running Write ends with net.ErrClosed.
func (st *Stream) Reset() { st.abort(streamReset) }

func (st *Stream) abort(code quicgo.StreamErrorCode) {
	if !st.early.abort(st, code) {
		abortQUIC(st.s.Load(), code)
	}
	st.half(readOver)
	st.half(writeOver)
}

// StopRead says that nobody reads any more: the program closed its socket. The
// peer's writes then fail with ErrStopped, once it hears of it. Writing is not
// affected.
func (st *Stream) StopRead() {
	if !st.early.stopRead(st) {
		st.s.Load().CancelRead(streamStopped)
	}
	st.half(readOver)
}

// Close ends what is not over yet: FIN, and StopRead. Closing again, or after
// both directions have ended, does nothing.
func (st *Stream) Close() error {
	err := st.CloseWrite()
	if st.over.Load()&readOver == 0 {
		st.StopRead()
	}
	return err
}

// WriteDone is closed when the peer takes no more (reset, stopped, lost), and
// by our own CloseWrite and Reset; for a relay with nothing to write.
func (st *Stream) WriteDone() <-chan struct{} { return st.ctx.Done() }

// WriteErr tells why WriteDone was closed: ErrReset, ErrStopped, ErrLost or
// net.ErrClosed; nil while it is open.
func (st *Stream) WriteErr() error { return streamError(context.Cause(st.ctx)) }

// WhenWriteEnds has f called once, on a goroutine of its own, with WriteErr
// when WriteDone is closed. It costs no goroutine until then.
func (st *Stream) WhenWriteEnds(f func(error)) {
	context.AfterFunc(st.ctx, func() { f(st.WriteErr()) })
}

// Lost is closed when the connection under the stream has ended. What has come and
// was not read is lost then, but held as long as any Stream of that connection is:
// Config.ConnWindow at most.
func (st *Stream) Lost() <-chan struct{} { return st.c.qc.Context().Done() }

// SetReadDeadline and SetWriteDeadline work as those of net.Conn; the errors
// are os.ErrDeadlineExceeded.
func (st *Stream) SetReadDeadline(t time.Time) error {
	if st.early != nil {
		st.early.deadline(&st.early.readLine, t)
	}
	return st.s.Load().SetReadDeadline(t)
}

// SetWriteDeadline: see SetReadDeadline.
func (st *Stream) SetWriteDeadline(t time.Time) error {
	if st.early != nil {
		st.early.deadline(&st.early.writeLine, t)
	}
	return st.s.Load().SetWriteDeadline(t)
}

// LocalAddr is our IP and the TCP port the program has: the client's own port,
// or the listening port.
func (st *Stream) LocalAddr() netip.AddrPort { return st.local }

// RemoteAddr is the peer's IP and the TCP port its program has.
func (st *Stream) RemoteAddr() netip.AddrPort { return st.remote }

// Stats are figures of the connection under a stream, shared with the other
// streams on it.
type Stats struct {
	RTT, MinRTT, RTTVar          time.Duration
	CongestionWindow             uint64 // octets
	BytesSent, BytesReceived     uint64 // octets of UDP payload
	PacketsSent, PacketsReceived uint64
	PacketsLost                  uint64
	Streams                      int // living on this connection
}

// Stats returns the figures of now; TCP_INFO is made of them.
func (st *Stream) Stats() Stats { return st.c.stats() }
