package quic

import (
	"strings"
	"testing"
	"time"
)

// TestHeardIsMonotonic: a peer is not taken for silent, or for alive, because
// somebody has set the clock.
func TestHeardIsMonotonic(t *testing.T) {
	s := &socket{news: make(chan struct{}, 1)}
	if got := s.heard(); !got.IsZero() {
		t.Errorf("heard before the first packet: %v, want the zero time", got)
	}
	begin := time.Now()
	s.tellRead()
	got := s.heard()
	if !strings.Contains(got.String(), " m=") { // what time.Time.String adds for it
		t.Errorf("%v has no reading of the monotonic clock", got)
	}
	if got.Before(begin) || got.After(time.Now()) {
		t.Errorf("heard at %v, after %v and before now", got, begin)
	}
}
