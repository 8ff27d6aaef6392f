package addfd

import "testing"

// FuzzPeerOf: no answer of sock_diag(7) makes the reader panic or hang.
func FuzzPeerOf(f *testing.F) {
	f.Add(make([]byte, 64))
	f.Add([]byte{36, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xfe, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		if peer, err := peerOf(b); err != nil && peer != 0 {
			t.Errorf("%d and %v", peer, err)
		}
	})
}

// FuzzCookiesOf: nor does any dump.
func FuzzCookiesOf(f *testing.F) {
	f.Add(make([]byte, 64))
	f.Add([]byte{32, 0, 0, 0, 20, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 10, 0, 9, 0, 0, 0, 7, 0, 0, 0, 1, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		if over, err := cookiesOf(b, make(map[uint64]bool)); err != nil && over {
			t.Errorf("over, and %v", err)
		}
	})
}
