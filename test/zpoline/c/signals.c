/* What a program may do with signals that a loader which lives by SIGSYS could get
 * wrong. */
#define _GNU_SOURCE
#include "check.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucontext.h>

static volatile int got, code;
static sigset_t all;
static long bad; /* an address that cannot be read */

static int seen(void)
{
	return raw(SYS_getsid, 0, 0, 0, 0, 0, 0) == SESSION;
}

static void handler(int sig, siginfo_t *info, void *context)
{
	(void)context;
	CHECK(seen());
	got = sig;
	code = info->si_code;
}

static void on(int sig, int flags, const sigset_t *mask)
{
	struct sigaction sa = { .sa_sigaction = handler, .sa_flags = SA_SIGINFO | flags }, is;

	if (mask)
		sa.sa_mask = *mask;
	CHECK(sigaction(sig, &sa, NULL) == 0);
	CHECK(sigaction(sig, NULL, &is) == 0 && is.sa_sigaction == handler);
}

/* With everything blocked, calls at places that never ran before. */
static void blocked(void)
{
	sigset_t old;

	CHECK(sigprocmask(SIG_BLOCK, &all, &old) == 0);
	CHECK(seen() && seen());
	CHECK(sigprocmask(SIG_SETMASK, &all, NULL) == 0);
	CHECK(seen());
	CHECK(sigprocmask(SIG_SETMASK, &old, NULL) == 0);
	CHECK(raw(SYS_rt_sigprocmask, SIG_SETMASK, bad, 0, 8, 0, 0) == -EFAULT);
	CHECK(raw(SYS_rt_sigprocmask, 77, (long)&all, 0, 8, 0, 0) == -EINVAL);
	CHECK(raw(SYS_rt_sigaction, SIGUSR1, bad, 0, 8, 0, 0) == -EFAULT);
	CHECK(raw(SYS_rt_sigaction, SIGSYS, 0, bad, 8, 0, 0) == -EFAULT);
}

/* Calls that wait under another mask; the signal that ends each has a handler. */
static void waiting(void)
{
	sigset_t usr1, but;
	struct timespec t = { 5, 0 };
	int ep = epoll_create1(0);
	struct epoll_event e;

	sigemptyset(&usr1);
	sigaddset(&usr1, SIGUSR1);
	but = all;
	sigdelset(&but, SIGUSR1);
	on(SIGUSR1, 0, &all);
	CHECK(sigprocmask(SIG_BLOCK, &usr1, NULL) == 0);
	for (int way = 0; way < 4; way++) {
		long r = 0;

		got = 0;
		CHECK(raise(SIGUSR1) == 0 && !got);
		switch (way) {
		case 0:
			r = ppoll(NULL, 0, &t, &but);
			break;
		case 1:
			r = pselect(0, NULL, NULL, NULL, &t, &but);
			break;
		case 2:
			r = epoll_pwait(ep, &e, 1, 5000, &but);
			break;
		case 3:
			r = sigsuspend(&but);
			break;
		}
		CHECK(r == -1 && errno == EINTR && got == SIGUSR1);
	}
	CHECK(raw(SYS_ppoll, 0, 0, (long)&t, bad, 8, 0) == -EFAULT);
	CHECK(sigprocmask(SIG_UNBLOCK, &usr1, NULL) == 0);
	close(ep);
}

static void own_sigsys(void)
{
	struct sigaction old;

	CHECK(sigaction(SIGSYS, NULL, &old) == 0 && old.sa_handler == SIG_DFL);
	on(SIGSYS, 0, &all);
	got = 0;
	CHECK(raise(SIGSYS) == 0 && got == SIGSYS && code == SI_TKILL);
	CHECK(seen());
	CHECK(signal(SIGSYS, SIG_IGN) != SIG_ERR && raise(SIGSYS) == 0 && seen());
	CHECK(signal(SIGSYS, SIG_DFL) == SIG_IGN);
	int pid = fork(), status;

	if (pid == 0) {
		raise(SIGSYS);
		_exit(1);
	}
	CHECK(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS);
}

static void trap(int sig, siginfo_t *info, void *context)
{
	ucontext_t *u = context;

	CHECK(sig == SIGSYS && info->si_code == 1 /* SYS_SECCOMP */ && info->si_syscall == SYS_getpgid);
	CHECK(seen());
	u->uc_mcontext.gregs[REG_RAX] = u->uc_mcontext.gregs[REG_RDI] + 1;
}

/* A program with a seccomp filter that answers calls in a SIGSYS handler. */
static void seccomp_trap(void)
{
	struct sock_filter f[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getpgid, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog p = { sizeof(f) / sizeof(*f), f };
	struct sigaction sa = { .sa_sigaction = trap, .sa_flags = SA_SIGINFO };
	int pid = fork(), status;

	if (pid == 0) {
		CHECK(sigaction(SIGSYS, &sa, NULL) == 0);
		CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
		CHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &p) == 0);
		for (int i = 0; i < 3; i++)
			CHECK(getpgid(41) == 42);
		_exit(0);
	}
	CHECK(waitpid(pid, &status, 0) == pid && status == 0);
}

static sigjmp_buf back;

static void jump(int sig)
{
	CHECK(seen());
	siglongjmp(back, sig);
}

static void jumping(void)
{
	int p[2];
	char c;

	CHECK(pipe(p) == 0);
	signal(SIGALRM, jump);
	for (volatile int i = 0; i < 3; i++) {
		if (sigsetjmp(back, 1) == 0) {
			ualarm(10000, 0);
			CHECK(read(p[0], &c, 1) == -2); /* never ends */
		}
		CHECK(seen());
	}
	close(p[0]);
	close(p[1]);
}

static void stack_of_its_own(void)
{
	enum { SIZE = 16 << 10 };
	void *room = malloc(SIZE);
	stack_t ss = { .ss_sp = room, .ss_size = SIZE };

	CHECK(sigaltstack(&ss, NULL) == 0);
	on(SIGUSR2, SA_ONSTACK, NULL);
	got = 0;
	CHECK(raise(SIGUSR2) == 0 && got == SIGUSR2);
	ss.ss_flags = SS_DISABLE;
	CHECK(sigaltstack(&ss, NULL) == 0);
	free(room);
}

/* A handler that has SIGSYS blocked by what it returns to. */
static void mask_of_context(int sig, siginfo_t *info, void *context)
{
	ucontext_t *u = context;

	(void)sig;
	(void)info;
	sigaddset(&u->uc_sigmask, SIGSYS);
}

static void context_mask(void)
{
	struct sigaction sa = { .sa_sigaction = mask_of_context, .sa_flags = SA_SIGINFO };

	CHECK(sigaction(SIGUSR1, &sa, NULL) == 0);
	CHECK(raise(SIGUSR1) == 0);
	CHECK(seen());
}

int main(void)
{
	sigfillset(&all);
	bad = (long)mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	blocked();
	waiting();
	own_sigsys();
	seccomp_trap();
	jumping();
	stack_of_its_own();
	context_mask();
	CHECK(prctl(59 /* PR_SET_SYSCALL_USER_DISPATCH */, 0, 0, 0, 0) == -1 && errno == EBUSY);
	CHECK(seen());
	return 0;
}
