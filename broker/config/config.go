package config

import (
	_ "embed"
	"log/slog"
	"time"

	"github.com/poemq/poemq/broker/policy"
)

// Defaults is the built-in file, which explains every key.
//
//go:embed poemq.toml
var Defaults string

// Config is the effective configuration. The comments of poemq.toml tell what
// the fields mean.
type Config struct {
	Log struct {
		Level slog.Level
	}
	State   struct{ Dir string }
	Runtime struct{ Dir string }
	Pool    struct {
		MaxConnections int
		FastOpen       bool
		Idle           time.Duration
	}
	Wire struct {
		UDPPort          int  // 0: the same as the program's
		Direct           bool // programs of one broker are connected with each other
		MaxIdle          time.Duration
		KeepAlive        time.Duration
		HandshakeTimeout time.Duration
		Migration        bool
		Resumption       bool
		BusyPoll         time.Duration // 0: none
	}
	Fallback struct {
		HeadStart time.Duration
		Remember  time.Duration
		Entries   int
	}
	TLS struct {
		Cert, Key, CA string
		CRL           []string
	}
	Qlog struct {
		Dir      string
		MaxBytes int64
		MaxFiles int
	}
	Limits struct {
		StreamsPerConnection int
		WaitingPerPeer       int
		ConnectionsPerPeer   int
		Connections          int
		HandshakesPerSecond  int
		Memory               int64 // 0: a part of the machine's
	}
	Metrics struct {
		Listen string // path of a UNIX socket, or loopback address and port; "": none
	}
	Policy struct {
		Default policy.Mode
	}
	Rules    []policy.Rule
	Allows   []Allow
	Exposes  []Expose
	Forwards []Forward

	origins map[string]Origin // of single keys
	files   []string          // that were read
}

// Allow lets peers with these names use these ports.
type Allow struct {
	Where string
	Peers []string // names; *.example.com stands for one label more
	Ports []policy.Ports
}

// Expose is a QUIC port in front of a TCP server.
type Expose struct {
	Where    string
	Listen   Endpoint
	To       Endpoint
	Identity string
}

// Forward is a TCP port that leads to a peer.
type Forward struct {
	Where    string
	Listen   Endpoint
	To       Endpoint
	Mode     policy.Mode
	Identity string
}

// Origin is where a value is from.
type Origin struct {
	File string // or flag, or environment variable; empty: built in
	Line int    // in File; 0: none

	shipped bool // File is the one of defaults
}

// Built reports that nobody has set the value: it is a default, built in or of
// the file of defaults.
func (o Origin) Built() bool { return o.File == "" || o.shipped }

func (o Origin) String() string {
	switch {
	case o.shipped:
		return "default, " + at(o.File, o.Line)
	case o.Built():
		return "default"
	case o.Line == 0:
		return o.File
	}
	return at(o.File, o.Line)
}

// Origin is where the value of a key, "section.name", is from.
func (c *Config) Origin(key string) Origin { return c.origins[key] }

// Files are the files that were read, in order.
func (c *Config) Files() []string { return c.files }
