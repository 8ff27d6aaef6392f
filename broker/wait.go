package broker

import (
	"sync"
	"sync/atomic"
	"time"
)

// waiter is a call that waits for something. It is answered at most once.
//
// Nobody tells when a signal took the program out of its call. A waiter looks
// after itself: at growing distances it asks whether the program still waits,
// and is dropped when not.
type waiter struct {
	req      Request
	answered atomic.Bool
	gone     atomic.Bool // the program no longer waits

	checks *checks
	mu     sync.Mutex  // guards expire
	expire *time.Timer // SO_RCVTIMEO or SO_SNDTIMEO; nil when there is none

	// dropped is called when the program no longer waits; nil for nothing to do.
	dropped func()
	// look is asked at every check, in a turn of the request's session: whether there is
	// an answer by now that nobody announced. nil for never.
	look func(Request) (answered bool)
}

const (
	firstCheck = 10 * time.Millisecond
	lastCheck  = 250 * time.Millisecond
)

// start begins the checks. timeout 0 is none; onTimeout runs on the request's
// turn as the waiter's answer.
func (w *waiter) start(timeout time.Duration, onTimeout func(Request)) {
	w.checks.add(w)
	if timeout > 0 {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.expire = time.AfterFunc(timeout, func() { w.answer(onTimeout) })
	}
}

// check is one of the looks; again tells whether there are more to come.
func (w *waiter) check(again func()) {
	if w.answered.Load() {
		return
	}
	on := w.req.Post(func() {
		if w.alive() {
			again()
		}
	})
	if !on { // the session has ended
		w.drop()
	}
}

// checks has waiters look after themselves, with one alarm for all: most calls
// are answered long before, and to set a timer for each would wake a thread.
type checks struct {
	mu    sync.Mutex // guards what follows
	due   map[*waiter]dueCheck
	alarm alarm     // of tick
	rings time.Time // when alarm does; zero when it is not set
}

type dueCheck struct {
	at    time.Time
	every time.Duration // the next one after that
}

func (c *checks) add(w *waiter) { c.put(w, firstCheck) }

func (c *checks) put(w *waiter, in time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.due == nil {
		c.due = make(map[*waiter]dueCheck)
	}
	at := time.Now().Add(in)
	c.due[w] = dueCheck{at, min(2*in, lastCheck)}
	c.ring(at)
}

// ring has tick called at a time, or before. c.mu is held.
func (c *checks) ring(at time.Time) {
	if c.rings.IsZero() || at.Before(c.rings) {
		if c.alarm.f == nil { // it was not opened
			c.alarm.f = c.tick
		}
		c.alarm.set(time.Until(at))
		c.rings = at
	}
}

func (c *checks) remove(w *waiter) {
	c.mu.Lock()
	delete(c.due, w)
	c.mu.Unlock()
}

// tick checks those whose time has come and comes again as long as there are
// any.
func (c *checks) tick() {
	now := time.Now()
	var due []*waiter
	var next []time.Duration
	c.mu.Lock()
	c.rings = time.Time{}
	for w, d := range c.due {
		if !d.at.After(now.Add(firstCheck / 2)) { // those due about now together
			due, next = append(due, w), append(next, d.every)
			delete(c.due, w)
		}
	}
	if len(c.due) > 0 {
		c.ring(c.soonest())
	}
	c.mu.Unlock()
	for i, w := range due {
		w.check(func() { c.put(w, next[i]) })
	}
}

// soonest is when the next check is due. c.mu is held.
func (c *checks) soonest() time.Time {
	var first time.Time
	for _, d := range c.due {
		if first.IsZero() || d.at.Before(first) {
			first = d.at
		}
	}
	return first
}

// drop ends a waiter that nobody waits for.
func (w *waiter) drop() {
	if !w.answered.CompareAndSwap(false, true) {
		return
	}
	w.stopTimers()
	w.gone.Store(true)
	if w.dropped != nil {
		w.dropped()
	}
}

func (w *waiter) stopTimers() {
	w.checks.remove(w)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.expire != nil {
		w.expire.Stop()
	}
}

// isFor reports that r is the same call once more: the kernel restarts one
// that a handler with SA_RESTART interrupted. (A program that makes it again by
// itself, after EINTR, cannot be told apart.)
func (w *waiter) isFor(r Request) bool {
	return w.req.Call() == r.Call() && w.req.Int(0) == r.Int(0) && w.req.Ptr(1) == r.Ptr(1)
}

// alive reports in a turn of the request's session whether the call still waits: it
// drops a waiter that nobody waits for, and looks for an answer.
func (w *waiter) alive() bool {
	if w.answered.Load() {
		return false
	}
	if !w.req.Valid() {
		w.drop()
		return false
	}
	if w.look != nil && !w.answered.Load() && w.look(w.req) {
		w.answered.Store(true)
		w.stopTimers()
		return false
	}
	return true
}

// answer has f answer the request in a turn of its session. It reports false when
// somebody else has answered, or the session has ended.
func (w *waiter) answer(f func(Request)) bool {
	return w.take() && w.req.Post(func() { f(w.req) })
}

// answerHere is answer for an f that only returns or fails: it is called at
// once, which spares waiting for a turn.
func (w *waiter) answerHere(f func(Request)) bool {
	return w.take() && w.req.Anywhere(func() { f(w.req) })
}

// take makes the caller the one who answers.
func (w *waiter) take() bool {
	if !w.answered.CompareAndSwap(false, true) {
		return false
	}
	w.stopTimers()
	return true
}
