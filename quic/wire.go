package quic

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	quicgo "github.com/quic-go/quic-go"
)

// ALPN is the application protocol both sides name in the TLS handshake
// (RFC 7301, RFC 9001 section 8.1). docs/wire.md describes the protocol.
const ALPN = "poemq/1"

// alpnAsk is what a server names instead, if the client did too, whose open port
// does not mean that a program listens: the same protocol, but a client has to
// wait for a stream's status before it takes it for open.
const alpnAsk = ALPN + ";ask"

// Codes of CONNECTION_CLOSE frames of type 0x1d (RFC 9000 section 19.19).
const (
	connDone    quicgo.ApplicationErrorCode = 0x0 // every stream is over, nothing is lost
	connClosing quicgo.ApplicationErrorCode = 0x1 // the host shuts down; living streams are lost
	connRefused quicgo.ApplicationErrorCode = 0x2 // nobody listens on this port any more
	connLost    quicgo.ApplicationErrorCode = 0x3 // the peer was found dead
	connProto   quicgo.ApplicationErrorCode = 0x4 // the peer broke the protocol
	connLimit   quicgo.ApplicationErrorCode = 0x5 // the peer has, or holds, too much here
)

// Codes of RESET_STREAM, RESET_STREAM_AT and STOP_SENDING frames.
const (
	streamReset   quicgo.StreamErrorCode = 0x1 // TCP's RST
	streamStopped quicgo.StreamErrorCode = 0x2 // the reading program has closed its socket
	streamGivenUp quicgo.StreamErrorCode = 0x3 // the connecting program gave up before the answer
	streamHeader  quicgo.StreamErrorCode = 0x4 // the stream header was malformed or late
	streamRefused quicgo.StreamErrorCode = 0x5 // follows a status that is not OK
)

// status is the accepting side's answer to a stream header: one byte.
type status byte

const (
	statusOK          status = 0x00
	statusRefused     status = 0x01
	statusTimeout     status = 0x02
	statusHostUnreach status = 0x03
	statusNetUnreach  status = 0x04
	statusDenied      status = 0x05
	statusReset       status = 0x06
	statusBusy        status = 0x07
	statusBadHeader   status = 0x08
	statusVersion     status = 0x09
)

// statusErrno is the one table of what a status means to the program. Several
// errnos may share a status; the first line of a status is how it is read.
var statusErrno = []struct {
	s status
	e unix.Errno
}{
	{statusRefused, unix.ECONNREFUSED},
	{statusTimeout, unix.ETIMEDOUT},
	{statusHostUnreach, unix.EHOSTUNREACH},
	{statusNetUnreach, unix.ENETUNREACH},
	{statusDenied, unix.EACCES},
	{statusDenied, unix.EPERM},
	{statusReset, unix.ECONNRESET},
	{statusBusy, unix.EAGAIN},
	{statusBadHeader, unix.EPROTO},
	{statusVersion, unix.EPROTONOSUPPORT},
}

// errno is what the connecting program gets. An unknown status is a refusal;
// so is "busy", because connect(2) on a TCP socket has no other word for it.
func (s status) errno() unix.Errno {
	if s == statusBusy {
		return unix.ECONNREFUSED
	}
	for _, l := range statusErrno {
		if l.s == s {
			return l.e
		}
	}
	return unix.ECONNREFUSED
}

// statusOf is the inverse; an errno without a status of its own is a refusal.
func statusOf(e unix.Errno) status {
	for _, l := range statusErrno {
		if l.e == e {
			return l.s
		}
	}
	return statusRefused
}

// Errors of streams, endpoints and dials. Test with errors.Is.
var (
	// ErrReset: the peer reset the stream, as a TCP RST does (ECONNRESET).
	ErrReset = errors.New("stream reset by peer")
	// ErrGivenUp is an ErrReset by a connecting side that had no answer yet.
	ErrGivenUp = fmt.Errorf("%w before it had the answer", ErrReset)
	// ErrStopped: the peer's program has closed its socket, what we write
	// can reach nobody (EPIPE). Reading is not affected.
	ErrStopped = errors.New("peer reads no more")
	// ErrLost: the connection under the stream is dead. Never an io.EOF.
	ErrLost = errors.New("connection lost")
	// ErrIdentity: the peer is not who it has to be, or refuses us for that
	// reason. The error tells what to do; mostly it is an *IdentityError.
	ErrIdentity = errors.New("peer identity not accepted")
	// ErrNotPoemq: what answers there is QUIC, but not ours.
	ErrNotPoemq = errors.New("peer does not speak " + ALPN)
	// ErrHostClosed: the Host was closed.
	ErrHostClosed = errors.New("host closed")
)
