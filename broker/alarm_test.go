package broker

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// An alarm rings once for each time it was set, not before its time, and the last
// setting counts.
func TestAlarm(t *testing.T) {
	rings := make(chan time.Time, 8)
	a := alarm{f: func() { rings <- time.Now() }}
	a.open()
	if a.file == nil {
		t.Fatal("no timerfd")
	}
	for range 20 {
		begun := time.Now()
		a.set(time.Hour)
		a.set(2 * time.Millisecond)
		select {
		case at := <-rings:
			if early := at.Sub(begun); early < 2*time.Millisecond {
				t.Fatalf("it rang after %v", early)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("it did not ring")
		}
	}
	a.set(time.Millisecond)
	a.close()
	for len(rings) > 0 { // it may have rung meanwhile
		<-rings
	}
	a.set(1)
	time.Sleep(20 * time.Millisecond) // it would ring at once
	if len(rings) > 0 {
		t.Error("it rang after it was closed")
	}
}

// One that could not be opened does the same by Go's timer.
func TestAlarmWithoutTimerfd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var rings atomic.Int32
		a := alarm{f: func() { rings.Add(1) }}
		for range 3 {
			a.set(time.Hour)
			a.set(time.Millisecond)
			time.Sleep(time.Minute)
		}
		a.set(time.Minute)
		a.close()
		time.Sleep(time.Hour)
		if n := rings.Load(); n != 3 {
			t.Errorf("it rang %d times, want 3", n)
		}
	})
}
