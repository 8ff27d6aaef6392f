package quic

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// TestHeaderGolden holds the encoding still: docs/wire.md shows these octets.
func TestHeaderGolden(t *testing.T) {
	for _, c := range []struct {
		hex string
		h   header
	}{
		{"01060000c0000000", header{ClientPort: 49152}},
		{"01060000c00001bb", header{ClientPort: 49152, ServerPort: 443}},
		{"010a0000000100500202beef", header{ClientPort: 1, ServerPort: 80, Extensions: []extension{{2, []byte{0xbe, 0xef}}}}},
	} {
		if got := hex.EncodeToString(c.h.append(nil)); got != c.hex {
			t.Errorf("encode %+v: %s, want %s", c.h, got, c.hex)
		}
		b, _ := hex.DecodeString(c.hex + "ff") // what follows must stay
		r := bytes.NewReader(b)
		h, err := readHeader(r)
		if err != nil || r.Len() != 1 || !cmp.Equal(h, c.h) {
			t.Errorf("decode %s: %+v, %v, %d octets left", c.hex, h, err, r.Len())
		}
	}
}

func TestHeaderRefused(t *testing.T) {
	for _, c := range []struct {
		name, hex string
		want      error
	}{
		{"nothing", "", errHeader},
		{"version 2", "02060000c0000000", errHeaderVersion},
		{"version only", "01", errHeader},
		{"cut", "01060000c000", errHeader},
		{"too long", "014401", errHeader},
		{"empty body", "0100", errHeader},
		{"type 1", "01060100c0000000", errHeader},
		{"flags", "01060001c0000000", errHeader},
		{"client port 0", "0106000000000050", errHeader},
		{"critical extension", "01080000c00000000100", errHeader},
		{"extension twice", "010a0000c000000002000200", errHeader},
		{"cut extension", "01080000c00000000201", errHeader},
		{"17 extensions", "01280000c0000000" + strings.Repeat("0200", 17), errHeader},
	} {
		b, err := hex.DecodeString(c.hex)
		if err != nil {
			t.Fatal(err)
		}
		if h, err := readHeader(bytes.NewReader(b)); !errors.Is(err, c.want) {
			t.Errorf("%s: %+v, %v, want %v", c.name, h, err, c.want)
		}
	}
}

func TestStatus(t *testing.T) {
	for _, e := range []unix.Errno{unix.ECONNREFUSED, unix.ETIMEDOUT, unix.EHOSTUNREACH, unix.ENETUNREACH, unix.EACCES, unix.ECONNRESET} {
		if got := statusOf(e).errno(); got != e {
			t.Errorf("%v becomes %v", e, got)
		}
	}
	for s := range 256 {
		if e := status(s).errno(); e == 0 {
			t.Errorf("status %#x has no errno", s)
		}
	}
	if statusOf(0) == statusOK || statusOf(unix.ENOENT) != statusRefused {
		t.Error("an unknown errno is not a refusal")
	}
}

// FuzzHeader: the decoder never panics, takes no more than it may, and what it
// accepts means the same when encoded again.
func FuzzHeader(f *testing.F) {
	h := header{ClientPort: 49152, ServerPort: 443, Extensions: []extension{{2, []byte("value")}}}
	f.Add(h.append(nil))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		h, err := readHeader(r)
		if used := len(b) - r.Len(); used > 16+maxHeaderBody {
			t.Fatalf("%d octets read", used)
		}
		if err != nil {
			if !errors.Is(err, errHeader) && !errors.Is(err, errHeaderVersion) && !errors.Is(err, io.EOF) {
				t.Fatalf("unexpected kind of error: %v", err)
			}
			return
		}
		again, err := readHeader(bytes.NewReader(h.append(nil)))
		if err != nil || !cmp.Equal(h, again) {
			t.Fatalf("%+v encodes to %+v, %v", h, again, err)
		}
	})
}

// FuzzPins: the parser of known_peers never panics.
func FuzzPins(f *testing.F) {
	f.Add([]byte("# comment\n192.0.2.1:80 sha256:AAAA 2026-01-01\n[::1]:80@blue sha256:BBBB 2026-01-01"))
	f.Fuzz(func(t *testing.T, b []byte) { parsePins(b) })
}
