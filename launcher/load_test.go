package launcher

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// What an untrapped call costs without a filter, and with it in both of
// libseccomp's orders. The filter is on a thread that ends with its goroutine.
func BenchmarkUntrapped(b *testing.B) {
	for name, optimize := range map[string]int{"none": 0, "linear": 1, "tree": 2} {
		b.Run(name, func(b *testing.B) {
			done := make(chan error)
			go func() {
				runtime.LockOSThread() // for ever
				done <- untrapped(b, optimize)
			}()
			if err := <-done; err != nil {
				b.Skip(err)
			}
		})
	}
}

func untrapped(b *testing.B, optimize int) error {
	if optimize != 0 {
		listener, err := load(assembled(b, optimize))
		if err != nil {
			return err
		}
		defer unix.Close(listener)
	}
	b.ResetTimer()
	for range b.N {
		_, _, _ = unix.RawSyscall(unix.SYS_GETPPID, 0, 0, 0)
	}
	return nil
}

// What the calls cost whose arguments are compared, when they are let through.
func BenchmarkCompared(b *testing.B) {
	for name, optimize := range map[string]int{"none": 0, "linear": 1, "tree": 2} {
		b.Run(name, func(b *testing.B) {
			done := make(chan error)
			go func() {
				runtime.LockOSThread()
				done <- compared(b, optimize)
			}()
			if err := <-done; err != nil {
				b.Skip(err)
			}
		})
	}
}

func compared(b *testing.B, optimize int) error {
	if optimize != 0 {
		listener, err := load(assembled(b, optimize))
		if err != nil {
			return err
		}
		defer unix.Close(listener)
	}
	const noDescriptor = ^uintptr(0)
	b.ResetTimer()
	for range b.N {
		_, _, _ = unix.RawSyscall6(unix.SYS_GETSOCKOPT, noDescriptor, unix.SOL_SOCKET, unix.SO_TYPE, 0, 0, 0)
	}
	return nil
}
