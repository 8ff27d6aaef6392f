// Command gosys makes raw system calls on goroutines, whose stacks are small, and
// relies on the fault of a null pointer. It prints "ok" when the hook has seen
// all, given that it answers getsid with 4711.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
)

const (
	session    = 4711
	goroutines = 60
	calls      = 20
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "child" {
		os.Exit(int(deep(0)) - session + 7)
	}
	if err := run(len(os.Args) > 1 && os.Args[1] == "nofault"); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("ok")
}

func run(nofault bool) error {
	var wg sync.WaitGroup
	bad := make(chan uintptr, goroutines)
	for range goroutines {
		wg.Go(func() {
			if got := deep(20); got != session {
				bad <- got
			}
		})
	}
	wg.Wait()
	if len(bad) > 0 {
		return fmt.Errorf("%d goroutines were not seen, getsid was %d", len(bad), <-bad)
	}
	if !nofault && !faults() {
		return fmt.Errorf("reading through a null pointer did not fault")
	}
	child := exec.Command("/proc/self/exe", "child")
	child.Env = []string{}
	if err := child.Run(); child.ProcessState.ExitCode() != 7 {
		return fmt.Errorf("a child was not seen: %v", err)
	}
	return nil
}

// deep makes its calls at many depths of a stack that has just grown, or has not.
func deep(n int) (sid uintptr) {
	var room [64]byte
	runtime.KeepAlive(&room)
	for range calls {
		sid, _, _ = syscall.RawSyscall(syscall.SYS_GETSID, 0, 0, 0)
		if sid != session {
			return sid
		}
	}
	if n > 0 {
		return deep(n - 1)
	}
	return sid
}

func faults() (did bool) {
	defer func() { did = recover() != nil }()
	var p *int
	fmt.Fprintln(os.Stderr, *p)
	return false
}
