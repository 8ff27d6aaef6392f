package broker

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

func TestTransitions(t *testing.T) {
	legal := map[[2]state]bool{
		{fresh, bound}: true, {fresh, listening}: true, {fresh, connecting}: true, {fresh, closed}: true,
		{bound, listening}: true, {bound, connecting}: true, {bound, closed}: true,
		{listening, bound}: true, {listening, closed}: true,
		{connecting, connected}: true, {connecting, failed}: true, {connecting, fresh}: true,
		{connecting, bound}: true, {connecting, closed}: true,
		{connected, failed}: true, {connected, closed}: true,
		{failed, fresh}: true, {failed, bound}: true, {failed, closed}: true,
	}
	for from := fresh; from <= closed; from++ {
		for to := fresh; to <= closed; to++ {
			if got := became(from, to); got != legal[[2]state{from, to}] {
				t.Errorf("%v to %v: %v", from, to, got)
			}
		}
	}
}

// became tells whether from may become to; an illegal change panics.
func became(from, to state) (ok bool) {
	defer func() {
		if recover() != nil {
			ok = false
		}
	}()
	s := &Socket{state: from}
	s.become(to)
	return s.state == to
}

// The broker may have CAP_NET_ADMIN where the program has not.
func TestPrivilegedOptions(t *testing.T) {
	value := func(v byte) []byte { return []byte{v, 0, 0, 0} }
	for _, c := range []struct {
		o    option
		want bool
	}{
		{option{unix.SOL_SOCKET, unix.SO_MARK, value(1)}, true},
		{option{unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, value(1)}, true},
		{option{unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, value(1)}, true},
		{option{unix.SOL_SOCKET, unix.SO_PRIORITY, value(6)}, false},
		{option{unix.SOL_SOCKET, unix.SO_PRIORITY, value(7)}, true},
		{option{unix.SOL_SOCKET, unix.SO_PRIORITY, []byte{0xff, 0xff, 0xff, 0xff}}, true},
		{option{unix.SOL_SOCKET, unix.SO_PRIORITY, nil}, false},
		{option{unix.SOL_SOCKET, unix.SO_KEEPALIVE, value(1)}, false},
		{option{unix.IPPROTO_IP, unix.IP_TRANSPARENT, value(1)}, true},
		{option{unix.IPPROTO_IPV6, unix.IPV6_TRANSPARENT, value(1)}, true},
		{option{unix.IPPROTO_TCP, unix.TCP_NODELAY, value(1)}, false},
	} {
		if got := c.o.privileged(); got != c.want {
			t.Errorf("level %d, name %d, value %v: %v, want %v", c.o.level, c.o.name, c.o.value, got, c.want)
		}
		if !c.want || c.o.refused() != 0 {
			continue
		}
		s := &Session{b: &Broker{}}
		if errno := s.setOption(newFake(0), &Socket{}, -1, c.o); errno != unix.EPERM {
			t.Errorf("level %d, name %d without CAP_NET_ADMIN: %v, want EPERM", c.o.level, c.o.name, errno)
		}
	}
}

// An accepted socket has the listening one's options, and is its own from then
// on.
func TestInheritedOptions(t *testing.T) {
	from := &Socket{}
	set := func(s *Socket, name int, v byte) {
		s.remember(option{unix.SOL_SOCKET, name, []byte{v, 0, 0, 0}})
	}
	set(from, unix.SO_KEEPALIVE, 0)
	set(from, unix.SO_RCVBUF, 9)
	set(from, unix.SO_KEEPALIVE, 1) // the last counts, once
	accepted := &Socket{opts: inherited(from.opts, unix.AF_INET, netip.AddrPort{})}
	if len(accepted.opts) != 2 {
		t.Errorf("inherited: %v", accepted.opts)
	}
	set(from, unix.SO_RCVBUF, 1)
	set(accepted, unix.SO_KEEPALIVE, 0)
	for _, c := range []struct {
		s    *Socket
		name int
		want int
	}{{accepted, unix.SO_RCVBUF, 9}, {accepted, unix.SO_KEEPALIVE, 0}, {from, unix.SO_RCVBUF, 1}, {from, unix.SO_KEEPALIVE, 1}} {
		if o, ok := c.s.set(unix.SOL_SOCKET, c.name); !ok || o.int() != c.want {
			t.Errorf("option %d is %v, %v, want %d", c.name, o, ok, c.want)
		}
	}
}
