package broker

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

func FuzzSockaddr(f *testing.F) {
	for _, s := range []string{"192.0.2.1:443", "0.0.0.0:0", "[2001:db8::1]:443", "[fe80::1%3]:1", "[::ffff:192.0.2.1]:65535"} {
		ap := netip.MustParseAddrPort(s)
		for _, domain := range []int{unix.AF_INET, unix.AF_INET6} {
			b := encodeSockaddr(ap, domain)
			f.Add(b, domain == unix.AF_INET6)
			f.Add(b[:len(b)-4], domain == unix.AF_INET6)
			f.Add(append(b, 1, 2, 3), domain == unix.AF_INET6)
		}
	}
	f.Add([]byte{0, 0}, false)
	f.Add([]byte{7}, true)
	f.Fuzz(func(t *testing.T, b []byte, six bool) {
		domain, family, size := unix.AF_INET, uint16(unix.AF_INET), sizeInet4
		if six {
			domain, family, size = unix.AF_INET6, unix.AF_INET6, sizeInet6
		}
		ap, unspec, errno := decodeSockaddr(b, domain)
		if errno != 0 || unspec {
			if ap.IsValid() || unspec && errno != 0 {
				t.Errorf("%v, %v, %v", ap, unspec, errno)
			}
			return
		}
		if len(b) < 16 || binary.NativeEndian.Uint16(b) != family || !ap.IsValid() || ap.Addr().Is4() == six {
			t.Fatalf("%x is taken as %v for domain %d", b, ap, domain)
		}
		out := encodeSockaddr(ap, domain)
		if len(out) != size {
			t.Fatalf("%d bytes for domain %d", len(out), domain)
		}
		again, _, errno := decodeSockaddr(out, domain)
		if errno != 0 || again != ap {
			t.Errorf("%v comes back as %v, %v", ap, again, errno)
		}
		// Port and address stand where they stood.
		if n := map[bool]int{false: 8, true: 4}[six]; !bytes.Equal(out[2:n], b[2:n]) || six && !bytes.Equal(out[8:24], b[8:24]) {
			t.Errorf("%x became %x", b, out)
		}
	})
}

func TestDecodeSockaddrErrnos(t *testing.T) {
	inet := encodeSockaddr(netip.MustParseAddrPort("192.0.2.1:1"), unix.AF_INET)
	inet6 := encodeSockaddr(netip.MustParseAddrPort("[2001:db8::1]:1"), unix.AF_INET6)
	for name, c := range map[string]struct {
		b      []byte
		domain int
		unspec bool
		errno  unix.Errno
	}{
		"nothing":             {nil, unix.AF_INET, false, unix.EINVAL},
		"one byte":            {inet[:1], unix.AF_INET, false, unix.EINVAL},
		"short":               {inet[:15], unix.AF_INET, false, unix.EINVAL},
		"short IPv6":          {inet6[:23], unix.AF_INET6, false, unix.EINVAL},
		"IPv6 of RFC 2133":    {inet6[:24], unix.AF_INET6, false, 0},
		"family alone":        {[]byte{0, 0}, unix.AF_INET, true, 0},
		"IPv6 for IPv4":       {inet6, unix.AF_INET, false, unix.EAFNOSUPPORT},
		"IPv4 for IPv6":       {append(inet, make([]byte, 16)...), unix.AF_INET6, false, unix.EAFNOSUPPORT},
		"short IPv4 for IPv6": {inet, unix.AF_INET6, false, unix.EINVAL},
	} {
		if _, unspec, errno := decodeSockaddr(c.b, c.domain); unspec != c.unspec || errno != c.errno {
			t.Errorf("%s: %v, %v, want %v, %v", name, unspec, errno, c.unspec, c.errno)
		}
	}
}

// accept, getsockname and getpeername cut the address to the room there is and
// tell how long it is (getsockname(2)).
func TestWriteSockaddr(t *testing.T) {
	ap := netip.MustParseAddrPort("192.0.2.1:443")
	full := encodeSockaddr(ap, unix.AF_INET)
	const lenAt, at = 0, 8
	for _, room := range []int{0, 1, 2, 15, 16, 17, 100} {
		r := newFake(200)
		binary.NativeEndian.PutUint32(r.memory[lenAt:], uint32(room))
		if errno := writeSockaddr(r, at, lenAt, ap, unix.AF_INET); errno != 0 {
			t.Errorf("room %d: %v", room, errno)
		}
		if told := binary.NativeEndian.Uint32(r.memory[lenAt:]); told != sizeInet4 {
			t.Errorf("room %d: length %d told", room, told)
		}
		want := make([]byte, 200-at)
		copy(want, full[:min(room, len(full))])
		if !bytes.Equal(r.memory[at:], want) {
			t.Errorf("room %d: %x", room, r.memory[at:at+32])
		}
	}
	for name, c := range map[string]struct {
		room       int32
		at, lenPtr uint64
		want       unix.Errno
	}{
		"negative":   {-1, at, lenAt, unix.EINVAL},
		"no length":  {16, at, 1000, unix.EFAULT},
		"no address": {16, 1000, lenAt, unix.EFAULT},
		"not asked":  {0, at, lenAt, 0},
	} {
		r := newFake(200)
		binary.NativeEndian.PutUint32(r.memory[lenAt:], uint32(c.room))
		if errno := writeSockaddr(r, c.at, c.lenPtr, ap, unix.AF_INET); errno != c.want {
			t.Errorf("%s: %v, want %v", name, errno, c.want)
		}
	}
}

func TestReadSockaddr(t *testing.T) {
	r := newFake(200)
	for n, want := range map[int]unix.Errno{-1: unix.EINVAL, 129: unix.EINVAL, 128: 0, 0: 0} {
		if b, errno := readSockaddr(r, 8, n); errno != want || errno == 0 && len(b) != n {
			t.Errorf("length %d: %d bytes, %v, want %v", n, len(b), errno, want)
		}
	}
	if _, errno := readSockaddr(r, 190, 16); errno != unix.EFAULT {
		t.Errorf("beyond the memory: %v, want EFAULT", errno)
	}
}
