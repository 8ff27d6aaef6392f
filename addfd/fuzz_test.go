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
