package main

import (
	"fmt"
	"net/netip"

	"github.com/poemq/poemq/broker"
	"github.com/poemq/poemq/broker/config"
	"github.com/poemq/poemq/quic"
)

// fronts are the ports that the configuration has the broker itself serve.
func fronts(c *config.Config, pki *quic.PKI) ([]broker.Front, error) {
	var all []broker.Front
	where := make(map[string]string) // each port was named
	add := func(f broker.Front, kind string, listen config.Endpoint, at string) error {
		addr, err := netip.ParseAddrPort(listen.String())
		if err != nil {
			return fmt.Errorf("%s: listen: %w", at, err)
		}
		if f.Listen = addr; where[kind+addr.String()] != "" {
			return fmt.Errorf("%s: [[%s]] listens on %v, as the one at %s does", at, kind, addr, where[kind+addr.String()])
		}
		where[kind+addr.String()] = at
		all = append(all, f)
		return nil
	}
	for _, e := range c.Exposes {
		if e.Identity != "" && pki == nil {
			return nil, fmt.Errorf("%s: identity in [[expose]] needs [tls] cert, key and ca: a peer without a certificate has no name", e.Where)
		}
		if e.Identity != "" {
			if err := (quic.AllowList{{Peers: []string{e.Identity}}}).Validate(); err != nil {
				return nil, fmt.Errorf("%s: identity: %w", e.Where, err)
			}
		}
		if err := add(broker.Front{Expose: true, To: e.To.String(), Identity: e.Identity}, "expose", e.Listen, e.Where); err != nil {
			return nil, err
		}
	}
	for _, f := range c.Forwards {
		if err := add(broker.Front{To: f.To.String(), Mode: f.Mode, Identity: f.Identity}, "forward", f.Listen, f.Where); err != nil {
			return nil, err
		}
	}
	return all, nil
}
