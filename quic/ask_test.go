package quic

import (
	"errors"
	"net/netip"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// A server whose open port does not mean that its program listens says so in the
// handshake: a refusal is then the connect's, and no reset later.
func TestAsk(t *testing.T) {
	fastHere(t)
	for _, ask := range []bool{false, true} {
		var accepts atomic.Bool
		e, err := testHost(t, nil).Listen(nil, addrPort("127.0.0.1:0"), ListenOptions{Ask: ask}, func(in *Incoming) {
			if accepts.Load() {
				in.Accept()
			} else {
				in.Refuse(unix.ECONNREFUSED)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		client := testHost(t, nil)
		try := func() (*Stream, error) {
			return client.Dial(testContext(t), Peer{Remote: netip.AddrPortFrom(e.Addr().Addr(), e.Addr().Port())}, 1, nil)
		}
		st, err := try()
		if ask {
			wantErrno(t, err, unix.ECONNREFUSED)
		} else if err != nil {
			t.Errorf("the first stream of a fresh connection: %v", err)
		} else if _, err := st.Read(make([]byte, 1)); !errors.Is(err, ErrReset) {
			t.Errorf("a refusal after connect: %v", err)
		}
		accepts.Store(true)
		for i, fast := range []bool{false, true} { // a stream was accepted: the next need not wait
			st, err := try()
			if err != nil {
				t.Fatalf("stream %d: %v", i, err)
			}
			if st.awaits.status != fast {
				t.Errorf("Ask %v, stream %d: opened fast is %v", ask, i, st.awaits.status)
			}
		}
	}
}
