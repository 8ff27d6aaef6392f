package config

import (
	"errors"
	"fmt"
)

// unused are the settings that are read and checked, and that this version does
// nothing with. Whoever makes one work takes its line out.
var unused = []string{
	"wire.migration", "wire.resumption",
	"qlog.dir", "qlog.max_bytes", "qlog.max_files",
	"limits.streams_per_connection", "limits.connections_per_peer", "limits.connections", "limits.handshakes_per_second",
}

// unguarded are those of them without which something would be less safe than
// the configuration says.
var unguarded = []string{"tls.cert", "tls.key", "tls.ca", "tls.crl"}

// Unused lists, with where they stand, the settings that somebody has set and
// that have no effect in this version. The error is about those that must have
// one: a broker shall not run without them.
func (c *Config) Unused() (list []string, err error) {
	for _, name := range unused {
		if o := c.origins[name]; !o.Built() {
			list = append(list, fmt.Sprintf("%v: %s", o, name))
		}
	}
	for i := range c.Rules {
		if c.Rules[i].ZeroRTT {
			list = append(list, c.Rules[i].Where+": rule.zero_rtt")
		}
	}
	for _, e := range c.Exposes {
		list = append(list, e.Where+": expose")
	}
	for _, f := range c.Forwards {
		list = append(list, f.Where+": forward")
	}
	var errs []error
	for _, name := range unguarded {
		if o := c.origins[name]; !o.Built() {
			errs = append(errs, fmt.Errorf("%v: %s is not supported in this version", o, name))
		}
	}
	for _, a := range c.Allows {
		errs = append(errs, fmt.Errorf("%s: allow is not supported in this version, and peers would not be limited", a.Where))
	}
	return list, errors.Join(errs...)
}
