package main

import (
	"time"
)

// startConnects starts the server of connections that come one after the other.
func (l *lane) startConnects() (err error) {
	server := "serve-one"
	if l.way == quicGo {
		server = "serve"
	}
	l.port, err = l.serve(l.load(server))
	return err
}

// connects makes connections one after the other, each for one message.
func connects(b *bench) error {
	lanes := b.lanes((*lane).startConnects, tcp, tls, quicGo, two, one, direct, hooked, quicly)
	defer closeAll(lanes)
	b.rounds(lanes, 0, func(l *lane) error {
		u, err := l.ask(time.Minute, l.load("connects", l.address, l.port, b.seconds(1)))
		if err != nil {
			return err
		}
		b.addConnects("pooled", l, u)
		return nil
	})
	strangers := map[string]int{} // how many addresses have been used
	b.rounds(lanes, 3, func(l *lane) error {
		if l.way == quicly {
			return nil // it keeps no connections, so that all peers are new
		}
		u, err := l.ask(time.Minute, l.load("connects", stranger(strangers[l.way]), l.port, b.seconds(1), "spread"))
		if err != nil {
			return err
		}
		strangers[l.way] += int(u.values["used"])
		b.addConnects("new peer", l, u)
		return nil
	})
	return nil
}

// wholeConnect is a figure that bars are about.
const wholeConnect = "connect + 64 B echo + close, pooled"

func (b *bench) addConnects(kind string, l *lane, u used) {
	delete(u.values, "connect_p999") // too few connections for it
	delete(u.values, "whole_p999")
	b.addPercentiles("connect, "+kind, "connect", l.way, u)
	b.addPercentiles("connect + 64 B echo + close, "+kind, "whole", l.way, u)
	b.add(figure{"connects, " + kind, "1/s", true}, l.way, 1e6/(u.values["whole_mean"]/1e3))
}
