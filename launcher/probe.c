/*
 * A child tries and ends: a filter cannot be taken off again. It is nobody's to
 * hear of, as the first half of spawn.c's double fork is not.
 */
#define _GNU_SOURCE
#include "probe.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef SECCOMP_FILTER_FLAG_NEW_LISTENER
#define SECCOMP_FILTER_FLAG_NEW_LISTENER (1UL << 3)
#endif

static int try(int no_new_privs)
{
	struct sock_filter allow = { BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW };
	struct sock_fprog prog = { 1, &allow };

	if (no_new_privs && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
		return errno;
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &prog) < 0)
		return errno;
	return 0;
}

int poemq_probe_listener(int no_new_privs)
{
	int status = 0;
	pid_t pid = syscall(SYS_clone, 0, NULL, NULL, NULL, NULL);

	if (pid == 0)
		_exit(try(no_new_privs));
	if (pid < 0)
		return errno;
	while (waitpid(pid, &status, __WALL) < 0) {
		if (errno != EINTR)
			return errno;
	}
	return WIFEXITED(status) ? WEXITSTATUS(status) : EPERM; /* a profile that kills */
}
