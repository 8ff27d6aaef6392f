package quic

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"

	"golang.org/x/sys/unix"

	quicgo "github.com/quic-go/quic-go"
)

// DialError is every error of Host.Dial. errors.As finds Errno in it, which is
// what the program's connect(2) should give; errors.Is finds ErrIdentity,
// ErrNotPoemq and the cause.
type DialError struct {
	Op    string // "socket", "handshake", "open" (the stream), "answer"
	Peer  Peer
	Errno unix.Errno
	Err   error
}

func (e *DialError) Error() string {
	return fmt.Sprintf("quic %s %v: %v (%s)", e.Op, e.Peer.Remote, e.Err, unix.ErrnoName(e.Errno))
}

// Unwrap gives the errno first, so that errors.As for a unix.Errno finds the
// one meant for the program.
func (e *DialError) Unwrap() []error { return []error{e.Errno, e.Err} }

// dialError chooses the errno. err keeps its own identity.
func dialError(op string, p Peer, err error) *DialError {
	if de, ok := errors.AsType[*DialError](err); ok {
		return de
	}
	if notPoemq(err) {
		err = fmt.Errorf("%w: %w", ErrNotPoemq, err)
	}
	return &DialError{Op: op, Peer: p, Errno: dialErrno(err), Err: err}
}

func dialErrno(err error) unix.Errno {
	if e, ok := errors.AsType[unix.Errno](err); ok {
		if e == unix.EPERM { // a firewall rule, see iptables-extensions(8)
			return unix.EACCES
		}
		return e
	}
	var (
		ae *quicgo.ApplicationError
		te *quicgo.TransportError
		ne net.Error
	)
	switch {
	case errors.Is(err, ErrIdentity), errors.Is(err, ErrNotPoemq), errors.As(err, &ae):
		return unix.ECONNREFUSED
	case errors.Is(err, context.Canceled), errors.Is(err, ErrHostClosed):
		return unix.ECANCELED
	case errors.Is(err, context.DeadlineExceeded):
		return unix.ETIMEDOUT
	case errors.As(err, &ne) && ne.Timeout():
		return unix.ETIMEDOUT
	case errors.As(err, &te):
		return unix.ECONNREFUSED
	}
	return unix.ECONNRESET
}

// notPoemq recognizes a QUIC peer that is not one of us: another version, or
// the TLS alert no_application_protocol (120; RFC 9001 section 4.8), theirs or
// ours.
func notPoemq(err error) bool {
	var (
		te *quicgo.TransportError
		ve *quicgo.VersionNegotiationError
	)
	return errors.As(err, &te) && te.ErrorCode == 0x100+120 || errors.As(err, &ve)
}

// streamError turns quic-go's error of a read or write into ours. This is the
// one place where the end of a stream gets its meaning.
func streamError(err error) error {
	if err == nil || err == io.EOF || err == net.ErrClosed {
		return err
	}
	var se *quicgo.StreamError
	if errors.As(err, &se) {
		switch {
		case !se.Remote:
			return net.ErrClosed
		case se.ErrorCode == streamStopped:
			return ErrStopped
		case se.ErrorCode == streamGivenUp:
			return ErrGivenUp
		default:
			return fmt.Errorf("%w (code %#x)", ErrReset, uint64(se.ErrorCode))
		}
	}
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() && !errors.Is(err, net.ErrClosed) {
		return err // a deadline of our own
	}
	if errors.Is(err, quicgo.ErrStreamClosed) {
		return net.ErrClosed
	}
	return fmt.Errorf("%w: %w", ErrLost, err)
}
