package broker

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Batch has the kernel schedule all threads of this process, and those that they
// make, as SCHED_BATCH (sched(7)). A thread that is woken then lets the one
// before it finish its turn, so that packets and bytes gather and are handled
// together: about half the processor time an octet where programs and brokers
// share processors. Threads that answer calls are none of these
// (notify.Listener.Serve). A policy that somebody has chosen, by chrt(1) or
// CPUSchedulingPolicy=, is left as it is.
//
// Children inherit it: start them before.
func Batch() error {
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
