package broker

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"github.com/poemq/poemq/broker/policy"
	"golang.org/x/sys/unix"
)

// record is what the journal has of a socket.
type record struct {
	cookie   uint64
	ino      uint64
	ns       uint64 // network namespace; 0 when not known
	hold     uint64 // cookie of the socket that has the bound port; 0: none
	uid      uint32 // whose the port is
	domain   int
	proto    int
	tid, fd  int // where the program's descriptor was seen
	state    state
	accepted bool
	chosen   bool // the kernel chose the bound port
	zeroRTT  bool
	mode     policy.Mode // of a listening socket
	backlog  int
	soError  unix.Errno
	local    netip.AddrPort
	remote   netip.AddrPort
	opts     []option
}

const (
	recordAccepted = 1 << iota
	recordChosen
	recordZeroRTT
)

// append writes r behind b. Options for which there is no room are left out.
func (r *record) append(b []byte) []byte {
	start := len(b)
	e := binary.NativeEndian
	b = e.AppendUint64(b, r.cookie)
	b = e.AppendUint64(b, r.ino)
	b = e.AppendUint64(b, r.ns)
	b = e.AppendUint64(b, r.hold)
	b = e.AppendUint32(b, r.uid)
	b = e.AppendUint16(b, uint16(r.domain))
	b = e.AppendUint32(b, uint32(r.proto))
	b = e.AppendUint32(b, uint32(r.tid))
	b = e.AppendUint32(b, uint32(r.fd))
	var flags byte
	for i, on := range []bool{r.accepted, r.chosen, r.zeroRTT} {
		if on {
			flags |= 1 << i
		}
	}
	b = append(b, byte(r.state), flags, byte(r.mode), 0)
	b = e.AppendUint32(b, uint32(r.backlog))
	b = e.AppendUint16(b, uint16(r.soError))
	b = appendAddr(b, r.local)
	b = appendAddr(b, r.remote)
	for _, o := range r.opts {
		if len(b)-start+optionHead+len(o.value) > halfSize-2 {
			continue
		}
		b = e.AppendUint32(b, uint32(o.level))
		b = e.AppendUint32(b, uint32(o.name))
		b = e.AppendUint16(b, uint16(len(o.value)))
		b = append(b, o.value...)
	}
	return b
}

const optionHead = 10

func appendAddr(b []byte, a netip.AddrPort) []byte {
	text, err := a.MarshalBinary()
	if err != nil || len(text) > 64 { // a zone has 15 octets at the most (IFNAMSIZ)
		text = nil
	}
	return append(append(b, byte(len(text))), text...)
}

var errRecord = errors.New("a socket's record is damaged")

// readRecord is append's inverse.
func readRecord(b []byte) (r record, err error) {
	d := reader{b: b}
	r.cookie, r.ino, r.ns, r.hold = d.u64(), d.u64(), d.u64(), d.u64()
	r.uid = d.u32()
	r.domain, r.proto = int(d.u16()), int(int32(d.u32()))
	r.tid, r.fd = int(int32(d.u32())), int(int32(d.u32()))
	head := d.take(4)
	r.backlog, r.soError = int(int32(d.u32())), unix.Errno(d.u16())
	r.local, r.remote = d.addr(), d.addr()
	if d.bad || head[0] > byte(closed) {
		return record{}, errRecord
	}
	r.state, r.mode = state(head[0]), policy.Mode(head[2])
	r.accepted, r.chosen, r.zeroRTT = head[1]&recordAccepted != 0, head[1]&recordChosen != 0, head[1]&recordZeroRTT != 0
	for len(d.b) > 0 && !d.bad {
		o := option{level: int(int32(d.u32())), name: int(int32(d.u32()))}
		o.value = append([]byte{}, d.take(int(d.u16()))...)
		r.opts = append(r.opts, o)
	}
	if d.bad {
		return record{}, errRecord
	}
	return r, nil
}

// reader takes a record apart.
type reader struct {
	b   []byte
	bad bool // it was too short; what is read since is zero
}

var noOctets [64]byte

func (d *reader) take(n int) []byte {
	if n > len(d.b) {
		d.b, d.bad = nil, true
		return noOctets[:min(n, len(noOctets))]
	}
	got := d.b[:n]
	d.b = d.b[n:]
	return got
}

func (d *reader) u16() uint16 { return binary.NativeEndian.Uint16(d.take(2)) }
func (d *reader) u32() uint32 { return binary.NativeEndian.Uint32(d.take(4)) }
func (d *reader) u64() uint64 { return binary.NativeEndian.Uint64(d.take(8)) }

func (d *reader) addr() (a netip.AddrPort) {
	n := int(d.take(1)[0])
	if text := d.take(n); n > 0 && !d.bad && a.UnmarshalBinary(text) != nil {
		d.bad = true
	}
	return a
}
