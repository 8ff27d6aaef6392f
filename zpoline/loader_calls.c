/* What is done for a call that is not simply the kernel's. Runs on the program's
 * stack, in a signal handler or a child of vfork(2) as well: small frames, no
 * libc, no vector registers, no thread-local storage. */
#include "loader_internal.h"

#include <errno.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#ifndef PR_SET_SYSCALL_USER_DISPATCH
#define PR_SET_SYSCALL_USER_DISPATCH 59
#endif

/* The stack that the hook gets: the program's, if there is room. */
static long with_hook(struct zp_frame *f)
{
	struct zp_stack *s;
	long r;

	if (!zp_small_stacks)
		return zp_call_hook(f, NULL);
	s = zp_stack_take();
	if (!s)
		return -ENOMEM;
	r = zp_call_hook(f, zp_stack_top(s));
	zp_stack_give(s);
	return r;
}

int zp_handle(struct zp_frame *f)
{
	if (f->x && !zp_site_known(f->ret))
		return ZP_FAULT;
	f->x = 0;
	if ((unsigned long)f->nr >= ZP_CALLS)
		return ZP_NATIVE;
	switch (zp_way[f->nr]) {
	case ZP_WAY_OWN:
		return zp_own(f);
	case ZP_WAY_HOOK:
		if (zp_of_hook(f->ret))
			return ZP_NATIVE;
		f->nr = with_hook(f);
		return ZP_RESULT;
	}
	return ZP_NATIVE;
}

/* A program that dispatches for itself would switch ours off. */
static int own_prctl(struct zp_frame *f)
{
	if (f->a[0] != PR_SET_SYSCALL_USER_DISPATCH)
		return ZP_NATIVE;
	f->nr = -EBUSY;
	return ZP_RESULT;
}

/* The mask that is restored may have been written by a handler. */
static int own_sigreturn(const struct zp_frame *f)
{
	enum { MASK = 296 }; /* of uc_sigmask in the kernel's struct ucontext */
	uint64_t *mask = (uint64_t *)((const char *)(f + 1) + ZP_RED_ZONE + MASK);

	*mask &= ~ZP_SIGSYS_BIT;
	return ZP_SIGRETURN;
}

int zp_own(struct zp_frame *f)
{
	switch (f->nr) {
	case SYS_rt_sigreturn:
		return own_sigreturn(f);
	case SYS_rt_sigaction:
		return zp_sigaction(f);
	case SYS_clone:
	case SYS_clone3:
	case SYS_fork:
	case SYS_vfork:
		return zp_clone(f);
	case SYS_execve:
	case SYS_execveat:
		return zp_exec(f);
	case SYS_prctl:
		return own_prctl(f);
	}
	return zp_sigmask(f);
}
