/*
 * The signals of the thin parent (chain.go). os/signal does not tell who sent a
 * signal, and that decides whether it is passed on.
 */
#define _GNU_SOURCE
#include "inherit.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

static int signal_pipe = -1;

static int is_fault(int signo)
{
	return signo == SIGSEGV || signo == SIGBUS || signo == SIGFPE || signo == SIGILL || signo == SIGTRAP || signo == SIGSYS;
}

static void caught(int signo, siginfo_t *info, void *context)
{
	struct poemq_signal s = { signo, info->si_code, info->si_pid };
	int saved = errno;

	(void)context;
	if (info->si_code > 0 && is_fault(signo)) { /* our own: it comes again, and kills */
		signal(signo, SIG_DFL);
		return;
	}
	if (info->si_code > 0 || info->si_pid != getpid()) /* Go sends itself SIGURG */
		while (write(signal_pipe, &s, sizeof(s)) < 0 && errno == EINTR)
			;
	errno = saved;
}

static void catch(int signo)
{
	struct sigaction sa = { 0 };

	sa.sa_sigaction = caught;
	sa.sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK; /* Go's threads have small stacks */
	sigfillset(&sa.sa_mask);
	sigaction(signo, &sa, NULL); /* refused for KILL, STOP and glibc's own two */
}

void poemq_catch_signals(int fd)
{
	signal_pipe = fd;
	for (int s = 1; s <= SIGRTMAX; s++)
		catch(s);
}

void poemq_stop_by(int signo)
{
	signal(signo, SIG_DFL);
	syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), signo);
	catch(signo);
}

void poemq_die_by(int signo)
{
	struct rlimit none = { 0, 0 };

	setrlimit(RLIMIT_CORE, &none);
	prctl(PR_SET_DUMPABLE, 0); /* a core_pattern with a pipe disregards the limit */
	poemq_set_actions(0);
	poemq_set_mask(0);
	syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), signo);
}
