// Package launcher turns the process of poemq-launch into a program whose
// socket calls a broker answers.
//
// # Theory of operation
//
// What comes in is a command and the path of a broker's socket. What goes out
// is one message to that broker, in the format of an OCI seccomp agent
// (containerProcessState, with the listener fd by SCM_RIGHTS), and then the
// program itself, in the same process. The files' order is the way's:
//
//	inherit.c  before Go starts: signal mask, ignored signals, RLIMIT_NOFILE
//	options    settings
//	command    execvp(3)'s look-up, before anything that cannot be undone
//	handover   connect to the broker, while connect is not trapped yet
//	filter/    which calls, a pure description
//	assemble   its BPF, by libseccomp, through a memfd
//	load       seccomp(2) on one locked thread, which gives the listener
//	handover   message, answer (one line of JSON; end of file: it went away)
//	command    give back what was inherited, execve(2) on that thread
//
// The filter is on one thread only. Its other calls up to execve are sendmsg,
// read, rt_sigaction, rt_sigprocmask, prlimit and fcntl: none is trapped, or the
// launcher would wait for a broker that waits for it.
//
// The program finds what it would find without poemq: pid, parent, argv, the
// environment byte for byte, cwd, terminal, signal mask, ignored signals,
// RLIMIT_NOFILE, open and closed descriptors. Exceptions: no_new_privs is set
// where CAP_SYS_ADMIN is missing, and it cannot use io_uring.
//
// # The embedded broker
//
// Without a system broker a private poemqd serves this one process tree. A
// broker has to read its programs' memory, and there are two ways to it.
//
// In place: where that needs no kinship (CAP_SYS_PTRACE is in effect, or Yama
// is absent or 0), poemqd is started as an orphan in its own session, with one
// end of a socket pair as its descriptor 3 ("poemqd private --session-fd 3").
// It is made by a double fork of which the first half is reaped here, so that
// the program never sees a child it did not make; that half gives no SIGCHLD.
// Then all goes on as with a system broker. (A program that is pid 1 or a
// subreaper sees poemqd among the orphans it inherits.)
//
// Chain: under Yama 1 an ordinary user's broker has to be the program's
// ancestor, so three processes stand in a row:
//
//	outer launcher    keeps the pid and the place in the job; a thin parent
//	  poemqd          private --chain --status-fd 3 -- INNER…
//	    inner         poemq-launch --handover-fd 3 --inherited … -- CMD; becomes CMD
//
// poemqd starts the inner launcher with its end of a socket pair as descriptor
// 3 and leaves the terminal's session. It writes lines of JSON to the status
// descriptor: {"pid":N} when the inner launcher runs, then {"exit":CODE},
// {"signal":N,"core":BOOL} or {"error":"words"}; {"stopped":SIG} in between is
// understood. The outer launcher ends in the same way, by the same signal if so
// (without a core of its own). When it is killed the status pipe breaks, and
// poemqd kills the program.
//
// Signals sent to the outer launcher are passed on. Those of the terminal are
// not, for they reach the program in the same process group by themselves.
// --inherited carries past poemqd, whose Go runtime loses them, the signal
// state, RLIMIT_NOFILE, and where an inherited descriptor 3 was moved to.
//
// # The other way in
//
// With --via zpoline (via.go, zpoline.go) there is no filter. The process says
// hello to the broker for the program that it becomes (docs/hook.md), puts the
// libraries into LD_PRELOAD and LIBZPHOOK and what they need to know into POEMQ_
// variables, and execs. A private broker is started in place, whatever Yama says,
// and gets a listening socket with the hello: the program's processes come to it
// by themselves, and name it as their tracer. --via auto has a child try whether
// there can be a listener (probe.c).
//
// # The keeper
//
// With --keeper another process of this program stands between the launcher and
// the broker, made as the private broker is. It hands over in the launcher's
// place, keeps what the broker wants kept, and hands that over to the next broker
// (keeper.go). It ends with the last task under the filter.
//
// # What it never does
//
// It does not know QUIC, parses no traffic, links no broker (a test holds it to
// that), keeps no descriptor open in the program, and changes no environment
// variable but for zpoline. It is no sandbox: a program can evade the filter's purpose, if not
// the filter.
//
// # Limits
//
//   - Linux 5.14 or newer on x86_64 and arm64. i386 (and 32-bit ARM) programs are trapped too, whatever the
//     calls' arguments; x32 ones get ENOSYS.
//   - One seccomp listener in a process tree (EBUSY): no nesting.
//   - Chain: the program's parent is poemqd; a signal sent to the whole process
//     group by kill(2) arrives twice; a program that ignores SIGTSTP runs on while
//     its job is shown as stopped; PR_SET_PDEATHSIG and the core-dump bit of the
//     wait status are lost; Yama 2 and 3 forbid it (they want CAP_SYS_PTRACE).
package launcher
