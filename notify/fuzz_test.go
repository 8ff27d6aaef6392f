package notify

import (
	"bytes"
	"os"
	"testing"
)

// FuzzStatus: a program's own name in /proc/TID/status gives it no capability.
func FuzzStatus(f *testing.F) {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte("Name:\tx\nUid:\t0\nCapEff:\tzz\nTgid:\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c := Creds{TGID: 7}
		c.readStatus(b)
		if (c.CapNetAdmin || c.CapNetBind) && !bytes.Contains(b, []byte("CapEff")) {
			t.Errorf("%+v without a line that says so", c)
		}
		if c.UID != 0 && !bytes.Contains(b, []byte("Uid")) {
			t.Errorf("%+v without a line that says so", c)
		}
	})
}

// FuzzRegistration: what is found in the text of fdinfo is what was asked for.
func FuzzRegistration(f *testing.F) {
	f.Add([]byte("pos:\t0\ntfd:        5 events:       19 data:        500000005  pos:0 ino:61af sdev:7\n"), 5, uint64(0x61af))
	f.Fuzz(func(t *testing.T, info []byte, n int, ino uint64) {
		e, ok := findRegistration(info, n, ino)
		if !ok && e.Events != 0 || ok && !bytes.Contains(info, []byte("tfd")) {
			t.Errorf("%+v, %v", e, ok)
		}
	})
}
