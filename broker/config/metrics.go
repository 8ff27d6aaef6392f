package config

import (
	"fmt"
	"net/netip"
	"path/filepath"
)

// metricsAddress looks whether metrics may be served at s. They tell who speaks
// to whom and are not encrypted, so they stay on this host.
func metricsAddress(s string) error {
	if s == "" || filepath.IsAbs(s) {
		return nil
	}
	a, err := netip.ParseAddrPort(s)
	switch {
	case err != nil:
		return fmt.Errorf(`%q is neither the path of a UNIX socket nor like "127.0.0.1:9464"`, s)
	case !a.Addr().IsLoopback():
		return fmt.Errorf("%v is no loopback address: a proxy that authorises may show metrics to others", a.Addr())
	}
	return nil
}
