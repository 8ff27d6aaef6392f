/*
 * SIGSEGV. `call *%rax` at a place that was rewritten goes to the number of the
 * call, and where that is no number of Linux's (-1; x32's, which have bit 30 set),
 * it ends in memory that is not there, or is no address at all. The kernel is to give
 * the answer, ENOSYS as a rule. So while the program has the default action for SIGSEGV, there is a
 * handler of ours, which repairs just that, and leaves all else to the default.
 * A program that handles SIGSEGV itself has it for itself.
 */
#include "loader_internal.h"

#include <signal.h>
#include <sys/syscall.h>
#include <ucontext.h>

enum { PAGE = 4096, CALL = 2 /* bytes of the instruction */ };

static bool rewritten(uint64_t ret)
{
	uint8_t code[CALL];

	return zp_site_known(ret) && zp_text_read(-1, ret - CALL, code, CALL) == CALL && code[0] == 0xff && code[1] == 0xd0;
}

/* Whether it was such a call; then the thread goes on as if it were dispatched. */
static bool repair(const siginfo_t *info, ucontext_t *u)
{
	greg_t *g = u->uc_mcontext.gregs;
	uint64_t ret;

	if (info->si_code <= 0)
		return false;
	if (rewritten(g[REG_RIP] + CALL)) { /* no address: the call itself faults */
		ret = g[REG_RIP] + CALL;
	} else if (g[REG_RIP] == g[REG_RAX] && (uint64_t)g[REG_RIP] >= PAGE &&
		   zp_text_read(-1, g[REG_RSP], &ret, sizeof(ret)) == sizeof(ret) && rewritten(ret)) {
		g[REG_RSP] += sizeof(ret);
	} else {
		return false;
	}
	g[REG_RCX] = ret;
	g[REG_RIP] = (greg_t)zp_entry_dispatch;
	return true;
}

static void on_fault(int sig, siginfo_t *info, void *context)
{
	const struct zp_action none = { .handler = (void *)SIG_DFL };

	if (repair(info, context))
		return;
	/* A fault happens again as soon as we return; a signal is sent again. */
	zp_sys(SYS_rt_sigaction, sig, &none, 0, ZP_MASK_SIZE);
	if (info->si_code <= 0)
		zp_sys(SYS_tgkill, zp_sys(SYS_getpid), zp_sys(SYS_gettid), sig);
}

static const struct zp_action ours = {
	.handler = on_fault,
	.flags = SA_SIGINFO | SA_ONSTACK | ZP_SA_RESTORER,
	.restorer = zp_restore,
	.mask = ~0UL,
};

/* Rewriting begins, or a child has lost its handlers. */
void zp_fault_catch(void)
{
	struct zp_action is;

	if (zp_sys(SYS_rt_sigaction, SIGSEGV, 0, &is, ZP_MASK_SIZE) == 0 && is.handler == (void *)SIG_DFL)
		zp_sys(SYS_rt_sigaction, SIGSEGV, &ours, 0, ZP_MASK_SIZE);
}

/* The program's sigaction for SIGSEGV, whose structures the kernel could read. Ours
 * is the default to it. */
long zp_fault_action(const struct zp_action *act, struct zp_action *old)
{
	const bool back = act && act->handler == (void *)SIG_DFL && zp_rewriting == ZP_REWRITE_NOW;
	long r = zp_sys(SYS_rt_sigaction, SIGSEGV, back ? &ours : act, old, ZP_MASK_SIZE);

	if (r == 0 && old && old->handler == on_fault)
		*old = (struct zp_action){ .handler = (void *)SIG_DFL };
	return r;
}
