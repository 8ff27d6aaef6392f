package hook

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Of hook_wire.h.
const (
	magic     = "pmqh"
	version   = 1
	idSize    = 16
	maxMatch  = 32
	maxName   = 64
	maxMem    = 2
	maxWrites = 2
	maxData   = 4096 + 256
	// maxReplace is how many descriptors an answer can replace.
	maxReplace = 16

	sizeHello  = 32
	sizeCall   = 104
	sizeMem    = 16
	sizeAnswer = 120

	// maxMessage bounds every message to the broker.
	maxMessage = sizeCall + maxData
)

// Kinds of messages to the broker, and of answers.
const (
	kindCall   = 1
	kindCancel = 2
	kindTaken  = 3

	answerWelcome   = 1
	answerRefused   = 2
	answerContinue  = 3
	answerReturn    = 4
	answerInstall   = 5
	answerCancelled = 6
)

// Descriptors that come with a hello or a call, in the bits' order.
const (
	helloEnd = 1 << iota
	helloNetNS
	helloDoor
)

const (
	callFile = 1 << iota
	callNetNS
)

var (
	ne = binary.NativeEndian

	errShort = errors.New("a message is cut short")
)

// SessionID groups the processes of one tree. Who knows it belongs to it.
type SessionID [idSize]byte

// Hello is how a process introduces itself.
type Hello struct {
	Session SessionID
	// PID is the process's own, in its pid namespace.
	PID int
	// Quic is require, prefer, off, or empty for as the broker is configured.
	Quic string
	// Match lists domain, type, protocol of the sockets that are substituted.
	Match [][3]int
	// Name of the program, for logs.
	Name string

	fds uint8
}

var quicModes = [...]string{"", "require", "prefer", "off"}

// IsHello reports that a message that begins with b is a hello, and not a
// handover's JSON.
func IsHello(b []byte) bool { return len(b) >= len(magic) && string(b[:len(magic)]) == magic }

// DecodeHello reads one whole hello.
func DecodeHello(b []byte) (*Hello, error) {
	if len(b) < sizeHello || !IsHello(b) {
		return nil, errShort
	}
	if v := ne.Uint16(b[4:]); v != version {
		return nil, fmt.Errorf("the hook library speaks version %d, this poemqd %d: install both of one version", v, version)
	}
	h := &Hello{Session: SessionID(b[8:]), PID: int(int32(ne.Uint32(b[24:]))), fds: b[31]}
	quic, matches, name := int(b[28]), int(b[29]), int(b[30])
	if quic >= len(quicModes) || matches > maxMatch || name > maxName || h.fds&helloEnd == 0 {
		return nil, errors.New("a hello is out of its limits")
	}
	if size := sizeHello + 12*matches + name; int(ne.Uint16(b[6:])) != size || len(b) != size {
		return nil, errShort
	}
	h.Quic = quicModes[quic]
	b = b[sizeHello:]
	for range matches {
		h.Match = append(h.Match, [3]int{int(int32(ne.Uint32(b))), int(int32(ne.Uint32(b[4:]))), int(int32(ne.Uint32(b[8:])))})
		b = b[12:]
	}
	h.Name = string(b)
	return h, nil
}

// encode is the hello as the library would send it.
func (h *Hello) encode() []byte {
	b := make([]byte, sizeHello, sizeHello+12*len(h.Match)+len(h.Name))
	copy(b, magic)
	ne.PutUint16(b[4:], version)
	ne.PutUint16(b[6:], uint16(cap(b)))
	copy(b[8:], h.Session[:])
	ne.PutUint32(b[24:], uint32(h.PID))
	for i, q := range quicModes {
		if q == h.Quic {
			b[28] = byte(i)
		}
	}
	b[29], b[30], b[31] = byte(len(h.Match)), byte(len(h.Name)), h.fds
	for _, m := range h.Match {
		for _, v := range m {
			b = ne.AppendUint32(b, uint32(v))
		}
	}
	return append(b, h.Name...)
}

// mem is a piece of the caller's memory that came with the call.
type mem struct {
	addr uint64
	data []byte
}

// message is one packet on a connection that is no hello.
type message struct {
	kind, id uint32
	nr       int32 // of a receipt: the descriptor, or minus an errno
	tid      int32
	args     [6]uint64
	fds      uint32
	mems     []mem
}

// decode reads one packet; the memory in it stays b's.
func decode(b []byte) (*message, error) {
	if len(b) < sizeCall {
		return nil, errShort
	}
	m := &message{kind: ne.Uint32(b), id: ne.Uint32(b[4:]), nr: int32(ne.Uint32(b[8:])), tid: int32(ne.Uint32(b[12:])), fds: ne.Uint32(b[64:])}
	for i := range m.args {
		m.args[i] = ne.Uint64(b[16+8*i:])
	}
	n := ne.Uint32(b[68:])
	if n > maxMem || m.fds&^(callFile|callNetNS) != 0 || m.kind < kindCall || m.kind > kindTaken {
		return nil, errors.New("a message is out of its limits")
	}
	head, data := b[72:sizeCall], b[sizeCall:]
	for range n {
		piece := mem{addr: ne.Uint64(head)}
		size, unreadable := int(ne.Uint32(head[8:])), ne.Uint32(head[12:]) != 0
		head = head[sizeMem:]
		if unreadable {
			continue
		}
		if size > len(data) {
			return nil, errShort
		}
		piece.data, data = data[:size:size], data[size:]
		m.mems = append(m.mems, piece)
	}
	if len(data) != 0 {
		return nil, errors.New("more memory came than was told of")
	}
	return m, nil
}

// answer is what the library does for a call.
type answer struct {
	kind, id uint32
	val      int64
	writes   []write
	replace  []int32
}

type write struct {
	addr uint64
	data []byte
}

func (a *answer) encode() []byte {
	b := make([]byte, sizeAnswer, sizeAnswer+64)
	ne.PutUint32(b, a.kind)
	ne.PutUint32(b[4:], a.id)
	ne.PutUint64(b[8:], uint64(a.val))
	ne.PutUint32(b[16:], uint32(len(a.writes)))
	ne.PutUint32(b[20:], uint32(len(a.replace)))
	for i, n := range a.replace {
		ne.PutUint32(b[56+4*i:], uint32(n))
	}
	for i, w := range a.writes {
		ne.PutUint64(b[24+16*i:], w.addr)
		ne.PutUint32(b[32+16*i:], uint32(len(w.data)))
		b = append(b, w.data...)
	}
	return b
}

// refusal is the answer to a hello that says why not.
func refusal(why error) []byte {
	text := why.Error()
	return append((&answer{kind: answerRefused}).encode(), text[:min(len(text), 250)]...)
}

// files are descriptors that came with a message, in their order. Each is taken
// at most once; close closes the rest.
type files []int

// take gives the next one if it was announced, else -1.
func (f *files) take(announced bool) int {
	if !announced || len(*f) == 0 {
		return -1
	}
	fd := (*f)[0]
	*f = (*f)[1:]
	return fd
}

func (f *files) close() {
	for _, fd := range *f {
		unix.Close(fd)
	}
	*f = nil
}
