package quic

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	quicgo "github.com/quic-go/quic-go"
)

// receive reads a stream's header, until the deadline that s has, and finds the
// endpoint it is for. Nil: there is none, and the peer has been told.
func (p *port) receive(c *conn, s *quicgo.Stream, in *Incoming) *Endpoint {
	h, err := readHeader(s)
	if err != nil {
		p.h.log.Debug("stream header", "peer", c.remote, "err", err)
		if errors.Is(err, errHeaderVersion) {
			in.Refuse(unix.EPROTONOSUPPORT)
		} else if errors.Is(err, errHeader) {
			in.Refuse(unix.EPROTO)
		} else {
			in.st.abort(streamHeader)
		}
		return nil
	}
	s.SetReadDeadline(time.Time{})
	in.st.remote = netip.AddrPortFrom(c.remote.Addr(), h.ClientPort)
	e := p.endpoint(h.ServerPort, c.local.Addr())
	if e == nil {
		in.Refuse(unix.ECONNREFUSED)
		return nil
	}
	if !e.o.ZeroRTT && !c.proved() {
		in.st.abort(streamReset)
		return nil
	}
	in.st.local = netip.AddrPortFrom(c.local.Addr(), e.local.Port())
	if !p.h.authorize(in) {
		in.Refuse(unix.ECONNREFUSED)
		return nil
	}
	return e
}

// Incoming is a stream that waits for Accept or Refuse; exactly one of them
// must be called, by any goroutine, and may be late.
type Incoming struct {
	st   *Stream
	once sync.Once

	waits *visit // has a place among what waits; nil: it has none
	left  atomic.Bool
}

// waitsNoMore gives the place back: it is answered, or nobody will.
func (in *Incoming) waitsNoMore() {
	if in.left.CompareAndSwap(false, true) {
		in.waits.left()
	}
}

// answeredLater has it wait until then, or until the peer gives up.
func (in *Incoming) answeredLater() {
	if !in.left.Load() {
		context.AfterFunc(in.st.ctx, in.waitsNoMore)
	}
}

// RemoteAddr is the peer's IP and the port of the connecting program's socket.
func (in *Incoming) RemoteAddr() netip.AddrPort { return in.st.remote }

// LocalAddr is the IP the packets were sent to and the listening port.
func (in *Incoming) LocalAddr() netip.AddrPort { return in.st.local }

// Done is closed when the connecting side has given up or is lost.
func (in *Incoming) Done() <-chan struct{} { return in.st.WriteDone() }

// Accept answers OK and returns the stream, which the caller then owns. Errors
// are those of Stream.Write: the peer has given up; net.ErrClosed after
// Refuse.
func (in *Incoming) Accept() (*Stream, error) {
	err := errAnswered
	in.once.Do(func() {
		in.waitsNoMore()
		// Who reads no more may have written before.
		if _, err = in.st.answer(statusOK); errors.Is(err, ErrStopped) {
			err = nil
		}
	})
	if err != nil {
		if err != errAnswered {
			in.st.Reset()
		}
		return nil, fmt.Errorf("accept from %v: %w", in.st.remote, err)
	}
	return in.st, nil
}

var errAnswered = fmt.Errorf("already answered: %w", unix.EINVAL)

// Refuse answers with the status of errno and ends the stream. It does nothing
// after Accept.
func (in *Incoming) Refuse(errno unix.Errno) {
	in.once.Do(func() {
		in.waitsNoMore()
		in.st.answer(statusOf(errno))
		in.st.abort(streamRefused)
	})
}

// busy refuses at once, without waiting for anything.
func (in *Incoming) busy(s *quicgo.Stream) {
	in.once.Do(func() {
		if s.TryWriteAll([]byte{byte(statusBusy)}) != nil {
			in.st.abort(streamReset)
		}
		in.st.abort(streamRefused)
	})
}
