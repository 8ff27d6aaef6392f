package quic

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	quicgo "github.com/quic-go/quic-go"
)

// Config of a Host. Zero values mean the defaults.
type Config struct {
	// Identity is who we are; nil makes one that lives in memory only.
	Identity *Identity
	// PKI makes us a member of a fleet: servers demand certificates of its
	// CAs from clients, clients from servers. nil: peers are pinned on first
	// use and clients show nothing. Caller's, who may Reload and Watch it.
	PKI *PKI
	// Authorize is asked for each stream that arrives, by any goroutine: may
	// this peer connect to this address of ours? An error refuses the stream
	// (ECONNREFUSED) and is logged. nil allows all. See AllowList.
	Authorize func(PeerIdentity, netip.AddrPort) error
	// Log gets one line an event worth an operator's eye; nil discards.
	Log *slog.Logger
	// KeyLog gets the TLS secrets of every connection in the format of
	// SSLKEYLOGFILE. Whoever reads it can decrypt everything.
	KeyLog io.Writer
	// MaxIdle is how long a connection outlives the loss of its path;
	// default 15 min. The smaller of both sides' counts.
	MaxIdle time.Duration
	// KeepAlive is the silence after which a connection with living streams
	// is probed; default 5 s.
	KeepAlive time.Duration
	// HandshakeTimeout bounds a handshake; default 30 s.
	HandshakeTimeout time.Duration
	// PoolIdle is how long a dialed connection without streams is kept;
	// default 60 s.
	PoolIdle time.Duration
	// UDPPort is the one UDP port that everything is served on; 0 serves each
	// TCP port on the UDP port of its number.
	UDPPort uint16
	// MaxConnections is how many connections to one peer share the streams;
	// default 4.
	MaxConnections int
	// NoFastOpen has each Dial wait for the peer's answer.
	NoFastOpen bool
	// NoMigration keeps connections on the address they began with.
	NoMigration bool
	// StreamWindow is the most a peer may send ahead on one stream that is
	// not read, in octets; default 512 KiB. It grows to 6 MiB while a stream
	// is read fast.
	StreamWindow uint64
	// ConnWindow is the same for all streams of a connection together;
	// default 256 MiB. When programs leave that much unread, all streams of
	// the connection wait: it must be many times StreamWindow.
	ConnWindow uint64
	// NoResumption neither gives nor keeps TLS sessions; there is no 0-RTT then.
	NoResumption bool
	// QlogDir gets a file for each connection in the qlog format; "": none.
	// See Host.SetQlog.
	QlogDir string
	// QlogUnset is the directory of what Trace asks for while QlogDir is "".
	QlogUnset string
	// QlogMaxFiles is how many such files are kept; default 256.
	QlogMaxFiles int
	// QlogMaxBytes is where a file stops; default 16 MiB.
	QlogMaxBytes int64
	// Limits bound what peers may make this host hold.
	Limits Limits
}

const (
	maxStreamWindow = 6 << 20 // octets
	// bufferWanted is quic-go's wish for SO_RCVBUF and SO_SNDBUF, octets.
	bufferWanted = 7_500_000
)

// Host speaks QUIC for one broker: it dials, listens and keeps the pool. Safe
// for concurrent use.
type Host struct {
	cfg    Config
	id     *Identity
	log    *slog.Logger
	ctx    context.Context // ends with Close
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup // every goroutine of the host
	// These keep peers from filling the log: clients that are not who they
	// have to be, streams refused by Config.Authorize, servers that are not
	// who they have to be or refuse us.
	clients, streams, servers refusals
	limited                   refusals // peers that have too much here
	forgetPKI                 func()   // no more calls of reloaded

	mu      sync.Mutex // guards what follows
	closed  bool
	pool    map[poolKey][]*link
	links   map[*link]struct{} // all client connections, those out of the pool too
	ports   map[portKey][]*port
	watches map[uint64]*watch // by network namespace
	guard   *time.Timer       // runs while there are connections

	// checkMemory's own:
	endured  int64     // heap in octets up to which nothing is done, since it is not the peers'
	relieved time.Time // when connections were ended last

	census census
	shed   atomic.Uint64 // connections ended since memory was short

	sharing sync.Mutex // orders the making of shared ports

	sessions *sessions
	qlog     *qlogs

	nextConn atomic.Uint64 // the last conn.id given
	past     past

	bufferOnce sync.Once
}

func init() {
	// quic-go would print through package log; Host says it itself, once.
	if _, set := os.LookupEnv("QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING"); !set {
		os.Setenv("QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING", "true")
	}
}

// NewHost makes a Host; it opens nothing yet. The caller closes it.
func NewHost(cfg Config) (*Host, error) {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&cfg.MaxIdle, 15*time.Minute)
	def(&cfg.KeepAlive, 5*time.Second)
	def(&cfg.HandshakeTimeout, 30*time.Second)
	def(&cfg.PoolIdle, 60*time.Second)
	if cfg.MaxConnections == 0 {
		cfg.MaxConnections = 4
	}
	if cfg.StreamWindow == 0 {
		cfg.StreamWindow = 512 << 10
	}
	if cfg.ConnWindow == 0 {
		cfg.ConnWindow = 256 << 20
	}
	cfg.Limits.fill()
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Identity == nil {
		id, err := LoadIdentity("")
		if err != nil {
			return nil, err
		}
		cfg.Identity = id
	}
	kept, err := newSessions(cfg.Identity, cfg.Log)
	if err != nil {
		return nil, err
	}
	h := &Host{
		sessions: kept, qlog: newQlogs(cfg),
		cfg: cfg, id: cfg.Identity, log: cfg.Log,
		pool: map[poolKey][]*link{}, links: map[*link]struct{}{}, ports: map[portKey][]*port{},
	}
	h.ctx, h.cancel = context.WithCancelCause(context.Background())
	h.clients.log, h.streams.log, h.servers.log, h.servers.servers = h.log, h.log, h.log, true
	h.limited.log, h.census.limits = h.log, cfg.Limits
	h.forgetPKI = func() {}
	if cfg.PKI != nil {
		h.forgetPKI = cfg.PKI.OnReload(h.reloaded)
		for _, w := range cfg.PKI.Warnings() {
			h.log.Warn("certificates", "warning", w)
		}
	}
	return h, nil
}

// Drain ends without losing data: no new streams, wait until those alive are
// over and the peers have read what was written, or until ctx ends, whose
// cause it then returns. Endpoints are closed, dials fail. Close comes after.
func (h *Host) Drain(ctx context.Context) error {
	h.mu.Lock()
	h.closed = true
	links, ports := h.snapshot()
	h.mu.Unlock()
	for _, p := range ports {
		p.closeListening()
	}
	for _, l := range links {
		l.goAway()
	}
	for _, l := range links {
		select {
		case <-l.gone:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	for _, p := range ports {
		select {
		case <-p.gone:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// Close ends every connection at once with an application code, so that peers
// see their streams as lost, closes all sockets and waits for all goroutines.
// What the peers have not yet received is lost: call Drain before.
func (h *Host) Close() error {
	h.mu.Lock()
	h.closed = true
	stop(h.guard)
	h.guard = nil
	links, ports := h.snapshot()
	h.mu.Unlock()
	h.forgetPKI()
	h.cancel(ErrHostClosed)
	for _, p := range ports {
		p.closeListening()
		p.kill()
	}
	for _, l := range links {
		l.kill()
	}
	h.wg.Wait()
	h.sessions.close()
	h.qlog.close()
	return nil
}

// snapshot lists what is open; mu is held.
func (h *Host) snapshot() (links []*link, ports []*port) {
	for l := range h.links {
		links = append(links, l)
	}
	for _, ps := range h.ports {
		ports = append(ports, ps...)
	}
	return links, ports
}

func (h *Host) quicConfig(client bool) *quicgo.Config {
	c := &quicgo.Config{
		HandshakeIdleTimeout:             h.cfg.HandshakeTimeout,
		MaxIdleTimeout:                   h.cfg.MaxIdle,
		InitialStreamReceiveWindow:       h.cfg.StreamWindow,
		MaxStreamReceiveWindow:           max(h.cfg.StreamWindow, maxStreamWindow),
		InitialConnectionReceiveWindow:   h.cfg.ConnWindow,
		MaxConnectionReceiveWindow:       h.cfg.ConnWindow,
		MaxIncomingStreams:               int64(h.cfg.Limits.StreamsPerConnection),
		MaxIncomingUniStreams:            4, // one is used: the control stream
		EnableStreamResetPartialDelivery: true,
		Allow0RTT:                        true, // a server's; replay.go
		Tracer:                           h.trace,
	}
	if client {
		c.MaxIncomingStreams = -1 // servers open no streams to clients
	}
	return c
}

func (h *Host) serverTLS(alpn ...string) *tls.Config {
	c := &tls.Config{
		MinVersion:   tls.VersionTLS13,
		NextProtos:   append(alpn, ALPN),
		Certificates: []tls.Certificate{h.id.cert},
		KeyLogWriter: h.cfg.KeyLog,
	}
	if h.cfg.PKI != nil {
		h.requireClients(c)
	}
	return c
}

// clientTLS verifies that the peer is who p expects. InsecureSkipVerify turns
// off only what crypto/tls would look for by itself; it proves that the peer
// has the key of the certificate (RFC 8446 section 4.4.3). That proof comes
// after this check, so a first key is pinned later, see Host.confirmPin.
func (h *Host) clientTLS(p Peer) *tls.Config {
	c := &tls.Config{
		MinVersion:         tls.VersionTLS13,
		NextProtos:         p.alpns(),
		InsecureSkipVerify: true,
		KeyLogWriter:       h.cfg.KeyLog,
		VerifyConnection: func(cs tls.ConnectionState) error {
			if !slices.Contains(p.alpns(), cs.NegotiatedProtocol) {
				return ErrNotPoemq
			}
			return h.verifyServer(p, cs)
		},
	}
	h.showCertificate(c)
	return c
}

func leafOf(cs tls.ConnectionState) (*x509.Certificate, error) {
	if len(cs.PeerCertificates) == 0 {
		return nil, fmt.Errorf("%w: no certificate", ErrIdentity)
	}
	return cs.PeerCertificates[0], nil
}

// confirmPin pins the key of a peer that has completed the handshake, if it is
// one that is pinned.
func (h *Host) confirmPin(p Peer, cs tls.ConnectionState) error {
	if x, err := h.expect(p); err != nil || x.kind != expectPin {
		return err
	}
	leaf, err := leafOf(cs)
	if err != nil {
		return err
	}
	key := fingerprint(leaf)
	first, warning, err := h.id.pins.confirm(p.place(), key)
	if first {
		h.log.Info("peer seen for the first time, its key is pinned", "peer", p.place(), "key", key)
	}
	if warning != nil {
		h.log.Warn("known peers", "err", warning)
	}
	return err
}

// checkBuffers says once when the kernel limits socket buffers.
func (h *Host) checkBuffers(s *socket) {
	h.bufferOnce.Do(func() {
		var rcv, snd int
		s.cur.Load().control(func(fd int) {
			rcv, _ = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF)
			snd, _ = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF)
		})
		if rcv < bufferWanted || snd < bufferWanted {
			h.log.Warn("UDP socket buffers are small, fast transfers will lose packets; set "+
				"sysctl net.core.rmem_max=7500000 net.core.wmem_max=7500000",
				"receive_octets", rcv, "send_octets", snd, "wanted_octets", bufferWanted)
		}
	})
}
