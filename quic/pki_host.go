package quic

import (
	"crypto/tls"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	quicgo "github.com/quic-go/quic-go"
)

// What a Host does with its PKI: TLS configurations, the answer to a reload,
// who may open streams, and what a peer's refusal of us means.

// requireClients makes a server's configuration show the PKI's certificate and
// verify the client's. The client is asked for one, not told to have one:
// VerifyConnection refuses it then, with a line in the log.
func (h *Host) requireClients(c *tls.Config) {
	c.Certificates = nil
	c.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return h.cfg.PKI.ownCert(), nil }
	c.ClientAuth = tls.RequestClientCert
	base := c.Clone()
	c.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		peer := udpAddrPort(hello.Conn.RemoteAddr())
		mine := base.Clone()
		mine.VerifyConnection = func(cs tls.ConnectionState) error {
			err := h.cfg.PKI.verifyClient(peer, cs)
			if err != nil {
				h.clients.note(time.Now(), peer, "client refused", err)
			}
			return err
		}
		return mine, nil
	}
}

func (p *PKI) ownCert() *tls.Certificate { return &p.now.Load().cert }

// showCertificate makes a client's configuration show the PKI's certificate to
// whom asks for one.
func (h *Host) showCertificate(c *tls.Config) {
	if pki := h.cfg.PKI; pki != nil {
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return pki.ownCert(), nil }
	}
}

// expect understands what p expects; its errors are ErrIdentity.
func (h *Host) expect(p Peer) (expectation, error) {
	x, err := parseExpect(p.Expect, h.cfg.PKI != nil)
	if err != nil {
		err = &IdentityError{
			Peer: p.Remote, Err: err, Shown: "nothing yet", Wanted: p.Expect,
			ToDo: "correct what is expected of the peer, or configure certificate, key and CA",
		}
	}
	return x, err
}

// verifyServer decides whether the peer is who p expects. TLS calls it before
// the peer has proved that it has the key, so a first key is pinned later.
func (h *Host) verifyServer(p Peer, cs tls.ConnectionState) error {
	x, err := h.expect(p)
	if err != nil {
		return err
	}
	if x.usesPKI() {
		return h.cfg.PKI.verifyServer(p.Remote, x, cs)
	}
	leaf, err := leafOf(cs)
	if err != nil {
		return err
	}
	key := fingerprint(leaf)
	if x.kind == expectPin {
		return h.id.pins.check(p.place(), key)
	}
	if key != x.value {
		return &IdentityError{
			Peer: p.Remote, Err: errors.New("the peer has another key"), Shown: key + " (" + describe(leaf) + ")", Wanted: x.value,
			ToDo: "if the peer's key was changed on purpose, expect the new one",
		}
	}
	return nil
}

// connIdentity is who is at the other end of a connection.
type connIdentity struct {
	once   sync.Once
	who    PeerIdentity
	barred atomic.Bool // the peer no longer verifies: no new streams
}

// identity is the peer's, as it was verified in the handshake.
func (c *conn) identity() PeerIdentity {
	c.ident.once.Do(func() {
		if certs := c.qc.ConnectionState().TLS.PeerCertificates; len(certs) > 0 {
			c.ident.who = identityOf(certs[0])
		}
	})
	return c.ident.who
}

// PeerIdentity is who connects: verified by the PKI, or the zero value.
func (in *Incoming) PeerIdentity() PeerIdentity { return in.st.c.identity() }

// authorize decides whether the peer may open this stream.
func (h *Host) authorize(in *Incoming) bool {
	c := in.st.c
	var err error
	if c.ident.barred.Load() {
		err = fmt.Errorf("%w: the certificate of %v is no longer valid for us", ErrIdentity, c.identity())
	} else if h.cfg.Authorize != nil {
		err = h.cfg.Authorize(c.identity(), in.LocalAddr())
	}
	if err != nil {
		h.streams.note(time.Now(), in.RemoteAddr(), "stream refused", err)
	}
	return err == nil
}

// reloaded is called after each reload of the PKI.
func (h *Host) reloaded(r ReloadReport) {
	for _, what := range r.Changed {
		h.log.Info("certificates reloaded", "now", what)
	}
	for _, w := range r.Warnings {
		h.log.Warn("certificates", "warning", w)
	}
	h.mu.Lock()
	links, ports := h.snapshot()
	h.mu.Unlock()
	for _, l := range links {
		if c := l.c.Load(); c != nil {
			h.verifyAgain(c, l)
		}
	}
	for _, p := range ports {
		for _, c := range p.connections() {
			h.verifyAgain(c, nil)
		}
	}
}

// verifyAgain ends a connection whose peer no longer verifies: living streams
// go on, new ones are not made. l is its link, nil on a server.
func (h *Host) verifyAgain(c *conn, l *link) {
	if c.qc.Context().Err() != nil {
		return
	}
	cs := c.qc.ConnectionState().TLS
	var err error
	if l == nil {
		err = h.cfg.PKI.verifyClient(c.remote, cs)
	} else if x, _ := h.expect(l.peer); x.usesPKI() { // a pin has not changed
		err = h.cfg.PKI.verifyServer(c.remote, x, cs)
	}
	if err != nil && !c.ident.barred.Swap(true) {
		h.log.Warn("peer no longer verifies, its connection takes no new streams", "peer", c.remote, "local", c.local, "err", err)
		c.goAway()
	}
}

// verifyLate is called once a new connection can be found by reloaded. One
// that came during its handshake has not seen it; no handshake takes longer
// than twice HandshakeTimeout.
func (h *Host) verifyLate(c *conn, l *link) {
	if pki := h.cfg.PKI; pki != nil && pki.reloadedWithin(2*h.cfg.HandshakeTimeout) {
		h.verifyAgain(c, l)
	}
}

// connections lists the living ones of a port.
func (p *port) connections() []*conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	conns := make([]*conn, 0, len(p.conns))
	for c := range p.conns {
		conns = append(conns, c)
	}
	return conns
}

// certificateAlerts are the ways in which a peer refuses our certificate.
var certificateAlerts = map[tls.AlertError]struct{ why, toDo string }{
	alertBadCertificate:         {"bad certificate", "the peer's log tells why"},
	alertUnsupportedCertificate: {"not a certificate for clients", "issue us one for both server and client authentication"},
	alertCertificateRevoked:     {"certificate revoked", "issue us a new one, if we are to be trusted"},
	alertCertificateExpired:     {"certificate expired or not yet valid", "renew it, or look at the clocks of both hosts"},
	alertCertificateUnknown:     {"certificate not accepted", "the peer's log tells why"},
	alertUnknownCA:              {"unknown CA", "add our CA to the peer's bundle, or take a certificate of its CA"},
	alertAccessDenied:           {"access denied", "the peer's log tells why"},
	alertCertificateRequired:    {"certificate required", "the peer belongs to a fleet with a CA: configure certificate, key and CA here, too"},
}

// refusedByPeer looks for the alert by which a peer refuses our certificate, and
// for ours by which TLS refuses a certificate that was only copied.
// TLS 1.3 sends it when our handshake is complete already, so that it ends the
// connection in place of the answer to the first stream.
func (h *Host) refusedByPeer(p Peer, err error) error {
	te, ok := errors.AsType[*quicgo.TransportError](err)
	if !ok || !te.ErrorCode.IsCryptoError() {
		return err
	}
	code := tls.AlertError(te.ErrorCode - 0x100)
	alert, ok := certificateAlerts[code]
	switch {
	case !te.Remote && code == alertDecryptError:
		err = fmt.Errorf("%w: the peer did not prove that it has the key of its certificate: %w", ErrIdentity, te)
		h.servers.note(time.Now(), p.Remote, "peer refused", err)
		return dialError("handshake", p, err)
	case !te.Remote || !ok:
		return err
	}
	e := &IdentityError{
		Peer: p.Remote, Err: fmt.Errorf("the peer refused our certificate: %s", alert.why),
		Shown: "no certificate", Wanted: "one that the peer accepts", ToDo: alert.toDo,
	}
	if h.cfg.PKI != nil {
		e.Shown = describe(h.cfg.PKI.ownCert().Leaf)
	}
	h.servers.note(time.Now(), p.Remote, "peer refuses us", e)
	return &DialError{Op: "handshake", Peer: p, Errno: unix.ECONNREFUSED, Err: e}
}
