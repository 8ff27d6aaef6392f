package broker

import (
	"time"

	"github.com/poemq/poemq/quic"
	"golang.org/x/sys/unix"
)

// deferAccept is TCP_DEFER_ACCEPT (tcp(7)): how long a connection may wait for
// its first bytes before the program hears of it; 0 when it is told at once.
func (s *Socket) deferAccept() time.Duration {
	o, ok := s.set(unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT)
	if !ok {
		return 0
	}
	return time.Duration(max(o.int(), 0)) * time.Second
}

const firstBytes = 16 << 10

// arriveLater accepts a stream and brings it to l's queue with its first bytes,
// its end, or after patience. The kernel does the same for plain TCP.
func (p *listenPoint) arriveLater(l *listenState, a *arrival, in *quic.Incoming, patience time.Duration) {
	st, err := in.Accept()
	if err != nil {
		return
	}
	_ = st.SetReadDeadline(time.Now().Add(patience))
	buf := make([]byte, firstBytes)
	n, _ := st.Read(buf) // an end or error is told again
	_ = st.SetReadDeadline(time.Time{})
	a.first = buf[:n]
	if err := l.enqueue(a, st.WriteDone(), nil); err != nil {
		st.Reset()
		return
	}
	a.relay.start(st)
}

// named tells whether the kernel's socket has its port, which one that was shut
// down may have lost.
func (h *portHold) named() bool {
	local, err := localAddr(h.fd)
	return err == nil && local.Port() != 0 && local == h.local
}

// renamed looks which port the kernel gave hold, which is another one when a
// socket listens again after shutdown.
func (s *Socket) renamed(hold *portHold) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if local, err := localAddr(hold.fd); err == nil {
		hold.local, s.local = local, local
	}
}
