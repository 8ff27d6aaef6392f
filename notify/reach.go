package notify

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Reach tells whether the descriptors of a process can be copied, without which
// nothing can be done for it. pid 0 is one that this pid namespace does not see.
// A process that has ended is no error.
func Reach(pid int) error {
	if pid == 0 {
		return errors.New("the program is in a pid namespace that poemqd does not see (start poemqd in the host's: docker run --pid host, hostPID in Kubernetes)")
	}
	err := copyFirst(pid)
	if err == nil {
		return nil
	}
	if self := copyFirst(os.Getpid()); self != nil { // it is always allowed, unless a filter says no
		return fmt.Errorf("a seccomp profile keeps pidfd_getfd(2) from poemqd: %w (give its container the profile that \"poemqctl oci-profile --embedded\" prints, or CAP_SYS_PTRACE, or take poemq-launch --via zpoline)", self)
	}
	return fmt.Errorf("pidfd_getfd from process %d: %w (poemqd needs ptrace access: root, CAP_SYS_PTRACE, or the same user and a dumpable program)", pid, err)
}

// copyFirst copies descriptor 0 of a process and closes the copy. That there is
// none proves as much.
func copyFirst(pid int) error {
	p, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("pidfd_open: %w", err)
	}
	defer unix.Close(p)
	fd, err := unix.PidfdGetfd(p, 0, 0)
	switch {
	case err == nil:
		unix.Close(fd)
	case errors.Is(err, unix.EBADF) || errors.Is(err, unix.ESRCH):
		err = nil
	}
	return err
}
