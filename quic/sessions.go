package quic

import (
	"container/list"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	quicgo "github.com/quic-go/quic-go"
)

const (
	maxSessions    = 1024               // kept by a Host
	maxSessionSize = 16 << 10           // octets of one; a larger one is not kept
	sessionLife    = 7 * 24 * time.Hour // RFC 8446 section 4.6.1: the longest
	tokensPerPeer  = 4                  // address tokens
	bootIDFile     = "/proc/sys/kernel/random/boot_id"
)

// session is what a client needs to resume: RFC 8446 section 2.2.
type session struct {
	Key    string    `json:"key"`
	Ticket []byte    `json:"ticket"`
	State  []byte    `json:"state"`  // tls.SessionState.Bytes
	Chain  [][]byte  `json:"chain"`  // certificates that the peer showed, DER
	Pinned bool      `json:"pinned"` // its key was pinned when the session was made
	Made   time.Time `json:"made"`
}

func (s *session) size() int {
	n := len(s.Key) + len(s.Ticket) + len(s.State)
	for _, c := range s.Chain {
		n += len(c)
	}
	return n
}

// fit reports that s is whole and within the limits.
func (s *session) fit(now time.Time) bool {
	return s.Key != "" && len(s.Ticket) > 0 && len(s.State) > 0 && len(s.Chain) > 0 &&
		s.size() <= maxSessionSize && now.Sub(s.Made) < sessionLife
}

// sessions are those of a Host, the least recently used forgotten first, and
// the file they are kept in (sessionsfile.go). Each is used once (RFC 8446
// appendix C.4): the connection that resumes it brings the next.
type sessions struct {
	log  *slog.Logger
	file *sessionsFile // nil: in memory only
	boot string
	// tokens are quic-go's address tokens. They are opaque, so memory only.
	tokens quicgo.TokenStore

	mu     sync.Mutex // guards what follows
	loaded bool
	order  *list.List // of *session, the latest first
	byKey  map[string]*list.Element
	timer  *time.Timer // to write the file; runs while it is behind
	behind bool
	closed bool
}

func newSessions(id *Identity, log *slog.Logger) (*sessions, error) {
	s := &sessions{
		log: log, order: list.New(), byKey: map[string]*list.Element{},
		tokens: quicgo.NewLRUTokenStore(maxSessions, tokensPerPeer),
	}
	if b, err := os.ReadFile(bootIDFile); err == nil {
		s.boot = strings.TrimSpace(string(b))
	}
	if id.dir == "" {
		return s, nil
	}
	var err error
	s.file, err = newSessionsFile(id)
	return s, err
}

// sessionKey says what a session is for: nothing that tells connections apart
// is left out. The number of a network namespace is one of this boot.
func (s *sessions) sessionKey(k poolKey, own []tls.Certificate) string {
	h := sha256.New()
	fmt.Fprintf(h, "%s\n%d\n%d\n%s\n%s\n%q\n", s.boot, k.ns, k.uid, k.local, k.remote, k.expect)
	for _, c := range own {
		for _, der := range c.Certificate {
			sum := sha256.Sum256(der)
			h.Write(sum[:])
		}
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// take gives the session of key away, or nil.
func (s *sessions) take(key string) *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.load()
	e := s.byKey[key]
	if e == nil {
		return nil
	}
	s.order.Remove(e)
	delete(s.byKey, key)
	s.changed()
	return e.Value.(*session)
}

// put keeps a session in the place of the one with its key.
func (s *sessions) put(n *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || !n.fit(time.Now()) {
		return
	}
	s.load()
	s.add(n)
	s.changed()
}

// add puts n in front; mu is held.
func (s *sessions) add(n *session) {
	if e := s.byKey[n.Key]; e != nil {
		s.order.Remove(e)
	}
	s.byKey[n.Key] = s.order.PushFront(n)
	if s.order.Len() > maxSessions {
		oldest := s.order.Remove(s.order.Back()).(*session)
		delete(s.byKey, oldest.Key)
	}
}

// resumption is the part of one connection in the sessions: crypto/tls takes
// one from it, and gives it the next. What crypto/tls calls key is the peer's
// address only and not used.
type resumption struct {
	s      *sessions
	key    string
	server string // the name crypto/tls has for the peer
	verify func(tls.ConnectionState) error
	pinned func(*x509.Certificate) bool

	mu      sync.Mutex // guards what follows
	chain   [][]byte   // of the confirmed peer
	isPin   bool
	waiting *session // came before the peer was confirmed
}

var _ tls.ClientSessionCache = (*resumption)(nil)

// resume has the connection that is about to be dialed resume a session, and
// keep those that it is given; nil when sessions are not used.
func (h *Host) resume(l *link, tc *tls.Config, qc *quicgo.Config) *resumption {
	if h.cfg.NoResumption {
		tc.SessionTicketsDisabled = true
		return nil
	}
	k, own := l.key, tc.Certificates
	if h.cfg.PKI != nil {
		own = []tls.Certificate{*h.cfg.PKI.ownCert()}
	}
	r := &resumption{
		s: h.sessions, server: k.remote.Addr().String(), key: h.sessions.sessionKey(k, own), verify: tc.VerifyConnection,
		pinned: func(leaf *x509.Certificate) bool {
			return h.id.pins.has(Place{k.remote, l.peer.nsName}, fingerprint(leaf))
		},
	}
	tc.SessionTicketsDisabled, tc.ClientSessionCache = false, r
	qc.TokenStore = peerTokens{h.sessions.tokens, r.key}
	return r
}

// Get gives the session to resume, if its peer would still be let in: what is
// sent as 0-RTT data goes out before crypto/tls asks VerifyConnection. A pin
// that was removed since is missed, too: then a full handshake makes a new one.
func (r *resumption) Get(string) (*tls.ClientSessionState, bool) {
	n := r.s.take(r.key)
	if n == nil {
		return nil, false
	}
	cs, err := r.restore(n)
	if err != nil {
		r.s.log.Debug("a kept session is not used", "err", err)
		return nil, false
	}
	return cs, true
}

func (r *resumption) restore(n *session) (*tls.ClientSessionState, error) {
	state := tls.ConnectionState{
		Version: tls.VersionTLS13, NegotiatedProtocol: ALPN, DidResume: true, ServerName: r.server,
	}
	for _, der := range n.Chain {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, err
		}
		state.PeerCertificates = append(state.PeerCertificates, c)
	}
	leaf, err := leafOf(state)
	if err != nil {
		return nil, err
	}
	if n.Pinned && !r.pinned(leaf) {
		return nil, fmt.Errorf("%w: the pin is gone", ErrIdentity)
	}
	if err := r.verify(state); err != nil {
		return nil, err
	}
	s, err := tls.ParseSessionState(n.State)
	if err != nil {
		return nil, err
	}
	return tls.NewResumptionState(n.Ticket, s)
}

// Put keeps a session, once the peer is confirmed. With nil crypto/tls says
// that the one it took is of no use.
func (r *resumption) Put(_ string, cs *tls.ClientSessionState) {
	ticket, state, err := cs.ResumptionState()
	if err != nil || state == nil {
		return
	}
	b, err := state.Bytes()
	if err != nil {
		r.s.log.Debug("a session is not kept", "err", err)
		return
	}
	n := &session{Key: r.key, Ticket: ticket, State: b, Made: time.Now()}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.chain == nil {
		r.waiting = n
		return
	}
	r.keep(n)
}

// confirmed says who the peer is, which has completed the handshake.
func (r *resumption) confirmed(certs []*x509.Certificate) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range certs {
		r.chain = append(r.chain, c.Raw)
	}
	r.isPin = len(certs) > 0 && r.pinned(certs[0])
	if r.waiting != nil {
		r.keep(r.waiting)
		r.waiting = nil
	}
}

// keep is called with mu held.
func (r *resumption) keep(n *session) {
	n.Chain, n.Pinned = r.chain, r.isPin
	r.s.put(n)
}

// peerTokens are the address tokens of one kind of connection. quic-go's own
// key is the peer's address.
type peerTokens struct {
	all quicgo.TokenStore
	key string
}

func (t peerTokens) Pop(string) *quicgo.ClientToken        { return t.all.Pop(t.key) }
func (t peerTokens) Put(_ string, tok *quicgo.ClientToken) { t.all.Put(t.key, tok) }
