/*
 * What the launcher found when it was started, recorded before the Go runtime
 * changes it: Go handles every signal that is not ignored, stops ignoring some
 * of those that are, and raises RLIMIT_NOFILE (os/signal and os packages).
 *
 * The raw system calls are used because glibc hides signals 32 and 33.
 */
#define _GNU_SOURCE
#include "inherit.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

struct poemq_inherited poemq_inherited;

/* struct sigaction as rt_sigaction(2) has it on x86_64. */
struct kernel_sigaction {
	void (*handler)(int);
	unsigned long flags;
	void (*restorer)(void);
	uint64_t mask;
};

enum { NSIG_KERNEL = 64 };

static uint64_t bit(int signo)
{
	return (uint64_t)1 << (signo - 1);
}

/*
 * A standard descriptor that was closed is plugged with a close-on-exec one:
 * the Go runtime would open /dev/null there and leave it to the program.
 */
static void plug_standard_fds(void)
{
	for (int fd = 0; fd <= 2; fd++) {
		if (fcntl(fd, F_GETFD) >= 0 || errno != EBADF)
			continue;
		poemq_inherited.closed |= 1u << fd;
		if (open("/", O_PATH | O_CLOEXEC) != fd) /* the lowest free one */
			return;
	}
}

__attribute__((constructor)) static void record(void)
{
	struct rlimit nofile = { 0, 0 };

	syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &poemq_inherited.blocked, sizeof(uint64_t));
	for (int s = 1; s <= NSIG_KERNEL; s++) {
		struct kernel_sigaction sa = { 0 };
		if (syscall(SYS_rt_sigaction, s, NULL, &sa, sizeof(uint64_t)) == 0 && sa.handler == SIG_IGN)
			poemq_inherited.ignored |= bit(s);
	}
	getrlimit(RLIMIT_NOFILE, &nofile);
	poemq_inherited.nofile = nofile.rlim_cur;
	plug_standard_fds();
}

void poemq_set_actions(uint64_t ignored)
{
	for (int s = 1; s <= NSIG_KERNEL; s++) {
		struct kernel_sigaction sa = { 0 };
		sa.handler = (ignored & bit(s)) ? SIG_IGN : SIG_DFL;
		syscall(SYS_rt_sigaction, s, &sa, NULL, sizeof(uint64_t)); /* EINVAL for KILL and STOP */
	}
}

int poemq_set_mask(uint64_t blocked)
{
	return syscall(SYS_rt_sigprocmask, SIG_SETMASK, &blocked, NULL, sizeof(blocked)) ? errno : 0;
}
