package control

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/user"
	"slices"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Group is who may do what root may.
const Group = "poemq"

// peer is who asks, as of when the connection was made.
type peer struct {
	pid    int
	uid    uint32
	gids   []uint32 // all groups
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
	return slices.Contains(p.trusts.uids, p.uid) ||
		slices.ContainsFunc(p.gids, func(gid uint32) bool { return slices.Contains(p.trusts.gids, gid) })
}

// sees reports that p may look at what belongs to uid.
func (p *peer) sees(uid uint32) bool { return p.all() || p.err == nil && p.uid == uid }

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
	raw, err := u.SyscallConn()
	if err != nil {
		p.err = err
		return p
	}
	err = raw.Control(func(fd uintptr) {
		cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err != nil {
			p.err = fmt.Errorf("SO_PEERCRED: %w", err)
			return
		}
		p.pid, p.uid, p.gids = int(cred.Pid), cred.Uid, []uint32{cred.Gid}
		more, err := peerGroups(int(fd))
		if err != nil {
			p.err = fmt.Errorf("SO_PEERGROUPS: %w", err)
			return
		}
		p.gids = append(p.gids, more...)
	})
	if p.err == nil {
		p.err = err
	}
	return p
}

// peerGroups are the supplementary groups (unix(7), Linux 4.13).
func peerGroups(fd int) ([]uint32, error) {
	for groups := make([]uint32, 64); ; {
		size := uint32(4 * len(groups))
		_, _, e := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch {
		case e == unix.ERANGE && int(size) > 4*len(groups):
			groups = make([]uint32, size/4) // which it takes
		case e != 0:
			return nil, e
		default:
			return groups[:size/4], nil
		}
	}
}
