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

	mu     sync.Mutex  // guards the timers
	expire *time.Timer // SO_RCVTIMEO or SO_SNDTIMEO; nil when there is none
	check  *time.Timer

	// dropped is called when the program no longer waits; nil for nothing to do.
	dropped func()
	// look is asked at every check, on the request's thread: whether there is
	// an answer by now that nobody announced. nil for never.
	look func(Request) (answered bool)
}

const (
	firstCheck = 10 * time.Millisecond
	lastCheck  = 250 * time.Millisecond
)

// start begins the checks. timeout 0 is none; onTimeout runs on the request's
// thread as the waiter's answer.
func (w *waiter) start(timeout time.Duration, onTimeout func(Request)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	every := firstCheck
	w.check = time.AfterFunc(every, func() {
		if w.answered.Load() {
			return
		}
		on := w.req.Post(func() {
			if w.answered.Load() || !w.alive() {
				return
			}
			every = min(2*every, lastCheck)
			w.mu.Lock()
			w.check.Reset(every)
			w.mu.Unlock()
		})
		if !on { // the session has ended
			w.drop()
		}
	})
	if timeout > 0 {
		w.expire = time.AfterFunc(timeout, func() { w.answer(onTimeout) })
	}
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
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.check != nil {
		w.check.Stop()
	}
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

// alive is for the request's thread: it drops a waiter that nobody waits for,
// and looks for an answer.
func (w *waiter) alive() bool {
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

// answer has f answer the request on its thread. It reports false when
// somebody else has answered, or the session has ended.
func (w *waiter) answer(f func(Request)) bool {
	if !w.answered.CompareAndSwap(false, true) {
		return false
	}
	w.stopTimers()
	return w.req.Post(func() { f(w.req) })
}
