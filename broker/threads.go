package broker

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"time"

	"github.com/poemq/poemq/internal/busypoll"
	"golang.org/x/sys/unix"
)

// Threads sets how the threads of this process run: see places, slack, batch, and
// package busypoll, whose looks take busy at most. An error is about speed only.
//
// Children inherit it: start them before.
func Threads(busy time.Duration) error {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(places(runtime.GOMAXPROCS(0)))
	}
	slack()
	return errors.Join(batch(), busypoll.Set(busy))
}

// timerSlack is how much later than asked a sleep of the broker's threads may end,
// in ns (PR_SET_TIMERSLACK(2const)). Go's runtime has a thread that looks after the
// others. It sleeps for 20 µs at a time for as long as anything runs, and without a
// limit once nothing does; the next system call then wakes it. For a broker, which
// has some 50 µs of work at a time, that was a dozen switches for each connection
// that programs make, a quarter of the time it took. With the slack it sleeps longer
// than that work takes. The price: a system call that waits, of those that are not
// given to other threads, keeps others waiting for up to twice as long.
const timerSlack = 500_000

// defaultSlack is what a process has when nobody chose.
const defaultSlack = 50_000

// slack gives all threads, and those that they make, timerSlack, unless somebody
// chose another (TimerSlackNSec= does). Those of others need CAP_SYS_NICE; what
// starts poemqd without it gives it the slack (poemq-launch, the systemd units).
func slack() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	now, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
	if err != nil || now != defaultSlack {
		return
	}
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, timerSlack, 0, 0, 0)
	_ = eachThread(func(tid int) error {
		return os.WriteFile("/proc/"+strconv.Itoa(tid)+"/timerslack_ns", []byte(strconv.Itoa(timerSlack)), 0)
	})
}

// places is how many goroutines of the broker run at a time, of so many
// processors. A byte's way leads through several goroutines, one after the other;
// where there are places to spare, each hand-off wakes a thread that looks for
// work and finds none, beside the programs that want the processor. (Measured
// with two processors: half of them has a third less processor time for each
// connection and each octet than all, and more of both in the same time.)
func places(processors int) int { return max(1, processors/2) }

// batch has the kernel schedule all threads of this process, and those that they
// make, as SCHED_BATCH (sched(7)). A thread that is woken then lets the one
// before it finish its turn, so that packets and bytes gather and are handled
// together: less processor time for each octet where programs and brokers share
// processors (ARCHITECTURE.md, Speed). A policy that somebody has chosen, by chrt(1) or
// CPUSchedulingPolicy=, is left as it is.
func batch() error {
	if err := eachThread(batchThread); err != nil {
		return fmt.Errorf("SCHED_BATCH: %w", err)
	}
	return nil
}

// eachThread calls f with each thread of this process, those made meanwhile too,
// until it fails.
func eachThread(f func(tid int) error) error {
	done := make(map[int]bool)
	for found := true; found; {
		found = false
		tasks, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return err
		}
		for _, t := range tasks {
			tid, err := strconv.Atoi(t.Name())
			if err != nil {
				return err
			}
			if done[tid] {
				continue
			}
			done[tid], found = true, true
			if err := f(tid); err != nil {
				return fmt.Errorf("thread %d: %w", tid, err)
			}
		}
	}
	return nil
}

func batchThread(tid int) error {
	a, err := unix.SchedGetAttr(tid, 0)
	if err == nil && a.Policy == unix.SCHED_NORMAL {
		a.Policy = unix.SCHED_BATCH
		err = unix.SchedSetAttr(tid, a, 0)
	}
	if errors.Is(err, unix.ESRCH) {
		return nil // it has ended
	}
	return err
}
