package quic

import (
	"crypto/tls"
	"testing"
	"time"
)

// aSession is a server's session state of a real handshake.
func aSession(t *testing.T, id *Identity) *tls.SessionState {
	t.Helper()
	var got *tls.SessionState
	server := &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{id.cert},
		WrapSession: func(_ tls.ConnectionState, s *tls.SessionState) ([]byte, error) {
			got = s
			return []byte("ticket"), nil
		},
	}
	s := tls.QUICServer(&tls.QUICConfig{TLSConfig: server})
	c := tls.QUICClient(&tls.QUICConfig{TLSConfig: &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true}})
	defer s.Close()
	defer c.Close()
	for _, q := range []*tls.QUICConn{s, c} {
		q.SetTransportParameters(nil)
		if err := q.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for range 10 {
		for from, to := range map[*tls.QUICConn]*tls.QUICConn{s: c, c: s} {
			for e := from.NextEvent(); e.Kind != tls.QUICNoEvent; e = from.NextEvent() {
				if e.Kind == tls.QUICWriteData {
					if err := to.HandleData(e.Level, e.Data); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
	}
	if err := s.SendSessionTicket(tls.QUICSessionTicketOptions{}); err != nil {
		t.Fatal(err)
	}
	return got
}

// Configurations made for each client have the same tickets.
func TestTicketsForEachClient(t *testing.T) {
	k := &tickets{id: mustIdentity(t, ""), now: time.Now}
	inner := &tls.Config{SessionTicketsDisabled: true}
	c := &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return inner, nil }}
	k.issue(c)
	got, err := c.GetConfigForClient(nil)
	if err != nil || got.SessionTicketsDisabled || got.WrapSession == nil || got.UnwrapSession == nil {
		t.Errorf("%+v, %v", got, err)
	}
}

// A ticket is good for two days, on one port, for one identity.
func TestTickets(t *testing.T) {
	id := mustIdentity(t, "")
	state := aSession(t, id)
	noon := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	at := func(id *Identity, where string, days int) *tickets {
		return &tickets{id: id, where: where, now: func() time.Time { return noon.AddDate(0, 0, days) }}
	}
	ticket, err := at(id, "192.0.2.1:443", 0).wrap(state)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		k    *tickets
		good bool
	}{
		{"same day", at(id, "192.0.2.1:443", 0), true},
		{"next day", at(id, "192.0.2.1:443", 1), true},
		{"third day", at(id, "192.0.2.1:443", 2), false},
		{"day before", at(id, "192.0.2.1:443", -1), false},
		{"another port", at(id, "192.0.2.1:444", 0), false},
		{"another identity", at(mustIdentity(t, ""), "192.0.2.1:443", 0), false},
	} {
		if got := c.k.unwrap(ticket); (got != nil) != c.good {
			t.Errorf("%s: taken is %v, want %v", c.name, got != nil, c.good)
		}
	}
	for i := range ticket {
		bad := append([]byte{}, ticket...)
		bad[i] ^= 1
		if at(id, "192.0.2.1:443", 0).unwrap(bad) != nil || at(id, "192.0.2.1:443", 0).unwrap(ticket[:i]) != nil {
			t.Fatalf("damaged or cut at octet %d, and still taken", i)
		}
	}
}
