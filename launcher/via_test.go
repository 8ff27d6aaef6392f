package launcher

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/poemq/poemq/launcher/filter"
	"github.com/poemq/poemq/notify/hook"
)

// The broker reads the launcher's hello as it is meant.
func TestHello(t *testing.T) {
	o := Options{Quic: QuicRequire, Matches: []filter.Match{{Domain: 2, Type: 1, Proto: 6}, {Domain: 10, Type: 1}}}
	for _, name := range []string{"", "nc", strings.Repeat("long", 40)} {
		h, err := hook.DecodeHello(hello(77, o, name, [16]byte{1, 15: 2}))
		if err != nil {
			t.Fatal(err)
		}
		want := hook.Hello{Session: hook.SessionID{1, 15: 2}, PID: 77, Quic: "require", Match: [][3]int{{2, 1, 6}, {10, 1, 0}}, Name: name[:min(len(name), mostName)]}
		if got := (hook.Hello{Session: h.Session, PID: h.PID, Quic: h.Quic, Match: h.Match, Name: h.Name}); !reflect.DeepEqual(got, want) {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
}

func TestCatchableFiles(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	loop := filepath.Join(dir, "loop")
	for path, why := range map[string]string{
		"/bin/sh":                                            "",
		file("script", "#! /bin/sh -e\n"):                    "",
		file("text", "hello"):                                "", // execve(2) refuses it
		file("empty", ""):                                    "",
		file("loop", "#!"+loop+"\n"):                         "",
		file("arm", string(elfOf(183, 3))):                   "no x86-64",
		file("i386", "\x7fELF\x01\x01\x01"):                  "no x86-64",
		file("static", string(elfOf(62, 1))):                 "statically linked",
		file("dynamic", string(elfOf(62, ptInterp))):         "",
		file("of static", "#!"+filepath.Join(dir, "static")): "statically linked",
	} {
		err := catchableFile(path, 0)
		if (err == nil) != (why == "") || err != nil && !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v, want %q", path, err, why)
		}
	}
}

// elfOf is an ELF file with one program header.
func elfOf(machine uint16, kind uint32) []byte {
	b := make([]byte, sizeEhdr+sizePhdr)
	copy(b, "\x7fELF\x02\x01\x01")
	le := binary.LittleEndian
	le.PutUint16(b[offMachine:], machine)
	le.PutUint64(b[offPhoff:], sizeEhdr)
	le.PutUint16(b[offPhentnum:], 1)
	le.PutUint32(b[sizeEhdr:], kind)
	return b
}

func FuzzELF(f *testing.F) {
	f.Add(elfOf(62, ptInterp))
	f.Add(elfOf(62, 1)[:70])
	f.Fuzz(func(t *testing.T, b []byte) {
		dynamic, machine := elf(bytes.NewReader(b), b[:min(len(b), 4096)])
		if dynamic && len(b) < sizeEhdr+sizePhdr || machine != 0 && len(b) < sizeEhdr {
			t.Errorf("%d bytes: dynamic %v, machine %d", len(b), dynamic, machine)
		}
	})
}

func TestPreload(t *testing.T) {
	for given, want := range map[string]string{
		"": "/z.so", "LD_PRELOAD=/a.so": "/z.so:/a.so", "LD_PRELOAD=/a.so /z.so:/b.so": "/z.so:/a.so:/b.so",
	} {
		if got := preload("/z.so", []string{"A=b", given}); got != want {
			t.Errorf("%s: %s, want %s", given, got, want)
		}
	}
	if got := with([]string{"A=1", "B=2", "A=3"}, "A", "4"); !slices.Equal(got, []string{"B=2", "A=4"}) {
		t.Error(got)
	}
	if got := with([]string{"A=1", "B=2"}, "A", ""); !slices.Equal(got, []string{"B=2"}) {
		t.Error(got)
	}
}
