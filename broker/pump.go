package broker

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/poemq/poemq/quic"
)

// pump carries the bytes of a front's connection both ways, and each side's
// endings to the other as TCP has them:
//
//	FIN of one                       FIN to the other
//	reset, or lost                   what came before, then reset
//	reads no more (its write fails)  the other's writes fail
//
// It holds one buffer a direction, while bytes are under way.
type pump struct {
	ctx   context.Context
	sides [2]*pumpSide
}

// pumpSide is one of the two connections.
type pumpSide struct {
	t     transport
	ended atomic.Bool   // its FIN was read
	deaf  atomic.Bool   // what it sends from now on reaches nobody
	taken atomic.Uint64 // octets it took
}

// carryBoth owns x and y, and returns when both have ended, with the octets that
// each took. The end of ctx resets them.
func carryBoth(ctx context.Context, x, y transport) (toX, toY uint64) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p := &pump{ctx: ctx, sides: [2]*pumpSide{{t: x}, {t: y}}}
	stop := context.AfterFunc(ctx, p.resetBoth)
	var wg sync.WaitGroup
	wg.Go(func() { p.carry(p.sides[0], p.sides[1]) })
	p.carry(p.sides[1], p.sides[0])
	wg.Wait()
	for _, s := range p.sides {
		p.finish(s)
	}
	stop()
	return p.sides[0].taken.Load(), p.sides[1].taken.Load()
}

func (p *pump) resetBoth() {
	for _, s := range p.sides {
		s.t.Reset()
	}
}

// carry is one direction, from its first byte to its end.
func (p *pump) carry(from, to *pumpSide) {
	for {
		from.t.AwaitRead() // without a buffer
		buf := buffers.Get().(*[relayBuffer]byte)
		n, err := from.t.Read(buf[:])
		var refusal error
		if n > 0 {
			_, refusal = to.t.Write(buf[:n])
			to.taken.Add(uint64(n))
		}
		buffers.Put(buf)
		switch {
		case refusal != nil:
			p.refused(from, to, refusal)
			return
		case errors.Is(err, io.EOF):
			p.endOfFile(from, to)
			return
		case err != nil:
			if !from.deaf.Load() { // else it is our own doing
				p.reset(to)
			}
			return
		}
	}
}

func (p *pump) endOfFile(from, to *pumpSide) {
	from.ended.Store(true)
	_ = to.t.CloseWrite() // whoever reads to learns why it takes no more
	// Nobody reads from any more, so it must be asked for its end otherwise.
	from.t.WhenWriteEnds(func(err error) {
		if !errors.Is(err, net.ErrClosed) {
			p.deafen(to)
		}
	})
}

// refused handles that to takes no more.
func (p *pump) refused(from, to *pumpSide, err error) {
	switch {
	case to.ended.Load(), errors.Is(err, quic.ErrStopped):
		p.deafen(from) // its program has closed, and its FIN came or is on its way
	case errors.Is(err, net.ErrClosed):
	default:
		// It was reset, which the other direction tells when all before it is
		// delivered; but not for a program that does not read.
		p.resetUnlessRead(from, from.taken.Load())
	}
}

// resetUnlessRead ends everything once s has taken nothing for readWait.
func (p *pump) resetUnlessRead(s *pumpSide, before uint64) {
	timer := time.AfterFunc(readWait, func() {
		if now := s.taken.Load(); now != before && p.ctx.Err() == nil {
			p.resetUnlessRead(s, now)
			return
		}
		p.resetBoth()
	})
	context.AfterFunc(p.ctx, func() { timer.Stop() })
}

// deafen has s's program learn, when it writes, that nobody reads. The kernel's
// TCP has only a reset for that, which comes at the end.
func (p *pump) deafen(s *pumpSide) {
	s.deaf.Store(true)
	if _, tcp := s.t.(*tcpTransport); !tcp {
		s.t.StopRead()
	}
}

// finish closes s when both directions are over.
func (p *pump) finish(s *pumpSide) {
	if _, tcp := s.t.(*tcpTransport); tcp && s.deaf.Load() {
		p.reset(s)
		return
	}
	_ = s.t.Close()
}

// reset resets s after what was written to it, unless its program leaves that
// unread for readWait.
func (p *pump) reset(s *pumpSide) {
	if t, tcp := s.t.(*tcpTransport); tcp {
		t.awaitSent(p.ctx)
	}
	s.t.Reset()
}
