package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/poemq/poemq/broker/api"
	"github.com/poemq/poemq/broker/policy"
	"github.com/poemq/poemq/quic"
)

// routes is everything that can be asked for; docs/api.md lists the same.
func (s *server) routes() []Route {
	return []Route{
		{Method: "GET", Path: "/v1/status", About: "What poemqd is doing, in numbers.", Answer: s.status},
		{Method: "GET", Path: "/v1/sessions", About: "Launched process trees and containers.", Answer: s.sessions},
		{Method: "GET", Path: "/v1/sockets", About: "Every socket of a program.", Answer: s.sockets},
		{Method: "GET", Path: "/v1/connections", About: "QUIC connections.", Answer: s.connections},
		{Method: "PUT", Path: "/v1/connections/{id}/qlog", About: "Turns the trace of a connection on or off.", All: true, Answer: s.qlog},
		{Method: "GET", Path: "/v1/fallback", About: "Destinations that are reached by TCP at once.", Answer: s.fallback},
		{Method: "DELETE", Path: "/v1/fallback", About: "Forgets them, or one.", Answer: s.forget},
		{Method: "GET", Path: "/v1/why", About: "How a connection would be carried, and why.", Answer: s.why},
		{Method: "GET", Path: "/v1/trust", About: "Peers' keys that are remembered.", All: true, Answer: s.trust},
		{Method: "PUT", Path: "/v1/trust", About: "Holds a peer to a key.", All: true, Answer: s.pin},
		{Method: "DELETE", Path: "/v1/trust", About: "Forgets a peer's keys.", All: true, Answer: s.unpin},
		{Method: "POST", Path: "/v1/reload", About: "Reads the configuration again.", All: true, Answer: s.reload},
		{Method: "POST", Path: "/v1/drain", About: "Lets what is open end, then poemqd ends.", All: true, Answer: s.drain, After: s.End},
		{Method: "GET", Path: "/v1/log-level", About: "The log's level.", Answer: s.level},
		{Method: "PUT", Path: "/v1/log-level", About: "Changes it until the next start or reload.", All: true, Answer: s.setLevel},
	}
}

func (s *server) status(*Request) (any, error) {
	st := s.Broker.Status()
	st.Version = s.Version
	return st, nil
}

func (s *server) sessions(r *Request) (any, error) {
	return api.Sessions{Sessions: s.Broker.Sessions(r.Sees)}, nil
}

func (s *server) sockets(r *Request) (any, error) {
	return api.Sockets{Sockets: s.Broker.Sockets(r.Sees)}, nil
}

func (s *server) connections(r *Request) (any, error) {
	return api.Connections{Connections: s.Broker.Connections(r.Sees, r.All())}, nil
}

func (s *server) qlog(r *Request) (any, error) {
	id, err := strconv.ParseUint(r.PathValue("id"), 10, 64)
	if err != nil {
		return nil, fmt.Errorf("connection %q is no number: see poemqctl status, or the column CONN of poemqctl ss", r.PathValue("id"))
	}
	var want api.Qlog
	if err := body(r, &want); err != nil {
		return nil, err
	}
	t, err := s.Host.Trace(id, want.On)
	if errors.Is(err, quic.ErrNoConn) {
		err = &Status{http.StatusNotFound, err}
	}
	if err != nil {
		return nil, err
	}
	return api.Traced{Peer: t.Peer, On: want.On, Dir: t.Dir, File: t.File, Next: t.Next}, nil
}

func (s *server) fallback(r *Request) (any, error) {
	return api.Fallbacks{Fallback: s.Broker.Fallbacks(r.Sees)}, nil
}

func (s *server) forget(r *Request) (any, error) {
	remote, err := addrPort(r, "destination")
	if err != nil {
		return nil, err // and not the zero one, which is everything
	}
	return api.Forgotten{Forgotten: s.Broker.ForgetFor(remote, r.Sees)}, nil
}

func (s *server) trust(*Request) (any, error) {
	pins, err := s.Host.Pins()
	if err != nil {
		return nil, err
	}
	t := api.Trust{Pins: []api.Pin{}}
	for _, p := range pins {
		t.Pins = append(t.Pins, api.Pin{Peer: p.Peer.String(), Key: p.Key, Since: p.Date, File: p.File, Line: p.Line})
	}
	return t, nil
}

func (s *server) pin(r *Request) (any, error) {
	var p api.Pin
	if err := body(r, &p); err != nil {
		return nil, err
	}
	peer, err := pinPlace(p.Peer)
	if err != nil {
		return nil, err
	}
	if err := s.Host.SetPin(peer, p.Key); err != nil {
		return nil, err
	}
	return api.Pin{Peer: peer.String(), Key: p.Key}, nil
}

// pinPlace reads whose key is meant.
func pinPlace(s string) (quic.Place, error) {
	p, err := quic.ParsePlace(s)
	if err != nil || p.Peer.Port() == 0 {
		return quic.Place{}, errors.New("peer: want an address and port, with @NAME for a named network namespace")
	}
	return p, nil
}

func (s *server) unpin(r *Request) (any, error) {
	peer, err := pinPlace(r.FormValue("peer"))
	if err != nil {
		return nil, err
	}
	n, err := s.Host.Unpin(peer)
	if err != nil {
		return nil, err
	}
	return api.Forgotten{Forgotten: n}, nil
}

func (s *server) reload(*Request) (any, error) {
	done, err := s.Reload()
	if err != nil {
		return nil, refuse(http.StatusConflict, "the configuration has faults; the one in force stays:\n%w", err)
	}
	return done, nil
}

const (
	defaultDrain = 30 * time.Second
	longestDrain = 24 * time.Hour
)

func (s *server) drain(r *Request) (any, error) {
	deadline := defaultDrain
	if text := r.FormValue("deadline"); text != "" {
		var err error
		if deadline, err = time.ParseDuration(text); err != nil || deadline < 0 || deadline > longestDrain {
			return nil, fmt.Errorf("deadline: %q is no duration from 0s to %v", text, longestDrain)
		}
	}
	return s.Drain(deadline), nil
}

func (s *server) level(*Request) (any, error) {
	return api.LogLevel{Level: strings.ToLower(s.Level.Level().String())}, nil
}

func (s *server) setLevel(r *Request) (any, error) {
	var want api.LogLevel
	if err := body(r, &want); err != nil {
		return nil, err
	}
	level, ok := map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}[want.Level]
	if !ok {
		return nil, fmt.Errorf("%q is none of debug, info, warn, error", want.Level)
	}
	s.Level.Set(level)
	return want, nil
}

// why asks the policy what it would decide, and with probe what is there.
func (s *server) why(r *Request) (any, error) {
	q, err := query(r)
	if err != nil {
		return nil, err
	}
	probe, err := flag(r, "probe")
	if err != nil {
		return nil, err
	}
	if !r.Sees(q.UID) {
		return nil, refuse(http.StatusForbidden, "you are uid %d, and may not ask for uid %d", r.UID(), q.UID)
	}
	d := s.Broker.Why(q)
	w := api.Why{
		Mode: d.Mode.String(), By: d.By(), Rule: d.Rule, Name: d.Name, Where: d.Where,
		Identity: d.Identity, ZeroRTT: d.ZeroRTT, ALPN: d.ALPN, Framing: d.Framing.String(), Remembered: []api.Fallback{},
	}
	if q.Listening {
		return w, nil
	}
	w.Remembered = s.Broker.RememberedFor(q.Addr, q.UID)
	if probe {
		p := s.Broker.Probe(r.Context(), q.Addr, q.UID, d)
		w.Probe = &p
	}
	return w, nil
}

func query(r *Request) (policy.Query, error) {
	q := policy.Query{Session: r.FormValue("session"), Cgroup: func() string { return r.FormValue("cgroup") }}
	name := "to"
	if r.FormValue("listen") != "" {
		name, q.Listening = "listen", true
	}
	var err error
	if q.Addr, err = addrPort(r, name); err != nil {
		return q, err
	}
	if !q.Addr.IsValid() {
		return q, errors.New("needs to or listen, an address and port")
	}
	if q.Asked, err = policy.ParseMode(r.FormValue("asked")); err != nil {
		return q, fmt.Errorf("asked: %w", err)
	}
	q.UID = r.UID()
	if text := r.FormValue("uid"); text != "" {
		uid, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return q, fmt.Errorf("uid: %w", err)
		}
		q.UID = uint32(uid)
	}
	return q, nil
}

func flag(r *Request, name string) (bool, error) {
	text := r.FormValue(name)
	if text == "" {
		return false, nil
	}
	b, err := strconv.ParseBool(text)
	if err != nil {
		return false, fmt.Errorf("%s: %q is neither true nor false", name, text)
	}
	return b, nil
}

// addrPort is the parameter name of r; the zero AddrPort when it is not there.
func addrPort(r *Request, name string) (netip.AddrPort, error) {
	s := r.FormValue(name)
	if s == "" {
		return netip.AddrPort{}, nil
	}
	ap, err := netip.ParseAddrPort(s)
	if err != nil {
		return ap, fmt.Errorf("%s: %w", name, err)
	}
	return ap, nil
}

// body decodes what was sent, and nothing that is not known.
func body(r *Request, v any) error {
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("the body is not the JSON that is wanted: %w", err)
	}
	return nil
}
