package config

import "fmt"

// unused are the settings that are read and checked, and that this version does
// nothing with. Whoever makes one work takes its line out.
var unused = []string{
	"limits.streams_per_connection", "limits.connections_per_peer", "limits.connections", "limits.handshakes_per_second",
}

// Unused lists, with where they stand, the settings that somebody has set and
// that have no effect in this version.
func (c *Config) Unused() (list []string) {
	for _, name := range unused {
		if o := c.origins[name]; !o.Built() {
			list = append(list, fmt.Sprintf("%v: %s", o, name))
		}
	}
	return list
}
