package broker

import (
	"time"
	"unsafe"

	"github.com/poemq/poemq/quic"
	"golang.org/x/sys/unix"
)

// TCP states of <netinet/tcp.h>.
const (
	tcpEstablished = 1
	tcpSynSent     = 2
	tcpFinWait2    = 5
	tcpClose       = 7
	tcpCloseWait   = 8
	tcpListen      = 10
)

// What a QUIC connection has no like of.
const (
	segment    = 1400 // octets of a stream that one packet carries, about
	pathMTU    = 1500
	tcpOptions = 7 // TCPI_OPT_TIMESTAMPS, _SACK, _WSCALE
	wscale     = 0x77
	minRTO     = 200 * time.Millisecond
)

// tcpInfo makes the TCP_INFO (tcp(7)) of a kernel socket with nothing to tell,
// in val, that of s. Counts are of the QUIC connection, which other
// connections to the same peer may share.
func (s *Socket) tcpInfo(val []byte) {
	var info unix.TCPInfo
	raw := unsafe.Slice((*byte)(unsafe.Pointer(&info)), unsafe.Sizeof(info))
	copy(raw, val)
	s.mu.Lock()
	st, relay, direct := s.state, s.relay, s.direct
	s.mu.Unlock()
	switch {
	case st == connecting:
		info.State = tcpSynSent
	case st == listening:
		info.State = tcpListen
	case st == connected && relay != nil:
		if t, ok := relay.carrier().(*tcpTransport); ok {
			kernelInfo(t, raw)
		} else if q, ok := relay.carrier().(*quic.Stream); ok {
			quicInfo(q.Stats(), &info)
		}
		info.State = relay.tcpState()
	case st == connected && direct:
		info.State = tcpEstablished
	default:
		info.State = tcpClose
	}
	copy(val, raw)
}

func quicInfo(st quic.Stats, info *unix.TCPInfo) {
	us := func(d time.Duration) uint32 { return uint32(max(d.Microseconds(), 1)) }
	info.Options, info.Ca_state = tcpOptions, 0
	raw := unsafe.Slice((*byte)(unsafe.Pointer(info)), 8)
	raw[6] = wscale
	info.Rtt, info.Rttvar, info.Min_rtt = us(st.RTT), us(st.RTTVar), us(st.MinRTT)
	info.Rto = us(st.RTT + max(4*st.RTTVar, minRTO))
	info.Ato = us(40 * time.Millisecond)
	info.Snd_mss, info.Rcv_mss, info.Advmss, info.Pmtu = segment, segment, segment, pathMTU
	info.Snd_cwnd = uint32(max(st.CongestionWindow/segment, 1))
	info.Snd_wnd = uint32(min(st.CongestionWindow, 1<<30))
	info.Bytes_sent, info.Bytes_acked, info.Bytes_received = st.BytesSent, st.BytesSent, st.BytesReceived
	info.Segs_out, info.Segs_in = uint32(st.PacketsSent), uint32(st.PacketsReceived)
	info.Data_segs_out, info.Data_segs_in = info.Segs_out, info.Segs_in
	info.Delivered = uint32(st.PacketsSent - min(st.PacketsSent, st.PacketsLost))
	info.Retrans, info.Total_retrans = 0, uint32(st.PacketsLost)
	info.Bytes_retrans = st.PacketsLost * segment
	if rtt := st.RTT.Seconds(); rtt > 0 {
		info.Delivery_rate = uint64(float64(st.CongestionWindow) / rtt)
		info.Pacing_rate = info.Delivery_rate
	}
}

// kernelInfo is the truth where TCP carries the bytes.
func kernelInfo(t *tcpTransport, info []byte) {
	raw, err := t.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		rawGetsockopt(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO, info)
	})
}

func (r *relay) carrier() transport {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.t
}

// tcpState is what TCP would be in, with everything acknowledged that was sent.
func (r *relay) tcpState() uint8 {
	switch ours, theirs := r.ends(); {
	case ours && theirs:
		return tcpClose
	case ours:
		return tcpFinWait2
	case theirs:
		return tcpCloseWait
	}
	return tcpEstablished
}
