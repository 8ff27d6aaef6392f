package control

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/user"
	"slices"
	"strconv"

	"github.com/poemq/poemq/broker"
)

// Group is who may do what root may.
const Group = "poemq"

// peer is who asks, as of when the connection was made.
type peer struct {
	broker.Peer
	trusts *authority
	err    error // why nothing is known
}

// authority says whose word counts for all.
type authority struct {
	uids []uint32
	gids []uint32
}

// newAuthority trusts root, who the broker runs as, and group if it exists.
func newAuthority(group string) *authority {
	a := &authority{uids: []uint32{0, uint32(os.Geteuid())}}
	if g, err := user.LookupGroup(group); err == nil {
		if gid, err := strconv.ParseUint(g.Gid, 10, 32); err == nil {
			a.gids = append(a.gids, uint32(gid))
		}
	}
	return a
}

// all reports that p may see and change everything.
func (p *peer) all() bool {
	if p.err != nil {
		return false
	}
	return slices.Contains(p.trusts.uids, p.UID) || slices.ContainsFunc(p.trusts.gids, p.In)
}

// sees reports that p may look at what belongs to uid.
func (p *peer) sees(uid uint32) bool { return p.all() || p.err == nil && p.UID == uid }

type peerKey struct{}

// known is for http.Server's ConnContext.
func (a *authority) known(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, peerKey{}, a.peerOf(c))
}

func (a *authority) peerOf(c net.Conn) *peer {
	p := &peer{trusts: a}
	u, ok := c.(*net.UnixConn)
	if !ok {
		p.err = fmt.Errorf("a %T has no peer", c)
		return p
	}
	p.Peer, p.err = broker.PeerOf(u)
	return p
}
