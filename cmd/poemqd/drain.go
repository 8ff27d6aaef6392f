package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/poemq/poemq/broker"
)

// drain lets what is open end before the broker does.
type drain struct {
	broker *broker.Broker
	log    *slog.Logger
	door   func() // closes it: no more sessions
	end    func() // has poemqd end
	kept   bool   // the next broker goes on with the sessions

	once sync.Once
}

// drained is the answer of POST /v1/drain.
type drained struct {
	// Drained is that nothing was open any more at the end.
	Drained bool `json:"drained"`
	// Relays and Sessions are what was open then.
	Relays   int `json:"relays"`
	Sessions int `json:"sessions"`
	// Kept is that the next broker goes on with the sessions.
	Kept bool `json:"kept"`
}

const (
	defaultDrain = 30 * time.Second
	longestDrain = 24 * time.Hour
)

// serve adds POST /v1/drain?deadline=DURATION. It answers when nothing is open
// any more, or the deadline has passed; then poemqd ends.
func (d *drain) serve(mux *http.ServeMux) {
	mux.HandleFunc("POST /v1/drain", func(w http.ResponseWriter, r *http.Request) {
		deadline := defaultDrain
		if s := r.FormValue("deadline"); s != "" {
			var err error
			if deadline, err = time.ParseDuration(s); err != nil || deadline < 0 || deadline > longestDrain {
				http.Error(w, fmt.Sprintf("deadline: %q is no duration from 0s to %v", s, longestDrain), http.StatusBadRequest)
				return
			}
		}
		status := d.run(deadline)
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(status)
		_ = http.NewResponseController(w).Flush()
		d.once.Do(d.end)
	})
}

func (d *drain) run(deadline time.Duration) drained {
	d.log.Info("draining: no new sessions are taken", "deadline", deadline)
	tell("STATUS=Draining")
	d.door()
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	if !d.kept {
		d.broker.AwaitNoSessions(ctx)
	}
	d.broker.AwaitRelays(ctx)
	now := d.broker.Status()
	s := drained{Relays: now.Relays, Sessions: now.Sessions, Kept: d.kept}
	s.Drained = s.Relays == 0 && (d.kept || s.Sessions == 0)
	d.log.Info("drained", "relays", s.Relays, "sessions", s.Sessions, "deadline_passed", !s.Drained)
	return s
}
