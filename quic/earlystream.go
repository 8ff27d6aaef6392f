package quic

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	quicgo "github.com/quic-go/quic-go"
)

// earlyStream is what a Stream has that was opened before the handshake was
// over. It outlives that, since others may be about to look at it.
//
// The first quic-go stream ends with Err0RTTRejected when the server rejects
// 0-RTT data. Nothing has been read from it then, as a server's first data
// comes after that decision. A new one takes its place, gets what was written,
// and what was done meanwhile (FIN, a reset…) is done to it.
type earlyStream struct {
	settled chan struct{} // closed when the Stream is as any other, or lost
	stop    chan struct{} // closed when our side reads no more
	end     context.CancelCauseFunc

	mu          sync.Mutex // guards what follows
	phase       phase
	sent        []byte // everything written, while it may have to be sent again
	fin         bool
	readStopped bool
	aborted     bool
	code        quicgo.StreamErrorCode // of aborted
	readLine    time.Time              // deadlines
	writeLine   time.Time
	err         error // the connection was lost; after settled
}

type phase uint8

const (
	sendingEarly phase = iota
	resending          // the first stream was rejected
	settled
)

// newEarlyStream takes s over, which the caller has counted with c.
func newEarlyStream(c *conn, s *quicgo.Stream, local, remote netip.AddrPort) *Stream {
	e := &earlyStream{settled: make(chan struct{}), stop: make(chan struct{})}
	st := &Stream{c: c, local: local, remote: remote, early: e}
	st.s.Store(s)
	st.ctx, e.end = context.WithCancelCause(context.Background())
	return st
}

// finish ends the early part: s is the stream from now on.
func (e *earlyStream) finish(st *Stream, s *quicgo.Stream) {
	context.AfterFunc(s.Context(), func() { e.end(context.Cause(s.Context())) })
	st.watch(s)
	close(e.settled)
	st.half(earlyOver)
}

// accepted: what was sent has arrived, or will.
func (e *earlyStream) accepted(st *Stream) {
	e.mu.Lock()
	e.phase, e.sent = settled, nil
	e.mu.Unlock()
	e.finish(st, st.s.Load())
}

// lose: the connection is dead.
func (e *earlyStream) lose(st *Stream, err error) {
	e.mu.Lock()
	e.phase, e.sent, e.err = settled, nil, err
	e.mu.Unlock()
	e.end(err)
	close(e.settled)
	st.half(earlyOver)
	st.half(writeOver)
}

// resend does on s all that was done on the rejected stream.
func (e *earlyStream) resend(st *Stream, s *quicgo.Stream) {
	s.Write(e.sent) // an error shows when it is used next
	e.mu.Lock()
	e.phase, e.sent = settled, nil
	st.s.Store(s)
	s.SetReadDeadline(e.readLine)
	s.SetWriteDeadline(e.writeLine)
	if e.fin {
		s.Close()
	}
	if e.readStopped {
		s.CancelRead(streamStopped)
	}
	if e.aborted {
		abortQUIC(s, e.code)
	}
	e.mu.Unlock()
	e.finish(st, s)
}

// write is Stream.Write as long as the stream is early. It returns early when
// it is that no more, with a nil error.
func (e *earlyStream) write(st *Stream, p []byte) (n int, err error) {
	for n < len(p) {
		k, err := e.keep(st, p[n:])
		if err != nil {
			return n, err
		}
		if k == 0 {
			return n, e.await(e.settled, st.ctx.Done(), &e.writeLine)
		}
		m, err := st.s.Load().Write(p[n : n+k])
		if err == nil || errors.Is(err, quicgo.Err0RTTRejected) {
			n += k // taken: if not sent, it will be sent again
			continue
		}
		if e.unkeep(k - m) {
			m, err = k, nil
		}
		if n += m; err != nil {
			return n, err
		}
	}
	return n, nil
}

// keep keeps the beginning of p, for which there is room; 0: wait.
func (e *earlyStream) keep(st *Stream, p []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.fin || e.aborted:
		return 0, net.ErrClosed
	case e.err != nil:
		return 0, e.err
	case e.phase != sendingEarly:
		return 0, nil
	}
	n := st.c.early.take(min(len(p), earlyPerStream-len(e.sent)))
	e.sent = append(e.sent, p[:n]...)
	return n, nil
}

// unkeep forgets the last n octets; true: they are being sent again already.
func (e *earlyStream) unkeep(n int) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.phase == resending {
		return true
	}
	if e.phase == sendingEarly {
		e.sent = e.sent[:len(e.sent)-n]
	}
	return false
}

// await waits for done, unless stop or the deadline comes first.
func (e *earlyStream) await(done, stop <-chan struct{}, deadline *time.Time) error {
	e.mu.Lock()
	var late <-chan time.Time
	if !deadline.IsZero() {
		t := time.NewTimer(time.Until(*deadline))
		defer t.Stop()
		late = t.C
	}
	e.mu.Unlock()
	var err error
	select {
	case <-done:
	case <-stop:
		err = net.ErrClosed
	case <-late:
		err = os.ErrDeadlineExceeded
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.err != nil {
		return e.err
	}
	return err
}

// retry reports that reading ended because the stream was rejected, and that
// another is in its place. Else it gives the error to report.
func (e *earlyStream) retry(err error) (bool, error) {
	if e == nil || !errors.Is(err, quicgo.Err0RTTRejected) {
		return false, err
	}
	if err := e.await(e.settled, e.stop, &e.readLine); err != nil {
		return false, err
	}
	return !closed(e.stop), net.ErrClosed
}

// begin locks e if the stream is early still; the caller then unlocks it.
func (e *earlyStream) begin() bool {
	if e == nil {
		return false
	}
	e.mu.Lock()
	if e.phase == settled {
		e.mu.Unlock()
		return false
	}
	return true
}

// closeWrite is Stream.CloseWrite of an early stream.
func (e *earlyStream) closeWrite(st *Stream) bool {
	if !e.begin() {
		return false
	}
	defer e.mu.Unlock()
	e.fin = true
	if e.phase == sendingEarly {
		st.s.Load().Close()
	}
	e.end(quicgo.ErrStreamClosed)
	return true
}

// stopRead is Stream.StopRead of an early stream.
func (e *earlyStream) stopRead(st *Stream) bool {
	if !e.begin() {
		return false
	}
	defer e.mu.Unlock()
	e.noReader()
	if e.phase == sendingEarly {
		st.s.Load().CancelRead(streamStopped)
	}
	return true
}

// abort is Stream.abort of an early stream.
func (e *earlyStream) abort(st *Stream, code quicgo.StreamErrorCode) bool {
	if !e.begin() {
		return false
	}
	defer e.mu.Unlock()
	if !e.aborted {
		e.aborted, e.code = true, code
	}
	e.noReader()
	s := st.s.Load()
	if e.phase == sendingEarly {
		abortQUIC(s, code)
	}
	e.end(&quicgo.StreamError{StreamID: s.StreamID(), ErrorCode: code})
	return true
}

func (e *earlyStream) noReader() {
	if !e.readStopped {
		e.readStopped = true
		close(e.stop)
	}
}

// deadline remembers one for the stream that may come.
func (e *earlyStream) deadline(line *time.Time, t time.Time) {
	if e.begin() {
		*line = t
		e.mu.Unlock()
	}
}

// abortQUIC resets both directions; what was written is still delivered.
func abortQUIC(s *quicgo.Stream, code quicgo.StreamErrorCode) {
	s.SetReliableBoundary()
	s.CancelWrite(code)
	s.CancelRead(code)
}
