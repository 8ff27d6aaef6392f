package plainquic

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// What a stream is for.
const (
	opSink = 1 + iota
	opSource
	opEcho
	opTotal
)

const (
	magic  = "poemqld\n"
	most   = 1 << 18 // octets of the largest write or read
	period = 131071  // of the pattern: a prime, so that a lost or doubled block shows
	sample = 64      // octets of each read that are compared
)

// ask is the first message on a stream; an echo sends it back.
type ask struct {
	Magic  [8]byte
	Op     uint32
	Size   uint32 // octets of a write or a message; for opTotal the number of streams
	Run    uint64 // which run the stream's octets are counted for
	NS     uint64 // how long a source writes
	Offset uint64 // where in the pattern the stream begins
	Full   uint32 // compare every octet, not a sample of each read
	_      [5]uint32
}

const askSize = 64

// total is the answer to opTotal.
type total struct {
	Bytes uint64
	Bad   uint64 // streams that did not carry the pattern
}

func newAsk(op, size int, run uint64) ask {
	a := ask{Op: uint32(op), Size: uint32(size), Run: run}
	copy(a.Magic[:], magic)
	return a
}

func (a *ask) encode() []byte {
	var b bytes.Buffer
	_ = binary.Write(&b, binary.LittleEndian, a) // of fixed size: cannot fail
	return b.Bytes()
}

func readAsk(r io.Reader) (a ask, err error) {
	if err := binary.Read(r, binary.LittleEndian, &a); err != nil {
		return a, err
	}
	if string(a.Magic[:]) != magic || a.Size > most {
		return a, fmt.Errorf("the first message is not ours: %+v", a)
	}
	return a, nil
}

// pattern is long enough for a write of the most from anywhere in the period.
var pattern = func() []byte {
	p := make([]byte, period+most)
	x := uint64(88172645463325252)
	for i := range period {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		p[i] = byte(x >> 32)
	}
	for i := range most {
		p[period+i] = p[i%period]
	}
	return p
}()

// drain reads to the end and reports whether it was the pattern.
func drain(r io.Reader, offset uint64, full bool) (got uint64, ok bool, err error) {
	buffer := make([]byte, 1<<17)
	for ok = true; ; {
		n, err := r.Read(buffer)
		look := n
		if !full {
			look = min(n, sample)
		}
		if !bytes.Equal(buffer[:look], pattern[(offset+got)%period:][:look]) {
			ok = false
		}
		got += uint64(n)
		if errors.Is(err, io.EOF) {
			return got, ok, nil
		}
		if err != nil {
			return got, ok, err
		}
	}
}

// pour writes the pattern in pieces of size while more says so.
func pour(w io.Writer, offset uint64, size int, more func() bool) (sent uint64, err error) {
	for {
		n, err := w.Write(pattern[(offset+sent)%period:][:size])
		sent += uint64(n)
		if err != nil || !more() {
			return sent, err
		}
	}
}
