package link

import (
	"fmt"
	"net/netip"
	"sync/atomic"
)

// Direction of a packet.
type Direction int

// Both is for calls that concern the two.
const (
	AtoB Direction = 1 << iota
	BtoA
	Both = AtoB | BtoA
)

func (d Direction) String() string {
	switch d {
	case AtoB:
		return "a→b"
	case BtoA:
		return "b→a"
	}
	return "both"
}

// Link is a path between two hosts of its own. Its methods are safe for
// concurrent use, but for Close.
type Link struct {
	A, B *Host

	ab, ba *direction
	middle atomic.Pointer[Middlebox]
}

// Middlebox sees each packet that enters the path, may change it in place, and
// reports whether it goes on. Each direction calls it from a thread of its own;
// it must not block.
type Middlebox func(Direction, Packet) bool

// New makes two hosts, named for messages, and a path between them with p in
// each direction. The caller closes it.
func New(a, b string, p Params) (l *Link, err error) {
	if err := p.check(); err != nil {
		return nil, fmt.Errorf("link: %w", err)
	}
	l = &Link{}
	defer func() {
		if err != nil {
			l.Close()
		}
	}()
	if l.A, err = NewHost(a); err != nil {
		return nil, err
	}
	if l.B, err = NewHost(b); err != nil {
		return nil, err
	}
	if err := l.A.attach(netip.MustParsePrefix("10.99.0.1/24")); err != nil {
		return nil, err
	}
	if err := l.B.attach(netip.MustParsePrefix("10.99.0.2/24")); err != nil {
		return nil, err
	}
	if l.ab, err = newDirection(AtoB, l.A.tun, l.B.tun, p, &l.middle); err != nil {
		return nil, err
	}
	if l.ba, err = newDirection(BtoA, l.B.tun, l.A.tun, p, &l.middle); err != nil {
		return nil, err
	}
	return l, nil
}

// Close ends the path and gives up the hosts. Programs on them should have
// ended before.
func (l *Link) Close() {
	for _, d := range []*direction{l.ab, l.ba} {
		if d != nil {
			d.stop()
		}
	}
	for _, h := range []*Host{l.A, l.B} {
		if h != nil {
			h.Close()
		}
	}
}

// of lists the directions that which names.
func (l *Link) of(which Direction) (ds []*direction) {
	for _, d := range []*direction{l.ab, l.ba} {
		if which&d.dir != 0 {
			ds = append(ds, d)
		}
	}
	return ds
}

// Set changes what happens to packets that enter from now on. The seed stays.
func (l *Link) Set(which Direction, p Params) error {
	if err := p.check(); err != nil {
		return fmt.Errorf("link: %w", err)
	}
	for _, d := range l.of(which) {
		d.params.Store(&p)
	}
	return nil
}

// Cut loses everything, what is under way too, until Mend.
func (l *Link) Cut(which Direction) { l.cut(which, true) }

// Mend ends a Cut.
func (l *Link) Mend(which Direction) { l.cut(which, false) }

func (l *Link) cut(which Direction, cut bool) {
	for _, d := range l.of(which) {
		d.cut.Store(cut)
	}
}

// Through puts a middlebox at the entrance of the path, in place of any that
// was there; nil puts none.
func (l *Link) Through(m Middlebox) {
	if m == nil {
		l.middle.Store(nil)
		return
	}
	l.middle.Store(&m)
}

// Stats tells what one direction has done so far, without packets of the last
// moment.
func (l *Link) Stats(which Direction) Stats {
	if which == BtoA {
		return l.ba.stats()
	}
	return l.ab.stats()
}
