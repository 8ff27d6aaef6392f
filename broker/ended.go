package broker

import (
	"errors"
	"net/netip"
	"time"

	"github.com/poemq/poemq/addfd"
	"github.com/poemq/poemq/quic"
	"golang.org/x/sys/unix"
)

// What a socket is between the end of its connection and its closing by the
// program.

// disconnected notes that s has no connection any more while the program has a
// descriptor of it: to getpeername it is as TCP's in TIME-WAIT or CLOSE. errno
// is for SO_ERROR when the socket itself cannot tell.
func (s *Socket) disconnected(errno unix.Errno) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state != connected {
		return
	}
	s.become(failed)
	if errno != 0 {
		s.soError = errno
	}
	s.jotLocked()
}

// lost is disconnected when there is no end either that would tell of the
// program's closing.
func (s *Socket) lost() {
	s.disconnected(0)
	s.mu.Lock()
	if s.state != failed {
		s.mu.Unlock()
		return
	}
	s.relay = nil
	s.mu.Unlock()
	s.watchLost()
}

// watchLost looks after a socket that was attached and has no end of ours any
// more.
func (s *Socket) watchLost() {
	fd, err := s.copyOf()
	if err != nil {
		s.closedByProgram()
		return
	}
	s.b.watchClose(s, fd)
	unix.Close(fd)
}

// letGo frees what a lost transport holds, where r, which has nothing to do any
// more, is kept until the program accepts it.
func (r *relay) letGo() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.t == nil || r.t.Lost() == nil {
		return
	}
	r.t, r.try = &departed{r.t.LocalAddr(), r.t.RemoteAddr()}, nil
}

// departed is what is left of a transport that was lost: the addresses it had.
type departed struct{ local, remote netip.AddrPort }

func (*departed) AwaitRead()                   {}
func (*departed) Read([]byte) (int, error)     { return 0, quic.ErrLost }
func (*departed) Write([]byte) (int, error)    { return 0, quic.ErrLost }
func (*departed) CloseWrite() error            { return quic.ErrLost }
func (*departed) WhenWriteEnds(f func(error))  { go f(quic.ErrLost) }
func (*departed) Lost() <-chan struct{}        { return nil }
func (*departed) Reset()                       {}
func (*departed) StopRead()                    {}
func (*departed) Close() error                 { return nil }
func (d *departed) LocalAddr() netip.AddrPort  { return d.local }
func (d *departed) RemoteAddr() netip.AddrPort { return d.remote }

// gone reports that the program has closed its socket.
func (r *relay) gone() bool {
	if !addfd.HungUp(r.end.FD()) {
		return false
	}
	r.mu.Lock()
	sock := r.sock
	r.mu.Unlock()
	closed, err := r.closed(sock)
	if err == nil {
		return closed
	}
	if sock == nil {
		return true
	}
	fd, err := sock.copyOf()
	if err != nil {
		return true
	}
	unix.Close(fd)
	return false
}

// closed is addfd.Closed of an end that is HungUp, whose other end is sock's. The
// kernel is only asked where it can be otherwise: it looks through all sockets.
func (r *relay) closed(sock *Socket) (bool, error) {
	if sock != nil && !sock.shutdown.Load() {
		return true, nil
	}
	return addfd.Closed(r.end.FD())
}

// refuse answers data for a program's socket that was shut down for both
// directions, as TCP does: with a reset, after what the program wrote before.
func (r *relay) refuse() {
	r.mu.Lock()
	sock := r.sock
	r.refusing = true
	over := r.upOver
	r.mu.Unlock()
	r.fails(endRefused)
	switch {
	case over:
		r.t.Reset()
	default: // carriedAll does, unless the peer does not read
		timer := time.AfterFunc(refuseWait, r.t.Reset)
		r.whenDone(func() { timer.Stop() })
	}
	if sock != nil {
		sock.disconnected(0)
	}
}

// carriedAll notes that what the program wrote is with the transport.
func (r *relay) carriedAll() {
	r.mu.Lock()
	r.upOver = true
	refusing := r.refusing
	r.mu.Unlock()
	if refusing {
		r.t.Reset()
	}
}

// abortUnlessRead aborts r after its peer's reset when the program reads
// nothing, of which it has been given taken octets, so that down cannot end.
func (r *relay) abortUnlessRead(taken uint64) {
	if r.ended() {
		return
	}
	time.AfterFunc(readWait, func() {
		switch now := r.delivered.Load(); {
		case r.ended():
		case now == taken:
			r.abort()
		default:
			r.abortUnlessRead(now)
		}
	})
}

// ended reports that r carries nothing any more.
func (r *relay) ended() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.aborted || r.done
}

// errnoAfterEnd is the error of a socket whose peer has sent its FIN when
// writing fails.
func errnoAfterEnd(err error) unix.Errno {
	if errors.Is(err, quic.ErrLost) {
		return unix.ETIMEDOUT
	}
	return unix.EPIPE
}

// writeEnded is told why nothing more can be written after the peer's FIN.
// That the peer's program reads no more is learned only by writing.
func (r *relay) writeEnded(err error) {
	if errors.Is(err, quic.ErrReset) || errors.Is(err, quic.ErrLost) {
		r.failsBy(err)
		r.cut(errnoAfterEnd(err))
	}
}

// cut ends r for a program that has been given the peer's end of file. Other
// than after abort reads go on to say so, as TCP's do after an RST that answers
// data for a closed socket; writes fail with EPIPE.
func (r *relay) cut(errno unix.Errno) {
	r.mu.Lock()
	sock, t, over := r.sock, r.t, r.aborted || r.done
	r.mu.Unlock()
	switch {
	case over:
		return
	case sock == nil:
		r.abort()
		return
	}
	sock.disconnected(errno) // before the program can see it
	r.mu.Lock()
	if r.aborted || r.done {
		r.mu.Unlock()
		return
	}
	r.aborted = true
	r.emptyEnd() // under the lock, or up would leave and close the end meanwhile
	r.mu.Unlock()
	t.Reset()
	r.end.Close()
}

// emptyEnd takes no more from the program and drops what is unread, which
// would be a reset. r.mu is held.
func (r *relay) emptyEnd() {
	unix.Shutdown(r.end.FD(), unix.SHUT_RDWR)
	buf := buffers.Get().(*[relayBuffer]byte)
	defer buffers.Put(buf)
	for {
		if n, _, err := addfd.Recv(r.end.FD(), buf[:]); n == 0 || err != nil {
			return
		}
	}
}
