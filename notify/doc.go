// Package notify is the kernel's seccomp user-notification interface: a
// Listener on one filter's notifications, and the Target that made a call.
//
// # Theory of operation
//
// In comes a listener fd (seccomp_unotify(2)), handed over by whoever loaded
// the filter. Out go decoded system calls, each answered exactly once: let the
// kernel do it (Continue), give a result (Return), an error (Fail), or install
// a file descriptor as the result (Install).
//
// A listener is waited for by Go's poller, and handlers have turns, one after the
// other. A thread of the listener's own would hold a place of Go's scheduler
// while it waits, and what a handler starts would wait for another.
//
// SECCOMP_IOCTL_NOTIF_ADDFD is made with all signals blocked. Go's preemption
// signal would otherwise interrupt it; the kernel restarts it, and the restarted
// call finds the notification gone although the fd was installed. The other
// ioctls are done as a whole or not at all. An answer that is ready later is
// given in a turn of its own (Post), or by whoever has it if it needs no other
// ioctl (Anywhere).
//
// What it never does: change the target's arguments and let the call continue
// (another thread of the target could change them back), block on anything but
// the listener, or know what a socket means.
//
// Limits: Linux 5.14 or later (SECCOMP_ADDFD_FLAG_SEND). x86-64 with i386
// programs, and arm64. Reading a target's memory and files needs ptrace access
// to it (ptrace(2), "Ptrace access mode checking").
package notify
