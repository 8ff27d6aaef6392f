package broker

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/poemq/poemq/broker/policy"
	"github.com/poemq/poemq/quic"
	"golang.org/x/sys/unix"
)

// What is counted of connections, and told when one ends. A relay counts octets
// by itself, with an atomic addition for each piece that it carries; everything
// else is done when a connection begins and ends.

// account is what a relay knows of its connection for those who watch.
type account struct {
	why   string                  // it is carried as it is; "" for one that was accepted. Set before start
	sess  atomic.Pointer[Session] // whose it is; nil while it waits to be accepted
	begun atomic.Int64            // ns after loaded; 0 before start
	sent  atomic.Uint64           // octets taken from our program
	// Why it ended, the first word counts. A failure counts before the ends of
	// file on the way to it.
	failure, fin atomic.Pointer[string]
}

// Reasons for a connection's end.
const (
	endOurs       = "the program finished first"
	endPeers      = "the peer finished first"
	endOurReset   = "reset by the program"
	endPeerReset  = "reset by the peer"
	endGivenUp    = "given up by the program"
	endPeerGaveUp = "given up by the peer"
	endLost       = "connection lost"
	endRefused    = "the peer sent to a closed socket"
	endBroker     = "poemqd ends"
	endOther      = "other"
)

func (a *account) fails(why string)    { a.failure.CompareAndSwap(nil, &why) }
func (a *account) finishes(why string) { a.fin.CompareAndSwap(nil, &why) }

// failsBy is fails for an error of the transport's.
func (a *account) failsBy(err error) {
	switch {
	case err == nil, errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed), errors.Is(err, quic.ErrStopped): // our doing, or no end
	case errors.Is(err, quic.ErrGivenUp):
		a.fails(endPeerGaveUp)
	case errors.Is(err, quic.ErrLost):
		a.fails(endLost)
	case errors.Is(err, quic.ErrReset), errors.Is(err, unix.ENOTCONN): // the latter of CloseWrite, after TCP's RST
		a.fails(endPeerReset)
	default:
		a.fails(endOther)
	}
}

func (a *account) reason() string {
	for _, p := range []*string{a.failure.Load(), a.fin.Load()} {
		if p != nil {
			return *p
		}
	}
	return endOther
}

// loaded is what account.begun counts from: Unix time would jump with the clock.
var loaded = time.Now()

func (a *account) age(now time.Time) time.Duration {
	if begun := a.begun.Load(); begun != 0 {
		return now.Sub(loaded.Add(time.Duration(begun)))
	}
	return 0
}

// via names what t is, for those who watch.
func via(t transport) string {
	if _, tcp := t.(*tcpTransport); tcp {
		return "tcp"
	}
	return "quic"
}

// carried is how a connection is carried, as metrics have it.
type carried struct {
	Via  string // "quic" or "tcp"
	Side string // "dialed" or "accepted"
}

func (r *relay) carried() carried {
	c := carried{Via: via(r.t), Side: "dialed"}
	if r.why == "" {
		c.Side = "accepted"
	}
	return c
}

// reasonCarried is why r is carried as it is.
func (r *relay) reasonCarried() string {
	switch {
	case r.why != "":
		return r.why
	case via(r.t) == "quic":
		return "the peer came by QUIC"
	}
	return "the peer came by TCP"
}

// octets are counted in the direction seen from the program.
type octets struct{ Sent, Received uint64 }

func (o *octets) add(p octets) { o.Sent, o.Received = o.Sent+p.Sent, o.Received+p.Received }

func (r *relay) octets() octets { return octets{r.sent.Load(), r.delivered.Load()} }

// ledger adds up what connections did. The zero ledger is ready.
type ledger struct {
	mu       sync.Mutex // guards what follows
	living   map[*relay]struct{}
	begun    map[carried]uint64
	ended    map[carried]octets // of those that have ended
	endings  map[string]uint64  // by reason
	fallback map[string]uint64  // connections over TCP since QUIC was not to be had, by reason
	failed   map[string]uint64  // connects, by errno
	sessions uint64             // that there were
	calls    [callKinds]uint64  // of ended sessions
}

func count[K comparable](m *map[K]uint64, k K) {
	if *m == nil {
		*m = make(map[K]uint64)
	}
	(*m)[k]++
}

// begins notes that r carries bytes from now on.
func (l *ledger) begins(r *relay) {
	r.begun.Store(int64(time.Since(loaded)))
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.living == nil {
		l.living = make(map[*relay]struct{})
	}
	l.living[r] = struct{}{}
	count(&l.begun, r.carried())
}

// ends notes the opposite. sess may be nil.
func (l *ledger) ends(r *relay, sess *Session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, there := l.living[r]; !there {
		return
	}
	delete(l.living, r)
	o := r.octets()
	if l.ended == nil {
		l.ended = make(map[carried]octets)
	}
	sum := l.ended[r.carried()]
	sum.add(o)
	l.ended[r.carried()] = sum
	count(&l.endings, r.reason())
	if sess != nil {
		sess.past.add(o)
		sess.connections++
	}
}

func (l *ledger) fallsBack(reason string) {
	l.mu.Lock()
	count(&l.fallback, reason)
	l.mu.Unlock()
}

func (l *ledger) connectFails(errno string) {
	l.mu.Lock()
	count(&l.failed, errno)
	l.mu.Unlock()
}

// settle is the end of a relay's account: it is told in one line.
func (r *relay) settle(t transport, sock *Socket) {
	if t == nil || r.begun.Load() == 0 {
		return // it never was a connection
	}
	log, sess := r.b.log, (*Session)(nil)
	if sock != nil {
		log, sess = sock.sess.log, sock.sess
	}
	r.b.ledger.ends(r, sess)
	if !log.Enabled(r.b.ctx, slog.LevelInfo) {
		return
	}
	o, now := r.octets(), time.Now()
	attrs := []any{
		"local", t.LocalAddr(), "remote", t.RemoteAddr(), "via", via(t), "why", r.reasonCarried(), "reason", r.reason(),
		"sent", o.Sent, "received", o.Received, "duration", r.age(now).Round(time.Microsecond),
	}
	if sock != nil {
		attrs = append(attrs, "socket", sock.cookie)
	}
	log.Info("connection ends", attrs...)
}

// whyOf tells in words what a's mode had to do with it.
func (a *attempt) decides(d policy.Decision, t transport) {
	switch {
	case a.why != "":
	case a.mode != policy.Prefer:
		a.why = "policy " + a.mode.String()
	case via(t) == "quic":
		a.why = "QUIC answered"
	default:
		a.why = "TCP answered first"
	}
	if a.mode != policy.Prefer || d.Rule > 0 {
		a.why += ", " + d.By()
	}
}
