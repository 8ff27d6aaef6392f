package broker

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// thread runs what is posted to r until the test ends.
func thread(t *testing.T, r *fake) {
	done := make(chan struct{})
	t.Cleanup(func() { close(done) })
	go func() {
		for {
			select {
			case f := <-r.posts:
				f()
			case <-done:
				return
			}
		}
	}()
}

func fail(errno unix.Errno) func(Request) { return func(r Request) { _ = r.Fail(errno) } }

func TestWaiterIsAnsweredOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newFake(0)
		thread(t, r)
		w := &waiter{req: r, checks: new(checks), dropped: func() { t.Error("dropped") }}
		w.start(time.Hour, fail(unix.EAGAIN))
		var wg sync.WaitGroup
		won := make(chan bool, 10)
		for range cap(won) {
			wg.Go(func() { won <- w.answer(fail(unix.ECONNREFUSED)) })
		}
		wg.Wait()
		close(won)
		n := 0
		for ok := range won {
			if ok {
				n++
			}
		}
		time.Sleep(2 * time.Hour) // the bubble's clock: the timeout would be over
		if got := r.answered(); n != 1 || len(got) != 1 || got[0] != unix.ECONNREFUSED {
			t.Errorf("%d answers were taken, given are %v", n, got)
		}
	})
}

// A signal takes the program out of its call, and nobody tells.
func TestWaiterIsDroppedWhenNobodyWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newFake(0)
		thread(t, r)
		dropped := make(chan time.Time, 2)
		w := &waiter{req: r, checks: new(checks), dropped: func() { dropped <- time.Now() }}
		w.start(0, nil)
		time.Sleep(10 * time.Second)
		if len(dropped) > 0 {
			t.Fatal("dropped while the program waits")
		}
		left := time.Now()
		r.leave()
		if late := (<-dropped).Sub(left); late > lastCheck {
			t.Errorf("dropped %v after the program left", late)
		}
		if w.answer(fail(unix.EIO)) {
			t.Error("answered after it was dropped")
		}
		time.Sleep(time.Minute)
		if len(dropped) > 0 || len(r.answered()) > 0 {
			t.Errorf("dropped again, or answered: %v", r.answered())
		}
	})
}

func TestWaiterIsDroppedWhenTheSessionEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newFake(0)
		r.ended = true
		dropped := make(chan struct{})
		w := &waiter{req: r, checks: new(checks), dropped: func() { close(dropped) }}
		w.start(0, nil)
		<-dropped
		if w.answer(fail(unix.EIO)) {
			t.Error("answered after the session's end")
		}
	})
}

func TestWaiterTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newFake(0)
		thread(t, r)
		w := &waiter{req: r, checks: new(checks)}
		w.start(3*time.Second, fail(unix.EAGAIN))
		time.Sleep(3*time.Second - time.Millisecond)
		synctest.Wait()
		if got := r.answered(); len(got) > 0 {
			t.Errorf("too early: %v", got)
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if got := r.answered(); len(got) != 1 || got[0] != unix.EAGAIN {
			t.Errorf("answers: %v, want EAGAIN", got)
		}
		if w.answer(fail(unix.EIO)) {
			t.Error("answered after the timeout")
		}
	})
}

// What nobody announced is found at a check.
func TestWaiterLooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newFake(0)
		thread(t, r)
		there := false
		w := &waiter{req: r, checks: new(checks), dropped: func() { t.Error("dropped") }}
		w.look = func(r Request) bool {
			if there {
				_ = r.Return(0)
			}
			return there
		}
		w.start(time.Hour, fail(unix.EAGAIN))
		time.Sleep(time.Second)
		r.posts <- func() { there = true }
		time.Sleep(2 * time.Hour)
		if got := r.answered(); len(got) != 1 || got[0] != 0 {
			t.Errorf("answers: %v, want one", got)
		}
	})
}

// A call that has waited for long does not keep the first look at a new one off.
func TestFirstCheckBesideAnOldWaiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := new(checks)
		old := newFake(0)
		thread(t, old)
		(&waiter{req: old, checks: all}).start(0, nil)
		time.Sleep(10 * time.Second) // it is looked at every lastCheck by now
		r := newFake(0)
		thread(t, r)
		looked := make(chan time.Duration, 1)
		begun := time.Now()
		w := &waiter{req: r, checks: all, look: func(Request) bool {
			select {
			case looked <- time.Since(begun):
			default:
			}
			return false
		}}
		w.start(0, nil)
		if took := <-looked; took > firstCheck {
			t.Errorf("the first look comes after %v, want %v", took, firstCheck)
		}
		old.leave()
		r.leave()
		time.Sleep(time.Second)
	})
}
