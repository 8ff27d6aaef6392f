package broker

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/poemq/poemq/quic"
	"golang.org/x/sys/unix"
)

func placeAt(port int) place {
	return place{1, 1000, netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), uint16(port))}
}

func TestMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &Broker{}
		f := Fallback{Remember: time.Minute, Entries: 3}
		b.SetFallback(f)
		m := &b.memory
		if m.has(placeAt(1)) {
			t.Error("an empty memory has something")
		}
		for port := 1; port <= 3; port++ {
			m.learn(placeAt(port), "UDP unanswered", f)
			time.Sleep(time.Second)
		}
		m.learn(placeAt(1), "UDP filtered", f) // is now the youngest
		m.learn(placeAt(4), "UDP unanswered", f)
		if m.has(placeAt(2)) || !m.has(placeAt(1)) || !m.has(placeAt(3)) || !m.has(placeAt(4)) {
			t.Errorf("not the oldest was dropped: %+v", b.Remembered())
		}
		for _, other := range []place{{2, 1000, placeAt(1).remote}, {1, 0, placeAt(1).remote}} {
			if m.has(other) {
				t.Errorf("%+v is another place", other)
			}
		}
		if all := b.Remembered(); len(all) != 3 || all[1].Reason != "UDP filtered" || all[1].Remote != placeAt(1).remote || all[1].Expires.Sub(all[1].Since) != time.Minute {
			t.Errorf("%+v", all)
		}
		if n := b.Forget(placeAt(4).remote); n != 1 || m.has(placeAt(4)) {
			t.Errorf("%d forgotten", n)
		}
		m.forget(placeAt(1))
		m.forget(placeAt(1))
		if len(b.Remembered()) != 1 {
			t.Errorf("%+v", b.Remembered())
		}
		time.Sleep(time.Minute)
		if m.has(placeAt(3)) || len(b.Remembered()) != 0 {
			t.Error("nothing is remembered for ever")
		}
		for port := 1; port <= 3; port++ {
			m.learn(placeAt(port), "", f)
		}
		b.SetFallback(Fallback{Remember: time.Minute, Entries: 1})
		if all := b.Remembered(); len(all) != 1 || all[0].Remote != placeAt(3).remote {
			t.Errorf("%+v", all)
		}
		b.SetFallback(Fallback{Entries: 1})
		m.learn(placeAt(9), "", *b.fallback.Load())
		if len(b.Remembered()) != 0 {
			t.Error("remembers though it is told not to")
		}
	})
}

// A closed port is believed the longer the more often it is found.
func TestMemoryOfClosedPort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, f := &memory{}, Fallback{Remember: 15 * time.Second, Entries: 3}
		for i, want := range []time.Duration{firstTrust, 2 * firstTrust, f.Remember, f.Remember} {
			m.learn(placeAt(1), portClosed, f)
			time.Sleep(want - time.Millisecond)
			if !m.has(placeAt(1)) {
				t.Errorf("time %d: forgotten before %v", i+1, want)
			}
			time.Sleep(time.Millisecond)
			if m.has(placeAt(1)) {
				t.Errorf("time %d: still known after %v", i+1, want)
			}
		}
		m.forget(placeAt(1)) // QUIC was answered
		m.learn(placeAt(1), portClosed, f)
		time.Sleep(firstTrust)
		if m.has(placeAt(1)) {
			t.Error("what was known before counts after QUIC was answered")
		}
	})
}

func TestNotQUIC(t *testing.T) {
	dial := func(op string, errno unix.Errno, err error) error {
		return &quic.DialError{Op: op, Errno: errno, Err: err}
	}
	for _, tc := range []struct {
		name  string
		err   error
		heard bool
		want  string // empty: nothing is learnt
	}{
		{"silent", nil, false, "UDP unanswered"},
		{"slow", nil, true, ""},
		{"closed", dial("handshake", unix.ECONNREFUSED, unix.ECONNREFUSED), false, "UDP port closed"},
		{"filtered", dial("handshake", unix.EHOSTUNREACH, unix.EHOSTUNREACH), false, "UDP filtered (EHOSTUNREACH)"},
		{"a rule here", dial("socket", unix.EACCES, unix.EPERM), false, "UDP filtered (EACCES)"},
		{"timeout", dial("handshake", unix.ETIMEDOUT, errors.New("timeout")), false, "UDP unanswered"},
		{"another QUIC", dial("handshake", unix.ECONNREFUSED, fmt.Errorf("%w: no", quic.ErrNotPoemq)), true, "another protocol over QUIC"},
		{"the peer's poemq says so", dial("answer", unix.ECONNREFUSED, unix.ECONNREFUSED), true, ""},
		{"no descriptors", dial("socket", unix.EMFILE, unix.EMFILE), false, ""},
		{"we end", dial("handshake", unix.ECANCELED, quic.ErrHostClosed), false, ""},
		{"identity", dial("handshake", unix.ECONNREFUSED, quic.ErrIdentity), true, ""},
	} {
		if got, ok := notQUIC(tc.err, tc.heard); ok != (tc.want != "") || ok && got != tc.want {
			t.Errorf("%s: %q, %v, want %q", tc.name, got, ok, tc.want)
		}
	}
}
