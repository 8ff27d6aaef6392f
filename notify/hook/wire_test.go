package hook

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"testing"
)

func TestHelloComesBack(t *testing.T) {
	for _, h := range []Hello{
		{fds: helloEnd},
		{Session: SessionID{1, 2, 15: 9}, PID: 77, Quic: "require", Name: "nc", Match: [][3]int{{2, 1, 0}, {10, 1, 262}}, fds: helloEnd | helloNetNS},
	} {
		got, err := DecodeHello(h.encode())
		if err != nil || !reflect.DeepEqual(*got, h) {
			t.Errorf("%+v became %+v, %v", h, got, err)
		}
	}
}

func FuzzHello(f *testing.F) {
	h := Hello{PID: 1, Match: [][3]int{{2, 1, 6}}, Name: "curl", Quic: "off", fds: helloEnd}
	whole := h.encode()
	f.Add(whole)
	f.Add(whole[:sizeHello])
	f.Add([]byte(magic))
	f.Add([]byte(`{"ociVersion":"1.0.2"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := DecodeHello(b)
		if (h == nil) == (err == nil) {
			t.Fatalf("%v, %v", h, err)
		}
		if err == nil && !bytes.Equal(h.encode(), b) {
			t.Errorf("%x is read as %+v, which is written as %x", b, h, h.encode())
		}
	})
}

func FuzzMessage(f *testing.F) {
	f.Add(callBytes(1, 42, [6]uint64{3, 0x1000, 16}, mem{0x1000, make([]byte, 16)}))
	f.Add(callBytes(2, 54, [6]uint64{3}))
	f.Add(make([]byte, sizeCall))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decode(b)
		if (m == nil) == (err == nil) {
			t.Fatalf("%v, %v", m, err)
		}
		if err != nil {
			return
		}
		sum := 0
		for _, p := range m.mems {
			sum += len(p.data)
		}
		if len(m.mems) > maxMem || sum > len(b)-sizeCall || m.kind == 0 {
			t.Errorf("%+v of %d bytes", m, len(b))
		}
		// Nothing that a call says may be read beyond what came with it, but
		// from the process itself, of which there is none here.
		r := newCall(nil, &conn{p: &process{pid: -1}}, m)
		for _, p := range m.mems {
			one := make([]byte, 1)
			if err := r.Read(p.addr+uint64(len(p.data)), one); err == nil && !elsewhere(m, p.addr+uint64(len(p.data))) {
				t.Errorf("a byte beyond %#x+%d is read", p.addr, len(p.data))
			}
		}
	})
}

func elsewhere(m *message, addr uint64) bool {
	for _, p := range m.mems {
		if addr >= p.addr && addr-p.addr < uint64(len(p.data)) {
			return true
		}
	}
	return false
}

// callBytes is a call as the library sends it.
func callBytes(id uint32, nr int32, args [6]uint64, mems ...mem) []byte {
	b := make([]byte, sizeCall)
	ne.PutUint32(b, kindCall)
	ne.PutUint32(b[4:], id)
	ne.PutUint32(b[8:], uint32(nr))
	for i, a := range args {
		ne.PutUint64(b[16+8*i:], a)
	}
	ne.PutUint32(b[68:], uint32(len(mems)))
	for i, m := range mems {
		ne.PutUint64(b[72+16*i:], m.addr)
		ne.PutUint32(b[80+16*i:], uint32(len(m.data)))
		b = append(b, m.data...)
	}
	return b
}

// The library's header and this package say the same numbers.
func TestHeaderAgrees(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "zpoline", "hook_wire.h"))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]int{
		"PQ_VERSION": version, "PQ_SESSION_ID": idSize, "PQ_MATCHES": maxMatch, "PQ_NAME": maxName,
		"PQ_MEMS": maxMem, "PQ_WRITES": maxWrites, "PQ_REPLACES": maxReplace,
		"PQ_CALL": kindCall, "PQ_CANCEL": kindCancel, "PQ_TAKEN": kindTaken,
		"PQ_WELCOME": answerWelcome, "PQ_REFUSED": answerRefused, "PQ_CONTINUE": answerContinue,
		"PQ_RETURN": answerReturn, "PQ_INSTALL": answerInstall, "PQ_CANCELLED": answerCancelled,
		"PQ_HAS_END": helloEnd, "PQ_HAS_NETNS": helloNetNS, "PQ_HAS_DOOR": helloDoor,
		"PQ_CALL_FILE": callFile, "PQ_CALL_NETNS": callNetNS,
	} {
		m := regexp.MustCompile(`\b` + name + ` = (\d+)`).FindSubmatch(text)
		if m == nil {
			t.Errorf("%s is not in hook_wire.h", name)
		} else if got, _ := strconv.Atoi(string(m[1])); got != want {
			t.Errorf("%s is %d in hook_wire.h, %d here", name, got, want)
		}
	}
	for name, want := range map[string]int{"pq_hello": sizeHello, "pq_call": sizeCall, "pq_answer": sizeAnswer} {
		if !bytes.Contains(text, []byte("sizeof(struct "+name+") == "+strconv.Itoa(want))) {
			t.Errorf("struct %s is not asserted to be %d bytes in hook_wire.h", name, want)
		}
	}
}
