/*
 * New tasks. Dispatch belongs to a thread and is not inherited, so that each
 * child switches it on before it returns to the program. What a child needs for
 * that cannot be on the parent's stack, unless it gets a copy of it:
 *
 *	a stack of its own     it is put there, for .Lchild_new in loader_entry.S
 *	a copy of ours         the frame is in the copy
 *	our very stack, vfork  a thunk, which stands for the place to return to
 */
#include "loader_internal.h"

#include <errno.h>
#include <linux/sched.h>
#include <signal.h>
#include <sys/syscall.h>

#ifndef CLONE_CLEAR_SIGHAND
#define CLONE_CLEAR_SIGHAND 0x100000000ULL
#endif

int zp_threads;

/* Places that call vfork, by thunk; filled once, read by loader_entry.S. */
struct thunk {
	uint64_t ret, flags;
} zp_thunk_of[ZP_THUNKS] __attribute__((visibility("hidden")));
static unsigned char thunk_state[ZP_THUNKS]; /* 0 free, 1 being filled, 2 filled */

enum { THUNK_CODE = 16 }; /* bytes of each */

/* 0: there are more places than thunks. */
static char *thunk_for(uint64_t ret, uint64_t flags)
{
	for (int i = 0; i < ZP_THUNKS; i++) {
		unsigned char none = 0;

		if (__atomic_compare_exchange_n(&thunk_state[i], &none, 1, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
			zp_thunk_of[i] = (struct thunk){ ret, flags };
			__atomic_store_n(&thunk_state[i], 2, __ATOMIC_RELEASE);
			return zp_thunk_code + i * THUNK_CODE;
		}
		if (none == 2 && zp_thunk_of[i].ret == ret && zp_thunk_of[i].flags == flags)
			return zp_thunk_code + i * THUNK_CODE;
	}
	return NULL;
}

/* A child with our memory or a copy, on our stack. */
static int same_stack(struct zp_frame *f, uint64_t flags)
{
	if (flags & CLONE_VM) {
		f->x = (long)thunk_for(f->ret, flags);
		if (f->x)
			return ZP_VFORK;
		if (!(flags & CLONE_VFORK)) {
			f->nr = -EAGAIN;
			return ZP_RESULT;
		}
		/* fork does what vfork does, only slower. */
		flags &= ~(uint64_t)(CLONE_VM | CLONE_VFORK);
		f->a[0] = flags | SIGCHLD;
		f->a[1] = 0;
		f->nr = SYS_clone;
	}
	f->x = flags;
	return ZP_FORK;
}

/* Leaves at the child's stack what it needs to return; ZP_CHILD bytes. */
static void prepare(uint64_t top, const struct zp_frame *f, uint64_t flags)
{
	uint64_t *s = (uint64_t *)top;

	s[-1] = f->ret;
	s[-2] = f->a[0];
	s[-3] = f->a[1];
	s[-4] = flags;
}

static int clone3(struct zp_frame *f)
{
	enum { MOST = 256, LEAST = 64 }; /* bytes of struct clone_args */
	struct clone_args *args = (void *)f->a[0], *ours;
	uint64_t size = f->a[1], top;

	/* Let the kernel see to what is wrong: it will not make a child. */
	if (size < LEAST || !args || zp_sys(SYS_rt_sigprocmask, 99, args, 0, 8) != -EINVAL ||
	    zp_sys(SYS_rt_sigprocmask, 99, (char *)args + size - 8, 0, 8) != -EINVAL)
		return ZP_NATIVE;
	if (args->flags & CLONE_VM && !(args->flags & CLONE_VFORK))
		zp_threads = 1;
	if (args->stack == 0)
		return same_stack(f, args->flags);
	if (size > MOST || args->stack_size < ZP_CHILD + MOST) {
		f->nr = size > MOST ? -E2BIG : -EINVAL;
		return ZP_RESULT;
	}
	/* The program's structure is its own: a copy, at a place that stays until
	 * the child runs. */
	top = args->stack + args->stack_size;
	ours = (struct clone_args *)((top - ZP_CHILD - size) & ~7ULL);
	for (uint64_t i = 0; i < size; i++)
		((char *)ours)[i] = ((const char *)args)[i];
	ours->stack_size -= ZP_CHILD;
	prepare(top, f, args->flags);
	f->x = f->a[0];
	f->a[0] = (long)ours;
	return ZP_CLONE3;
}

int zp_clone(struct zp_frame *f)
{
	uint64_t flags = f->a[0], top = f->a[1];

	switch (f->nr) {
	case SYS_fork:
		return same_stack(f, SIGCHLD);
	case SYS_vfork:
		return same_stack(f, CLONE_VM | CLONE_VFORK | SIGCHLD);
	case SYS_clone3:
		return clone3(f);
	}
	flags &= 0xffffffff; /* clone(2) has no others */
	if (flags & CLONE_VM && !(flags & CLONE_VFORK))
		zp_threads = 1;
	if (top == 0)
		return same_stack(f, flags);
	prepare(top, f, flags);
	f->x = f->a[1];
	f->a[1] = top - ZP_CHILD;
	return ZP_CLONE;
}

/* In a child of any kind, before the program has it. */
void zp_child(unsigned long flags)
{
	if (!(flags & CLONE_VM)) {
		zp_threads = 0;
		zp_rewrite_forked();
		zp_signal_forked();
	}
	if (flags & CLONE_CLEAR_SIGHAND) {
		zp_catch();
		if (zp_rewriting == ZP_REWRITE_NOW)
			zp_fault_catch();
	}
	zp_arm();
}
