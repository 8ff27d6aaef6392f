/*
 * Runs a command whose clock is another than the machine's.
 *
 *   clockjump FILE COMMAND [ARGS...]
 *
 * FILE holds the seconds by which the command's CLOCK_REALTIME is off; it is
 * read at each look at that clock, so the clock jumps when FILE is written (by
 * rename, so that no half of a number is read). CLOCK_MONOTONIC is the machine's,
 * as on a machine whose clock is set.
 *
 * The command keeps the process id of clockjump. A tracer beside it stops it and
 * all of its threads and children at clock_gettime(CLOCK_REALTIME) alone, by a
 * seccomp filter (seccomp(2), SECCOMP_RET_TRACE), and changes the answer. For
 * this the clock must be a system call: the tracer takes the vDSO's address out
 * of the auxiliary vector (getauxval(3)) at each exec, as for programs on a
 * kernel without one. It ends after the last of them, and should it end before,
 * they are killed. Calls of gettimeofday(2) and time(2) are not changed: Go's
 * runtime makes none.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#if defined(__x86_64__)
#define ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCH AUDIT_ARCH_AARCH64
#else
#error "which AUDIT_ARCH is this?"
#endif

static void die(const char *what)
{
	fprintf(stderr, "clockjump: %s: %s\n", what, strerror(errno));
	exit(125);
}

static long offset(const char *file)
{
	long seconds;
	FILE *f = fopen(file, "re");
	if (!f || fscanf(f, "%ld", &seconds) != 1)
		die(file);
	fclose(f);
	return seconds;
}

static int get(pid_t tid, unsigned long at, void *to, size_t n)
{
	struct iovec here = { to, n }, there = { (void *)at, n };
	return process_vm_readv(tid, &here, 1, &there, 1, 0) == (ssize_t)n;
}

static int put(pid_t tid, unsigned long at, void *from, size_t n)
{
	struct iovec here = { from, n }, there = { (void *)at, n };
	return process_vm_writev(tid, &here, 1, &there, 1, 0) == (ssize_t)n;
}

/* Finds the auxiliary vector above arguments and environment on the new stack. */
static void no_vdso(pid_t tid)
{
	struct __ptrace_syscall_info info;
	if (ptrace(PTRACE_GET_SYSCALL_INFO, tid, sizeof info, &info) < 0)
		return; /* killed */
	unsigned long at = info.stack_pointer, word;
	for (int ends = -1; ends < 2; at += sizeof word) { /* argc, then two lists */
		if (!get(tid, at, &word, sizeof word))
			return;
		ends += ends < 0 || word == 0;
	}
	unsigned long entry[2];
	for (; get(tid, at, entry, sizeof entry) && entry[0] != AT_NULL; at += sizeof entry) {
		unsigned long ignore = AT_IGNORE;
		if (entry[0] == AT_SYSINFO_EHDR && !put(tid, at, &ignore, sizeof ignore))
			die("write the auxiliary vector");
	}
}

/* The thread is about to look at the clock. Has it do so, and changes what it saw. */
static void look(pid_t tid, const char *file)
{
	struct __ptrace_syscall_info info;
	int status;
	if (ptrace(PTRACE_GET_SYSCALL_INFO, tid, sizeof info, &info) < 0 || ptrace(PTRACE_SYSCALL, tid, 0, 0) < 0)
		return; /* killed */
	if (waitpid(tid, &status, __WALL) != tid || !WIFSTOPPED(status))
		return;
	unsigned long at = info.seccomp.args[1];
	struct timespec now;
	if (get(tid, at, &now, sizeof now)) {
		now.tv_sec += offset(file);
		put(tid, at, &now, sizeof now);
	}
	ptrace(PTRACE_CONT, tid, 0, 0);
}

static void stopped(pid_t tid, int status, const char *file)
{
	int sig = WSTOPSIG(status), event = status >> 16;
	switch (event) {
	case 0: /* a signal for it */
		ptrace(PTRACE_CONT, tid, 0, sig);
		return;
	case PTRACE_EVENT_SECCOMP:
		look(tid, file);
		return;
	case PTRACE_EVENT_STOP:
		if (sig == SIGSTOP || sig == SIGTSTP || sig == SIGTTIN || sig == SIGTTOU) {
			ptrace(PTRACE_LISTEN, tid, 0, 0); /* stays stopped until SIGCONT */
			return;
		}
		break;
	case PTRACE_EVENT_EXEC:
		no_vdso(tid);
		break;
	}
	ptrace(PTRACE_CONT, tid, 0, 0);
}

static void trace(pid_t command, const char *file, int ready)
{
	long what = PTRACE_O_EXITKILL | PTRACE_O_TRACESECCOMP | PTRACE_O_TRACEEXEC | PTRACE_O_TRACECLONE |
		    PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK;
	offset(file);
	if (ptrace(PTRACE_SEIZE, command, 0, what) < 0)
		die("PTRACE_SEIZE");
	if (write(ready, "", 1) != 1)
		die("write");
	close(ready);
	for (;;) {
		int status;
		pid_t tid = waitpid(-1, &status, __WALL);
		if (tid < 0 && errno != EINTR)
			exit(0); /* none is left */
		if (tid > 0 && WIFSTOPPED(status))
			stopped(tid, status, file);
	}
}

/* Has looks at CLOCK_REALTIME, and nothing else, stop for the tracer. */
static void filter(void)
{
	const unsigned clock = offsetof(struct seccomp_data, args[0]);
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCH, 0, 5),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_clock_gettime, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, clock),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, CLOCK_REALTIME, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = { sizeof code / sizeof code[0], code };
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &prog))
		die("seccomp");
}

int main(int argc, char **argv)
{
	int ready[2], go[2];
	char c;
	if (argc < 3) {
		fprintf(stderr, "usage: clockjump FILE COMMAND [ARGS...]\n");
		return 125;
	}
	if (pipe(ready) || pipe(go))
		die("pipe");
	pid_t command = getpid(), child = fork();
	if (child < 0)
		die("fork");
	if (child == 0) { /* the tracer is its child, for the command to have none */
		pid_t tracer = fork();
		if (tracer < 0)
			die("fork");
		if (tracer > 0)
			_exit(write(ready[1], &tracer, sizeof tracer) != (ssize_t)sizeof tracer);
		close(ready[0]);
		close(go[1]);
		if (read(go[0], &c, 1) != 1)
			exit(125);
		trace(command, argv[1], ready[1]);
	}
	close(ready[1]);
	close(go[0]);
	pid_t tracer;
	if (read(ready[0], &tracer, sizeof tracer) != (ssize_t)sizeof tracer || waitpid(child, NULL, 0) != child)
		die("start the tracer");
	prctl(PR_SET_PTRACER, tracer, 0, 0, 0); /* where Yama is, it must be told */
	if (write(go[1], "", 1) != 1 || read(ready[0], &c, 1) != 1) {
		fprintf(stderr, "clockjump: the tracer has ended\n");
		return 125;
	}
	close(ready[0]);
	close(go[1]);
	filter();
	execvp(argv[2], argv + 2);
	die(argv[2]);
}
