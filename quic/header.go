package quic

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"time"

	quicgo "github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/quicvarint"
)

// The stream header's constants; docs/wire.md draws it.
const (
	headerVersion = 1
	typeConnect   = 0    // "connect to a TCP port"
	maxHeaderBody = 1024 // octets after the length field
	maxExtensions = 16
	// maxShortBody is the longest body whose length field is one octet (RFC 9000
	// section 16).
	maxShortBody = 63
)

// header is what a connecting side sends first on each stream.
type header struct {
	ClientPort uint16 // never 0: the port the program's socket has
	ServerPort uint16 // 0: the port the packets go to
	// Extensions in the order of the wire. An odd type is critical: a
	// receiver that does not know it refuses the stream. This version knows
	// none, so the decoder keeps even ones and refuses odd ones.
	Extensions []extension
}

type extension struct {
	Type  uint64
	Value []byte
}

var (
	errHeader        = errors.New("malformed stream header")
	errHeaderVersion = errors.New("unknown stream header version")
)

// append adds the encoded header to b. Limits are the caller's to keep.
func (h *header) append(b []byte) []byte {
	var body []byte
	body = quicvarint.Append(body, typeConnect)
	body = quicvarint.Append(body, 0) // flags: none defined
	body = append(body, byte(h.ClientPort>>8), byte(h.ClientPort))
	body = append(body, byte(h.ServerPort>>8), byte(h.ServerPort))
	for _, x := range h.Extensions {
		body = quicvarint.Append(body, x.Type)
		body = quicvarint.Append(body, uint64(len(x.Value)))
		body = append(body, x.Value...)
	}
	b = quicvarint.Append(b, headerVersion)
	b = quicvarint.Append(b, uint64(len(body)))
	return append(b, body...)
}

// readHeader takes exactly the header from r, not a byte of what follows. It
// reads at most 16 octets before it knows the length and at most maxHeaderBody
// after. Errors are errHeader, errHeaderVersion or r's own.
func readHeader(r io.Reader) (header, error) {
	br := byteReader{r: r}
	version, err := quicvarint.Read(&br)
	if err != nil {
		return header{}, shortHeader(err)
	}
	if version != headerVersion {
		return header{}, fmt.Errorf("%w %d", errHeaderVersion, version)
	}
	n, err := quicvarint.Read(&br)
	if err != nil {
		return header{}, shortHeader(err)
	}
	if n > maxHeaderBody {
		return header{}, fmt.Errorf("%w: %d octets, at most %d", errHeader, n, maxHeaderBody)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return header{}, shortHeader(err)
	}
	return parseHeaderBody(body)
}

// headerIsHere waits until the whole header can be read from s, until then at the
// longest. False: it cannot, or that is not known, with why.
func headerIsHere(s *quicgo.Stream, until time.Time) (bool, error) {
	if err := s.SetReadDeadline(until); err != nil {
		return false, err
	}
	var b [2 + maxShortBody]byte
	if _, err := s.Peek(b[:2]); err != nil {
		return false, err
	}
	if b[0] != headerVersion || b[1] > maxShortBody {
		return false, nil
	}
	_, err := s.Peek(b[:2+b[1]])
	return err == nil, err
}

// shortHeader turns an end of stream inside the header into errHeader.
func shortHeader(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: ends early", errHeader)
	}
	return err
}

func parseHeaderBody(body []byte) (header, error) {
	r := bytes.NewReader(body)
	kind, err := quicvarint.Read(r)
	if err != nil {
		return header{}, fmt.Errorf("%w: no type", errHeader)
	}
	if kind != typeConnect {
		return header{}, fmt.Errorf("%w: unknown type %d", errHeader, kind)
	}
	flags, err := quicvarint.Read(r)
	if err != nil {
		return header{}, fmt.Errorf("%w: no flags", errHeader)
	}
	if flags != 0 {
		return header{}, fmt.Errorf("%w: unknown flags %#x", errHeader, flags)
	}
	var ports [4]byte
	if _, err := io.ReadFull(r, ports[:]); err != nil {
		return header{}, fmt.Errorf("%w: no ports", errHeader)
	}
	h := header{
		ClientPort: uint16(ports[0])<<8 | uint16(ports[1]),
		ServerPort: uint16(ports[2])<<8 | uint16(ports[3]),
	}
	if h.ClientPort == 0 {
		return header{}, fmt.Errorf("%w: client port 0", errHeader)
	}
	h.Extensions, err = parseExtensions(r)
	return h, err
}

func parseExtensions(r *bytes.Reader) ([]extension, error) {
	var xs []extension
	for r.Len() > 0 {
		if len(xs) == maxExtensions {
			return nil, fmt.Errorf("%w: more than %d extensions", errHeader, maxExtensions)
		}
		kind, err := quicvarint.Read(r)
		if err != nil {
			return nil, fmt.Errorf("%w: cut extension type", errHeader)
		}
		n, err := quicvarint.Read(r)
		if err != nil || n > uint64(r.Len()) {
			return nil, fmt.Errorf("%w: cut extension %d", errHeader, kind)
		}
		if kind%2 == 1 {
			return nil, fmt.Errorf("%w: unknown critical extension %d", errHeader, kind)
		}
		for _, x := range xs {
			if x.Type == kind {
				return nil, fmt.Errorf("%w: extension %d twice", errHeader, kind)
			}
		}
		v := make([]byte, n)
		io.ReadFull(r, v) // cannot fail: n ≤ r.Len()
		xs = append(xs, extension{kind, v})
	}
	return xs, nil
}

// byteReader reads single bytes from r without reading ahead.
type byteReader struct {
	r io.Reader
	b [1]byte
}

func (b *byteReader) ReadByte() (byte, error) {
	_, err := io.ReadFull(b.r, b.b[:])
	return b.b[0], err
}

func (b *byteReader) Read(p []byte) (int, error) { return b.r.Read(p) }
