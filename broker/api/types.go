package api

import (
	"net/netip"
	"time"
)

// Status is the answer of GET /v1/status.
type Status struct {
	Version    string  `json:"version"`
	PID        int     `json:"pid"`
	Uptime     float64 `json:"uptime_seconds"`
	Sessions   int     `json:"sessions"`
	Sockets    int     `json:"sockets"`
	Relays     int     `json:"relays"` // connections of programs, those that wait to be accepted too
	Goroutines int     `json:"goroutines"`
	Fds        int     `json:"fds"`
	HeapBytes  uint64  `json:"heap_bytes"`
	// Fronts' connections are not among the relays.
	Fronts []Front `json:"fronts"`
}

// Front is a port that poemqd itself serves.
type Front struct {
	Kind        string `json:"kind"` // "expose" or "forward"
	Listen      string `json:"listen"`
	To          string `json:"to"`
	Mode        string `json:"mode,omitempty"`
	Identity    string `json:"identity,omitempty"`
	Connections int64  `json:"connections"` // living
	Total       uint64 `json:"total"`       // carried since it is served
	Failed      uint64 `json:"failed"`      // that did not come about
	Error       string `json:"error,omitempty"`
}

// Sessions is the answer of GET /v1/sessions.
type Sessions struct {
	Sessions []Session `json:"sessions"`
}

// Session is one launched process tree or container.
type Session struct {
	ID          uint64    `json:"id"`
	Program     string    `json:"program"` // name of the program or container
	PID         int       `json:"pid"`     // of its first process; 0: not known
	UID         uint32    `json:"uid"`     // who handed it over
	Quic        string    `json:"quic"`    // what it asks for: require, prefer, off or ""
	Since       time.Time `json:"since"`
	Age         float64   `json:"age_seconds"`
	Sockets     int       `json:"sockets"`
	Connections int       `json:"connections"` // living
	Total       uint64    `json:"total"`       // connections there were and are
	Calls       uint64    `json:"calls"`       // socket calls answered
	Sent        uint64    `json:"sent_bytes"`
	Received    uint64    `json:"received_bytes"`
}

// Sockets is the answer of GET /v1/sockets.
type Sockets struct {
	Sockets []Socket `json:"sockets"`
}

// Socket is one socket of a program.
type Socket struct {
	ID       uint64         `json:"id"` // SO_COOKIE of the program's file
	Session  uint64         `json:"session"`
	Program  string         `json:"program"` // that used it last
	PID      int            `json:"pid"`     // of that; 0: it is gone
	UID      uint32         `json:"uid"`     // of the session
	NetNS    uint64         `json:"netns"`   // inode number
	State    string         `json:"state"`   // fresh, bound, listening, connecting, connected, failed or closed
	Accepted bool           `json:"accepted"`
	Local    netip.AddrPort `json:"local"`
	Remote   netip.AddrPort `json:"remote"`
	Age      float64        `json:"age_seconds"`
	// Via is what carries it: "quic", "tcp", "" for neither; a listening socket
	// has "quic+tcp" too. Why tells the reason.
	Via string `json:"via"`
	Why string `json:"why"`
	// Connection is the QUIC connection's number, shared by sockets to one peer.
	// So are its RTT, window and lost packets.
	Connection uint64  `json:"connection"`
	RTT        float64 `json:"rtt_ms"`
	CWnd       uint64  `json:"cwnd_bytes"`
	Lost       uint64  `json:"lost_packets"` // over TCP: retransmitted segments
	Sent       uint64  `json:"sent_bytes"`
	Received   uint64  `json:"received_bytes"`
	Waiting    int     `json:"waiting"` // a listening socket's connections that wait for accept
}

// Connections is the answer of GET /v1/connections.
type Connections struct {
	Connections []Connection `json:"connections"`
}

// Connection is a QUIC connection, which carries sockets to one peer.
type Connection struct {
	ID              uint64         `json:"id"`
	Side            string         `json:"side"` // "client": we dialed it; or "server"
	Local           netip.AddrPort `json:"local"`
	Peer            netip.AddrPort `json:"peer"`
	Identity        string         `json:"identity"` // of the peer: names, or its key
	Key             string         `json:"key"`      // sha256:BASE64, or "" when it showed none
	UID             uint32         `json:"uid"`      // whose programs share it; a client's only
	NetNS           uint64         `json:"netns"`
	Streams         int            `json:"streams"`
	Total           uint64         `json:"total"` // streams there were and are
	Age             float64        `json:"age_seconds"`
	RTT             float64        `json:"rtt_ms"`
	MinRTT          float64        `json:"min_rtt_ms"`
	CWnd            uint64         `json:"cwnd_bytes"`
	Sent            uint64         `json:"sent_bytes"`
	Received        uint64         `json:"received_bytes"`
	PacketsSent     uint64         `json:"sent_packets"`
	PacketsReceived uint64         `json:"received_packets"`
	PacketsLost     uint64         `json:"lost_packets"`
	Version         string         `json:"version"`
	Handshaking     bool           `json:"handshaking"`
	Resumed         bool           `json:"resumed"`
	ZeroRTT         bool           `json:"zero_rtt"`
	Draining        bool           `json:"draining"` // it takes no new streams
	Qlog            string         `json:"qlog"`     // file of its trace
}

// Fallbacks is the answer of GET /v1/fallback.
type Fallbacks struct {
	Fallback []Fallback `json:"fallback"`
}

// Fallback is a destination that is reached by TCP at once.
type Fallback struct {
	Remote  netip.AddrPort `json:"destination"`
	UID     uint32         `json:"uid"`
	NetNS   uint64         `json:"netns"`  // inode
	Answer  string         `json:"answer"` // "tcp"
	Reason  string         `json:"reason"` // why not by QUIC
	Since   time.Time      `json:"since"`
	Expires time.Time      `json:"expires"`
}

// Forgotten is the answer of a DELETE.
type Forgotten struct {
	Forgotten int `json:"forgotten"`
}

// Why is the answer of GET /v1/why.
type Why struct {
	Mode     string `json:"mode"`
	By       string `json:"by"`
	Rule     int    `json:"rule"` // from 1; 0: none
	Name     string `json:"name,omitempty"`
	Where    string `json:"where,omitempty"`
	Identity string `json:"identity,omitempty"`
	ZeroRTT  bool   `json:"zero_rtt,omitempty"`
	ALPN     string `json:"alpn,omitempty"`
	Framing  string `json:"framing"`
	// Remembered are what is known of earlier connections there. Not for
	// listening.
	Remembered []Fallback `json:"remembered"`
	Probe      *Probe     `json:"probe,omitempty"` // when one was asked for
}

// Probe is what reaching out has found just now.
type Probe struct {
	QUIC ProbeResult `json:"quic"`
	TCP  ProbeResult `json:"tcp"`
	// Verdict is in words what a connection made now would be.
	Verdict string `json:"verdict"`
}

// ProbeResult is one way of it.
type ProbeResult struct {
	Answer   string  `json:"answer"` // "ok", "failed" or "skipped"
	Took     float64 `json:"took_ms"`
	Error    string  `json:"error,omitempty"`  // or why it was skipped
	Reused   bool    `json:"reused,omitempty"` // QUIC: a connection was there already
	RTT      float64 `json:"rtt_ms,omitempty"`
	Version  string  `json:"version,omitempty"`
	Identity string  `json:"identity,omitempty"`
}

// Trust is the answer of GET /v1/trust.
type Trust struct {
	Pins []Pin `json:"pins"`
}

// Pin is a peer's key as it is remembered.
type Pin struct {
	Peer  string `json:"peer"` // ADDRESS:PORT, and @NAME in a named network namespace
	Key   string `json:"key"`
	Since string `json:"since,omitempty"` // date
	File  string `json:"file,omitempty"`  // none: in memory only
	Line  int    `json:"line,omitempty"`
}

// LogLevel is the body and the answer of /v1/log-level.
type LogLevel struct {
	Level string `json:"level"` // debug, info, warn or error
}

// Reloaded is the answer of POST /v1/reload.
type Reloaded struct {
	Files   []string `json:"files"`
	Rules   int      `json:"rules"`
	Waiting []string `json:"wait_for_restart"` // settings that changed and wait for one
}

// Qlog is the body of PUT /v1/connections/{id}/qlog.
type Qlog struct {
	On bool `json:"on"`
}

// Traced is its answer.
type Traced struct {
	Peer netip.AddrPort `json:"peer"`
	On   bool           `json:"on"`
	Dir  string         `json:"dir"`
	File string         `json:"file,omitempty"` // of this very connection
	// Next is that this connection began without a trace and takes no new
	// streams now; the next one with the peer has one.
	Next bool `json:"next"`
}

// Drained is the answer of POST /v1/drain.
type Drained struct {
	// Drained is that nothing was open any more at the end.
	Drained bool `json:"drained"`
	// Relays and Sessions are what was open then.
	Relays   int `json:"relays"`
	Sessions int `json:"sessions"`
	// Kept is that the next broker goes on with the sessions.
	Kept bool `json:"kept"`
}

// Failure is the answer to what could not be done.
type Failure struct {
	Error string `json:"error"`
}
