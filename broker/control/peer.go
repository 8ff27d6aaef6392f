package control

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/user"
	"slices"
	"strconv"
	"sync"

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
func known(ctx context.Context, c net.Conn) context.Context {
	if d, ok := c.(*door); ok {
		return context.WithValue(ctx, peerKey{}, d.peer)
	}
	return ctx
}

// mostConns is how many connections one user may have, who is not trusted with
// everything: others shall get in, too.
const mostConns = 32

// doorman is a listener that knows who comes, and bounds how many.
type doorman struct {
	net.Listener
	trusts *authority

	mu     sync.Mutex     // guards what follows
	inside map[uint32]int // connections of users
}

// door is an accepted connection.
type door struct {
	net.Conn
	peer *peer
	left func() // once, when it is closed
}

func (d *doorman) Accept() (net.Conn, error) {
	for {
		c, err := d.Listener.Accept()
		if err != nil {
			return nil, err
		}
		p := d.trusts.peerOf(c)
		if d.letIn(p) {
			return &door{c, p, sync.OnceFunc(func() { d.leaves(p) })}, nil
		}
		c.Close()
	}
}

func (d *doorman) letIn(p *peer) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !p.all() && d.inside[p.UID] >= mostConns {
		return false
	}
	if d.inside == nil {
		d.inside = make(map[uint32]int)
	}
	d.inside[p.UID]++
	return true
}

func (d *doorman) leaves(p *peer) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.inside[p.UID]--; d.inside[p.UID] == 0 {
		delete(d.inside, p.UID)
	}
}

func (d *door) Close() error {
	d.left()
	return d.Conn.Close()
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
