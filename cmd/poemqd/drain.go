package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/poemq/poemq/broker"
	"github.com/poemq/poemq/broker/api"
)

// drain lets what is open end before the broker does.
type drain struct {
	broker *broker.Broker
	log    *slog.Logger
	door   func() // closes it: no more sessions
	end    func() // has poemqd end
	kept   bool   // the next broker goes on with the sessions
}

// run returns when nothing is open any more, or the deadline has passed.
func (d *drain) run(deadline time.Duration) api.Drained {
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
	s := api.Drained{Relays: now.Relays, Sessions: now.Sessions, Kept: d.kept}
	s.Drained = s.Relays == 0 && (d.kept || s.Sessions == 0)
	d.log.Info("drained", "relays", s.Relays, "sessions", s.Sessions, "deadline_passed", !s.Drained)
	return s
}
