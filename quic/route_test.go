package quic

import (
	"errors"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/poemq/poemq/quic/netns"
)

// Route says what a new socket would, whatever was asked before and however that
// ended, and keeps no port.
func TestRoute(t *testing.T) {
	a, _ := veth(t)
	ip(t, a, "link", "set", "lo", "up")
	ip(t, a, "addr", "add", "10.8.0.1/24", "dev", "va")
	asked := []struct {
		remote, local string
		err           error
	}{
		{"10.9.0.2:80", "10.9.0.1", nil},
		{"127.0.0.1:80", "127.0.0.1", nil},
		{"[::ffff:10.9.0.2]:80", "10.9.0.1", nil},
		{"192.0.2.1:80", "", unix.ENETUNREACH},
		{"10.8.0.7:80", "10.8.0.1", nil},
		{"10.9.0.255:80", "", unix.EACCES},
		{"[fd09::2]:443", "fd09::1", nil},
		{"[2001:db8::1]:443", "", unix.ENETUNREACH},
		{"[::1]:443", "::1", nil},
	}
	check := func(i, j int) {
		t.Helper()
		for _, k := range []int{i, j} {
			q := asked[k]
			local, err := Route(a, netip.Addr{}, netip.MustParseAddrPort(q.remote))
			if !errors.Is(err, q.err) || err == nil && local.String() != q.local {
				t.Errorf("after asked of %s: to %s: %v, %v, want %s, %v", asked[i].remote, q.remote, local, err, q.local, q.err)
			}
		}
	}
	for i := range asked {
		for j := range asked {
			check(i, j)
		}
	}
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		a.UDP(family, func(fd int) bool {
			if at, err := localAddr(fd); err != nil || at.Port() != 0 || !at.Addr().IsUnspecified() {
				t.Errorf("the socket is left at %v (%v)", at, err)
			}
			return true
		})
	}
	// What changes meanwhile is seen.
	ip(t, a, "addr", "del", "10.8.0.1/24", "dev", "va")
	if local, err := Route(a, netip.Addr{}, netip.MustParseAddrPort("10.8.0.7:80")); !errors.Is(err, unix.ENETUNREACH) {
		t.Errorf("after the address was taken away: %v, %v", local, err)
	}
	ip(t, a, "addr", "add", "10.8.0.2/24", "dev", "va")
	if local, err := Route(a, netip.Addr{}, netip.MustParseAddrPort("10.8.0.7:80")); err != nil || local.String() != "10.8.0.2" {
		t.Errorf("after it was changed: %v, %v", local, err)
	}
}

// Bound addresses and zones.
func TestRouteFrom(t *testing.T) {
	a, _ := veth(t)
	var index int
	a.Do(func() error {
		i, err := net.InterfaceByName("va")
		if err != nil {
			t.Error(err)
			return err
		}
		index = i.Index
		return nil
	})
	remote := netip.MustParseAddrPort("10.9.0.2:80")
	if local, err := Route(a, netip.MustParseAddr("10.9.0.1"), remote); err != nil || local.String() != "10.9.0.1" {
		t.Errorf("from 10.9.0.1: %v, %v", local, err)
	}
	if local, err := Route(a, netip.MustParseAddr("10.9.0.77"), remote); !errors.Is(err, unix.EADDRNOTAVAIL) {
		t.Errorf("from an address that is not ours: %v, %v", local, err)
	}
	ip(t, a, "addr", "add", "fe80::9/64", "dev", "va", "nodad")
	link := netip.AddrPortFrom(netip.MustParseAddr("fe80::2").WithZone("va"), 80)
	local, err := Route(a, netip.Addr{}, link)
	if zone, zerr := zoneIndex(local.Zone()); err != nil || zerr != nil || int(zone) != index || !local.IsLinkLocalUnicast() {
		t.Errorf("to %v: %v, %v, want zone %d", link, local, err, index)
	}
	link = netip.AddrPortFrom(link.Addr().WithZone("nothing"), 80)
	if local, err := Route(a, netip.Addr{}, link); !errors.Is(err, unix.ENODEV) {
		t.Errorf("to %v: %v, %v", link, local, err)
	}
}

func BenchmarkRoute(b *testing.B) {
	self, err := netns.Self()
	if err != nil {
		b.Fatal(err)
	}
	to := netip.MustParseAddrPort("127.0.0.1:80")
	for b.Loop() {
		if _, err := Route(self, netip.Addr{}, to); err != nil {
			b.Fatal(err)
		}
	}
}
