/*
 * Starting the private poemqd. In C because between fork and exec of a process
 * with threads only async-signal-safe calls are allowed, and because the Go
 * runtime can start only children, not the orphan that is wanted here.
 */
#define _GNU_SOURCE
#include "inherit.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* fork(2) whose child tells its end by exit_signal, 0 for none. */
static pid_t fork_quietly(int exit_signal)
{
	return syscall(SYS_clone, exit_signal, NULL, NULL, NULL, NULL);
}

static void fail(int report)
{
	int e = errno;

	while (write(report, &e, sizeof(e)) < 0 && errno == EINTR)
		;
	_exit(127);
}

/* Keeps stderr, the handed fd and report (which is close-on-exec). */
static int shed_fds(const struct poemq_spawn *s, int report)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	for (int fd = 0; fd <= 1; fd++) {
		if (null >= 0 ? dup2(null, fd) < 0 : close(fd) < 0 && errno != EBADF)
			return -1;
	}
	/* close_range(2): Linux 5.9 */
	if (report > s->to + 1 && syscall(SYS_close_range, s->to + 1, report - 1, 0) != 0)
		return -1;
	return syscall(SYS_close_range, report + 1, ~0u, 0);
}

/*
 * poemqd's timer slack (PR_SET_TIMERSLACK(2const)), which without CAP_SYS_NICE it
 * cannot give all its threads by itself; see timerSlack in broker/threads.go. One
 * that somebody chose stays.
 */
static void loosen_timers(void)
{
	if (prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0) == 50000)
		prctl(PR_SET_TIMERSLACK, 500000, 0, 0, 0);
}

/* The end of the way: runs in the new process and does not return. */
static void become(const struct poemq_spawn *s, int report)
{
	struct rlimit nofile;
	int high = fcntl(report, F_DUPFD_CLOEXEC, s->to + 1);

	if (high < 0)
		fail(report);
	report = high;
	if (s->from == s->to ? fcntl(s->to, F_SETFD, 0) < 0 : dup2(s->from, s->to) < 0)
		fail(report);
	if (s->detach && shed_fds(s, report) != 0)
		fail(report);
	if (s->detach)
		loosen_timers();
	if (getrlimit(RLIMIT_NOFILE, &nofile) == 0) {
		nofile.rlim_cur = s->state.nofile;
		setrlimit(RLIMIT_NOFILE, &nofile);
	}
	poemq_set_actions(s->state.ignored); /* before any of Go's handlers can run here */
	poemq_set_mask(s->state.blocked);
	execve(s->path, s->argv, s->envp);
	fail(report);
}

/* An own session, and no parent that would see it end. */
static void detach(const struct poemq_spawn *s, int report)
{
	pid_t pid;

	if (setsid() < 0)
		fail(report);
	pid = fork_quietly(SIGCHLD);
	if (pid < 0)
		fail(report);
	if (pid > 0)
		_exit(0);
	become(s, report);
}

/* 0, or the errno that came before execve closed the pipe. */
static int read_report(int fd)
{
	int e = 0;
	ssize_t n;

	do
		n = read(fd, &e, sizeof(e));
	while (n < 0 && errno == EINTR);
	return n == sizeof(e) ? e : 0;
}

static void reap(pid_t pid)
{
	while (waitpid(pid, NULL, __WALL) < 0 && errno == EINTR)
		;
}

int poemq_spawn(const struct poemq_spawn *s)
{
	uint64_t all = ~(uint64_t)0, old = 0;
	int report[2], error = 0;
	pid_t pid;

	if (pipe2(report, O_CLOEXEC) != 0)
		return -errno;
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, &old, sizeof(all));
	/* No SIGCHLD from the middle process: the program could find it pending. */
	pid = fork_quietly(s->detach ? 0 : SIGCHLD);
	if (pid == 0) {
		if (s->detach)
			detach(s, report[1]);
		become(s, report[1]);
	}
	if (pid < 0)
		error = errno;
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &old, NULL, sizeof(old));
	close(report[1]);
	if (pid > 0)
		error = read_report(report[0]);
	close(report[0]);
	if (pid > 0 && (s->detach || error))
		reap(pid);
	if (error)
		return -error;
	return s->detach ? 0 : pid;
}
