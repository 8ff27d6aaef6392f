package broker

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// Threads sets how the threads of this process run: see places and batch. An
// error is about speed only.
//
// Children inherit it: start them before.
func Threads() error {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(places(runtime.GOMAXPROCS(0)))
	}
	return batch()
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
// together: about half the processor time an octet where programs and brokers
// share processors. A policy that somebody has chosen, by chrt(1) or
// CPUSchedulingPolicy=, is left as it is.
func batch() error {
	done := make(map[string]bool)
	for found := true; found; { // a thread may have made another meanwhile
		found = false
		tasks, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return fmt.Errorf("SCHED_BATCH: %w", err)
		}
		for _, t := range tasks {
			if done[t.Name()] {
				continue
			}
			done[t.Name()], found = true, true
			if err := batchThread(t.Name()); err != nil {
				return fmt.Errorf("SCHED_BATCH for thread %s: %w", t.Name(), err)
			}
		}
	}
	return nil
}

func batchThread(tid string) error {
	n, err := strconv.Atoi(tid)
	if err != nil {
		return err
	}
	a, err := unix.SchedGetAttr(n, 0)
	if err == nil && a.Policy == unix.SCHED_NORMAL {
		a.Policy = unix.SCHED_BATCH
		err = unix.SchedSetAttr(n, a, 0)
	}
	if errors.Is(err, unix.ESRCH) {
		return nil // it has ended
	}
	return err
}
