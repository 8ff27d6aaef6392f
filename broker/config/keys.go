package config

import (
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/poemq/poemq/broker/policy"
)

// key is one single setting.
type key struct {
	name string // "section.key"
	set  func(*Config, value) error
	show func(*Config) string // as TOML
	// live is that a reload changes it.
	live bool
	// word turns the text of an environment variable or flag into a value.
	word func(string) value
}

const (
	day  = 24 * time.Hour
	tebi = 1 << 40
)

// keys is every single setting, in the order of poemq.toml.
var keys = []key{
	{
		name: "log.level", live: true, word: asText,
		set: func(c *Config, v value) error {
			s, err := v.text()
			if err == nil && !slices.Contains([]string{"debug", "info", "warn", "error"}, s) {
				err = fmt.Errorf("%q is none of debug, info, warn, error", s)
			}
			if err != nil {
				return err
			}
			return c.Log.Level.UnmarshalText([]byte(s))
		},
		show: func(c *Config) string { return strconv.Quote(levelName(c.Log.Level)) },
	},
	path("state.dir", func(c *Config) *string { return &c.State.Dir }),
	path("runtime.dir", func(c *Config) *string { return &c.Runtime.Dir }),
	number("pool.max_connections", 1, 64, func(c *Config) *int { return &c.Pool.MaxConnections }),
	boolean("pool.fast_open", func(c *Config) *bool { return &c.Pool.FastOpen }),
	duration("pool.idle", time.Second, day, func(c *Config) *time.Duration { return &c.Pool.Idle }),
	{
		name: "wire.udp_port", word: asNumberOrText,
		set: func(c *Config, v value) (err error) {
			if v.any == "same" {
				c.Wire.UDPPort = 0
				return nil
			}
			if s, ok := v.any.(string); ok {
				return fmt.Errorf(`%q is neither "same" nor a number from 1 to 65535`, s)
			}
			n, err := v.number(1, 65535)
			if err == nil {
				c.Wire.UDPPort = int(n)
			}
			return err
		},
		show: func(c *Config) string {
			if c.Wire.UDPPort == 0 {
				return `"same"`
			}
			return strconv.Itoa(c.Wire.UDPPort)
		},
	},
	{
		name: "wire.local", word: asText,
		set: func(c *Config, v value) error {
			s, err := v.text()
			if err == nil && s != "quic" && s != "direct" {
				err = fmt.Errorf(`%q is neither "quic" nor "direct"`, s)
			}
			if err == nil {
				c.Wire.Direct = s == "direct"
			}
			return err
		},
		show: func(c *Config) string {
			if c.Wire.Direct {
				return `"direct"`
			}
			return `"quic"`
		},
	},
	duration("wire.max_idle", 10*time.Second, day, func(c *Config) *time.Duration { return &c.Wire.MaxIdle }),
	duration("wire.keep_alive", 100*time.Millisecond, time.Hour, func(c *Config) *time.Duration { return &c.Wire.KeepAlive }),
	duration("wire.handshake_timeout", 100*time.Millisecond, 10*time.Minute, func(c *Config) *time.Duration { return &c.Wire.HandshakeTimeout }),
	boolean("wire.migration", func(c *Config) *bool { return &c.Wire.Migration }),
	boolean("wire.resumption", func(c *Config) *bool { return &c.Wire.Resumption }),
	duration("wire.busy_poll", 0, time.Millisecond, func(c *Config) *time.Duration { return &c.Wire.BusyPoll }),
	live(duration("fallback.head_start", 0, time.Minute, func(c *Config) *time.Duration { return &c.Fallback.HeadStart })),
	live(duration("fallback.remember", 0, 7*day, func(c *Config) *time.Duration { return &c.Fallback.Remember })),
	live(number("fallback.entries", 1, 1<<20, func(c *Config) *int { return &c.Fallback.Entries })),
	path("tls.cert", func(c *Config) *string { return &c.TLS.Cert }),
	path("tls.key", func(c *Config) *string { return &c.TLS.Key }),
	path("tls.ca", func(c *Config) *string { return &c.TLS.CA }),
	{
		name: "tls.crl", word: asList,
		set: func(c *Config, v value) error {
			all := []string{}
			err := v.list(func(one value) error {
				s, err := one.path()
				if err == nil && s == "" {
					err = fmt.Errorf("is an empty path")
				}
				all = append(all, s)
				return err
			})
			c.TLS.CRL = all
			return err
		},
		show: func(c *Config) string { return showList(c.TLS.CRL, quote) },
	},
	path("qlog.dir", func(c *Config) *string { return &c.Qlog.Dir }),
	{
		name: "qlog.max_bytes", word: asNumberOrText,
		set: func(c *Config, v value) error {
			n, err := v.size(4<<10, tebi)
			if err == nil {
				c.Qlog.MaxBytes = n
			}
			return err
		},
		show: func(c *Config) string { return strconv.Quote(showSize(c.Qlog.MaxBytes)) },
	},
	number("qlog.max_files", 1, 1<<20, func(c *Config) *int { return &c.Qlog.MaxFiles }),
	{
		name: "metrics.listen", word: asText,
		set: func(c *Config, v value) error {
			s, err := v.text()
			if err == nil {
				err = metricsAddress(s)
			}
			if err == nil {
				c.Metrics.Listen = s
			}
			return err
		},
		show: func(c *Config) string { return quote(c.Metrics.Listen) },
	},
	number("limits.streams_per_connection", 1, 1<<20, func(c *Config) *int { return &c.Limits.StreamsPerConnection }),
	number("limits.waiting_per_peer", 1, 1<<20, func(c *Config) *int { return &c.Limits.WaitingPerPeer }),
	number("limits.connections_per_peer", 1, 1<<24, func(c *Config) *int { return &c.Limits.ConnectionsPerPeer }),
	number("limits.connections", 1, 1<<24, func(c *Config) *int { return &c.Limits.Connections }),
	number("limits.handshakes_per_second", 1, 1<<24, func(c *Config) *int { return &c.Limits.HandshakesPerSecond }),
	{
		name: "limits.memory", word: asNumberOrText,
		set: func(c *Config, v value) error {
			if v.any == "auto" {
				c.Limits.Memory = 0
				return nil
			}
			n, err := v.size(32<<20, tebi)
			if err != nil {
				return fmt.Errorf(`%w, or "auto"`, err)
			}
			c.Limits.Memory = n
			return nil
		},
		show: func(c *Config) string {
			if c.Limits.Memory == 0 {
				return `"auto"`
			}
			return strconv.Quote(showSize(c.Limits.Memory))
		},
	},
	{
		name: "policy.default", live: true, word: asText,
		set: func(c *Config, v value) error {
			m, err := mode(v)
			if err == nil {
				c.Policy.Default = m
			}
			return err
		},
		show: func(c *Config) string { return strconv.Quote(c.Policy.Default.String()) },
	},
}

func live(k key) key {
	k.live = true
	return k
}

func path(name string, at func(*Config) *string) key {
	return key{
		name: name, word: asText,
		set: func(c *Config, v value) error {
			s, err := v.path()
			if err == nil {
				*at(c) = s
			}
			return err
		},
		show: func(c *Config) string { return quote(*at(c)) },
	}
}

func number(name string, least, most int64, at func(*Config) *int) key {
	return key{
		name: name, word: asNumberOrText,
		set: func(c *Config, v value) error {
			n, err := v.number(least, most)
			if err == nil {
				*at(c) = int(n)
			}
			return err
		},
		show: func(c *Config) string { return strconv.Itoa(*at(c)) },
	}
}

func boolean(name string, at func(*Config) *bool) key {
	return key{
		name: name, word: asBoolean,
		set: func(c *Config, v value) error {
			b, err := v.boolean()
			if err == nil {
				*at(c) = b
			}
			return err
		},
		show: func(c *Config) string { return strconv.FormatBool(*at(c)) },
	}
}

func duration(name string, least, most time.Duration, at func(*Config) *time.Duration) key {
	return key{
		name: name, word: asText,
		set: func(c *Config, v value) error {
			d, err := v.duration(least, most)
			if err == nil {
				*at(c) = d
			}
			return err
		},
		show: func(c *Config) string { return strconv.Quote(showDuration(*at(c))) },
	}
}

// mode reads a mode that must be said.
func mode(v value) (policy.Mode, error) {
	s, err := v.text()
	if err != nil {
		return policy.Unset, err
	}
	if s == "" {
		return policy.Unset, fmt.Errorf("is empty; it is require, prefer or off")
	}
	return policy.ParseMode(s)
}

func asText(s string) value { return value{any: s} }

func asBoolean(s string) value {
	if s == "true" || s == "false" {
		return value{any: s == "true"}
	}
	return value{any: s}
}

func asNumberOrText(s string) value {
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return value{any: n}
	}
	return value{any: s}
}

func asList(s string) value {
	list := []value{}
	for one := range strings.SplitSeq(s, ",") {
		if one = strings.TrimSpace(one); one != "" {
			list = append(list, value{any: one})
		}
	}
	return value{any: list}
}

func levelName(l slog.Level) string { return strings.ToLower(l.String()) }

// variable is the environment's name of a key.
func (k *key) variable() string {
	return "POEMQ_" + strings.ToUpper(strings.ReplaceAll(k.name, ".", "_"))
}

func keyNamed(name string) *key {
	for i := range keys {
		if keys[i].name == name {
			return &keys[i]
		}
	}
	return nil
}
