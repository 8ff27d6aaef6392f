/*
 * Signals. SIGSYS is ours: the kernel sends it for each dispatched call, and
 * kills the process if it is blocked or ignored then. So no mask of the program
 * ever has it, and the program's own action for it is kept here, for those that
 * are not ours (a seccomp filter's, or sent by somebody).
 */
#include "loader_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/syscall.h>
#include <ucontext.h>

#ifndef SYS_USER_DISPATCH
#define SYS_USER_DISPATCH 2
#endif
#ifndef SYS_epoll_pwait2
#define SYS_epoll_pwait2 441
#endif
#define ARCH_I386 0x40000003u /* AUDIT_ARCH_I386 */
#define IORING_ENTER_EXT_ARG_ 8

/* What the program has asked for SIGSYS. Written with SIGSYS in mind: by whoever
 * calls sigaction, which is not thought to be two threads at a time. */
static struct zp_action program;
static int program_pid;

/* Whether 8 bytes can be read at p; asks the kernel, which copies them before it
 * finds that there is no such operation (EFAULT or EINVAL). */
static bool readable(const void *p)
{
	return zp_sys(SYS_rt_sigprocmask, 99, p, 0, ZP_MASK_SIZE) == -EINVAL;
}

static bool readable_action(const struct zp_action *a)
{
	for (size_t i = 0; i < sizeof(*a); i += 8)
		if (!readable((const char *)a + i))
			return false;
	return true;
}

static bool handles(const struct zp_action *a)
{
	return a->handler != (void *)SIG_DFL && a->handler != (void *)SIG_IGN;
}

/* The program's action for SIGSYS: kept, not set. */
static int own_action(struct zp_frame *f)
{
	const struct zp_action *act = (const void *)f->a[1];
	struct zp_action *old = (void *)f->a[2], was = program;

	/* The kernel says whether old can be written. */
	f->nr = zp_sys(SYS_rt_sigaction, SIGSYS, 0, old, ZP_MASK_SIZE);
	if (f->nr == 0 && act) {
		/* A child that shares our memory but not our actions has no say. */
		if (program_pid == zp_sys(SYS_getpid))
			program = *act;
	}
	if (f->nr == 0 && old)
		*old = was;
	return ZP_RESULT;
}

int zp_sigaction(struct zp_frame *f)
{
	const struct zp_action *act = (const void *)f->a[1];
	struct zp_action copy;

	if (f->a[3] != ZP_MASK_SIZE || (act && !readable_action(act)))
		return ZP_NATIVE; /* an error */
	if (f->a[0] == SIGSYS)
		return own_action(f);
	if (!act && f->a[0] != SIGSEGV)
		return ZP_NATIVE;
	if (act) {
		copy = *act;
		copy.mask &= ~ZP_SIGSYS_BIT;
	}
	if (f->a[0] == SIGSEGV) {
		if (act && handles(act))
			zp_wants_faults();
		f->nr = zp_fault_action(act ? &copy : NULL, (void *)f->a[2]);
		return ZP_RESULT;
	}
	if (!(act->mask & ZP_SIGSYS_BIT))
		return ZP_NATIVE;
	f->nr = zp_sys(SYS_rt_sigaction, f->a[0], &copy, f->a[2], ZP_MASK_SIZE);
	return ZP_RESULT;
}

/* The call with the mask that argument i points to, less SIGSYS. */
static int with_mask(struct zp_frame *f, int i)
{
	const uint64_t *mask = (const uint64_t *)f->a[i];
	uint64_t ours;

	if (!mask || !readable(mask) || !(*mask & ZP_SIGSYS_BIT))
		return ZP_NATIVE;
	ours = *mask & ~ZP_SIGSYS_BIT;
	f->a[i] = (long)&ours;
	f->nr = zp_sys6(f->nr, f->a[0], f->a[1], f->a[2], f->a[3], f->a[4], f->a[5]);
	f->a[i] = (long)mask;
	return ZP_RESULT;
}

/* As with_mask, for an argument that points to a structure of so many words of
 * which the first points to the mask. */
static int with_mask_in(struct zp_frame *f, int i, int words)
{
	const uint64_t *given = (const uint64_t *)f->a[i];
	uint64_t mask, ours[3];

	if (!given)
		return ZP_NATIVE;
	for (int w = 0; w < words; w++) {
		if (!readable(given + w))
			return ZP_NATIVE;
		ours[w] = given[w];
	}
	if (!ours[0] || !readable((const void *)ours[0]))
		return ZP_NATIVE;
	mask = *(const uint64_t *)ours[0];
	if (!(mask & ZP_SIGSYS_BIT))
		return ZP_NATIVE;
	mask &= ~ZP_SIGSYS_BIT;
	ours[0] = (uint64_t)&mask;
	f->a[i] = (long)ours;
	f->nr = zp_sys6(f->nr, f->a[0], f->a[1], f->a[2], f->a[3], f->a[4], f->a[5]);
	f->a[i] = (long)given;
	return ZP_RESULT;
}

/* Which argument of which call is a mask; where the kernel checks a size, an
 * error stays the kernel's. */
int zp_sigmask(struct zp_frame *f)
{
	switch (f->nr) {
	case SYS_rt_sigprocmask:
		return f->a[0] == SIG_UNBLOCK ? ZP_NATIVE : with_mask(f, 1);
	case SYS_rt_sigsuspend:
		return with_mask(f, 0);
	case SYS_ppoll:
		return with_mask(f, 3);
	case SYS_epoll_pwait:
	case SYS_epoll_pwait2:
		return with_mask(f, 4);
	case SYS_pselect6:
	case SYS_io_pgetevents:
		return with_mask_in(f, 5, 2);
	case SYS_io_uring_enter:
		return f->a[3] & IORING_ENTER_EXT_ARG_ ? with_mask_in(f, 4, 3) : with_mask(f, 4);
	}
	return ZP_NATIVE;
}

/* A SIGSYS that is not ours goes to whom it is for. */
static void forward(siginfo_t *info, ucontext_t *u)
{
	struct zp_action a = program;
	uint64_t mask;

	if (handles(&a)) {
		__builtin_memcpy(&mask, &u->uc_sigmask, sizeof(mask));
		mask = (mask | a.mask) & ~ZP_SIGSYS_BIT;
		if (a.flags & SA_RESETHAND)
			program.handler = (void *)SIG_DFL;
		zp_sys(SYS_rt_sigprocmask, SIG_SETMASK, &mask, 0, ZP_MASK_SIZE);
		a.handler(SIGSYS, info, u);
		return;
	}
	if (a.handler == (void *)SIG_IGN && info->si_code <= 0)
		return;
	/* The default, with the same siginfo, as soon as we have returned. */
	a = (struct zp_action){ .handler = (void *)SIG_DFL };
	zp_sys(SYS_rt_sigaction, SIGSYS, &a, 0, ZP_MASK_SIZE);
	zp_sys(SYS_tgkill, zp_sys(SYS_getpid), zp_sys(SYS_gettid), SIGSYS);
}

/* Registers by their numbers in machine code. */
static void registers(const greg_t *g, struct zp_regs *to)
{
	static const unsigned char order[16] = {
		REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
		REG_R8, REG_R9, REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15,
	};

	for (int i = 0; i < 16; i++)
		to->r[i] = g[order[i]];
}

/* Sends the thread on to where a rewritten instruction would have led it. */
static void dispatched(const siginfo_t *info, ucontext_t *u)
{
	greg_t *g = u->uc_mcontext.gregs;
	struct zp_regs regs;

	if (info->si_arch == ARCH_I386) {
		/* int $0x80: as it is. Its arguments are in rcx and others. */
		g[REG_RSP] -= ZP_RED_ZONE + 8;
		*(greg_t *)g[REG_RSP] = g[REG_RIP];
		g[REG_RIP] = (greg_t)zp_int80;
		return;
	}
	registers(g, &regs);
	zp_see(g[REG_RIP], &regs);
	g[REG_RCX] = g[REG_RIP];
	g[REG_RIP] = (greg_t)zp_entry_dispatch;
}

static char arm_word; /* its address tells our own signals from others' */

static void on_sigsys(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	if (info->si_code == SYS_USER_DISPATCH)
		dispatched(info, context);
	else if (info->si_code == SI_QUEUE && info->si_ptr == &arm_word && info->si_pid == zp_sys(SYS_getpid))
		zp_arm();
	else
		forward(info, context);
}

/* This process has actions of its own. */
void zp_signal_forked(void)
{
	program_pid = zp_sys(SYS_getpid);
}

long zp_catch(void)
{
	/* Everything is blocked in our handler: a handler of the program's would
	 * run with SIGSYS blocked. */
	const struct zp_action ours = {
		.handler = on_sigsys,
		.flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART | ZP_SA_RESTORER,
		.restorer = zp_restore,
		.mask = ~0UL,
	};
	const uint64_t sigsys = ZP_SIGSYS_BIT;
	struct zp_action was = { 0 };
	long r = zp_sys(SYS_rt_sigaction, SIGSYS, &ours, &was, ZP_MASK_SIZE);

	if (r < 0)
		return r;
	if (!program_pid) {
		program = was;
		zp_signal_forked();
	}
	return zp_sys(SYS_rt_sigprocmask, SIG_UNBLOCK, &sigsys, 0, ZP_MASK_SIZE);
}

struct dirent64_ {
	uint64_t ino, off;
	uint16_t reclen;
	uint8_t type;
	char name[];
};

/* Threads that a library's constructor has started before us arm themselves when
 * our signal reaches them. */
void zp_arm_threads(void)
{
	_Alignas(8) char room[1024];
	long pid = zp_sys(SYS_getpid), self = zp_sys(SYS_gettid), n;
	int fd = zp_sys(SYS_open, "/proc/self/task", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return;
	while ((n = zp_sys(SYS_getdents64, fd, room, sizeof(room))) > 0) {
		for (long at = 0; at < n; at += ((struct dirent64_ *)(room + at))->reclen) {
			long tid = 0;
			siginfo_t info;

			for (const char *c = ((struct dirent64_ *)(room + at))->name; *c >= '0' && *c <= '9'; c++)
				tid = tid * 10 + (*c - '0');
			if (tid == 0 || tid == self)
				continue;
			zp_threads = 1;
			__builtin_memset(&info, 0, sizeof(info));
			info.si_signo = SIGSYS;
			info.si_code = SI_QUEUE;
			info.si_pid = pid;
			info.si_ptr = &arm_word;
			zp_sys(SYS_rt_tgsigqueueinfo, pid, tid, SIGSYS, &info);
		}
	}
	zp_sys(SYS_close, fd);
}
