package main

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"strconv"

	"github.com/poemq/poemq/broker"
	"github.com/poemq/poemq/broker/policy"
)

// controlAPI is what poemqctl asks.
func controlAPI(b *broker.Broker, log *slog.Logger) *http.ServeMux {
	mux := http.NewServeMux()
	handle := func(pattern string, f func(*http.Request) (any, error)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			what, err := f(r)
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			if err := json.NewEncoder(w).Encode(what); err != nil {
				log.Debug("control socket", "error", err)
			}
		})
	}
	handle("GET /v1/status", func(*http.Request) (any, error) {
		return struct {
			Version string `json:"version"`
			broker.Status
		}{version, b.Status()}, nil
	})
	handle("GET /v1/fallback", func(*http.Request) (any, error) {
		return struct {
			Fallback []broker.Remembered `json:"fallback"`
		}{b.Remembered()}, nil
	})
	handle("DELETE /v1/fallback", func(r *http.Request) (any, error) {
		remote, err := addrPort(r, "destination")
		if err != nil {
			return nil, err // and not the zero one, which is everything
		}
		return struct {
			Forgotten int `json:"forgotten"`
		}{b.Forget(remote)}, nil
	})
	handle("GET /v1/why", func(r *http.Request) (any, error) { return why(b, r) })
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	return mux
}

// addrPort is the parameter name of r; the zero AddrPort when it is not there.
func addrPort(r *http.Request, name string) (netip.AddrPort, error) {
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

// decided is a policy.Decision for poemqctl.
type decided struct {
	Mode     string `json:"mode"`
	By       string `json:"by"`
	Rule     int    `json:"rule"` // from 1; 0: none
	Name     string `json:"name,omitempty"`
	Where    string `json:"where,omitempty"`
	Identity string `json:"identity,omitempty"`
	ZeroRTT  bool   `json:"zero_rtt,omitempty"`
	ALPN     string `json:"alpn,omitempty"`
	Framing  string `json:"framing"`
}

// why asks the policy what it would decide.
func why(b *broker.Broker, r *http.Request) (any, error) {
	q := policy.Query{Session: r.FormValue("session"), Cgroup: func() string { return r.FormValue("cgroup") }}
	name := "to"
	if r.FormValue("listen") != "" {
		name, q.Listening = "listen", true
	}
	var err error
	if q.Addr, err = addrPort(r, name); err != nil {
		return nil, err
	}
	if !q.Addr.IsValid() {
		return nil, fmt.Errorf("needs to or listen, an address and port")
	}
	if q.Asked, err = policy.ParseMode(r.FormValue("asked")); err != nil {
		return nil, fmt.Errorf("asked: %w", err)
	}
	uid, err := strconv.ParseUint(r.FormValue("uid"), 10, 32)
	if err != nil {
		return nil, fmt.Errorf("uid: %w", err)
	}
	q.UID = uint32(uid)
	d := b.Why(q)
	return decided{
		Mode: d.Mode.String(), By: d.By(), Rule: d.Rule, Name: d.Name, Where: d.Where,
		Identity: d.Identity, ZeroRTT: d.ZeroRTT, ALPN: d.ALPN, Framing: d.Framing.String(),
	}, nil
}
