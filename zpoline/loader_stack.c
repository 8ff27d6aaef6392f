/* Stacks for hooks, of programs whose own have no room for one (Go). A stack has
 * an owner while a hook runs on it; they are never unmapped. */
#include "loader_internal.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>

enum { SIZE = 64 << 10, GUARD = 4096 };

/* Lies at the stack's top. */
struct zp_stack {
	struct zp_stack *next;
	int owner; /* thread id; 0: free */
};

static struct zp_stack *stacks; /* only grows, at its head */

static bool take(struct zp_stack *s, int was, int tid)
{
	return __atomic_compare_exchange_n(&s->owner, &was, tid, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
}

static struct zp_stack *make(int tid)
{
	char *m = (char *)zp_sys(SYS_mmap, 0, SIZE + GUARD, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	struct zp_stack *s;

	if ((unsigned long)m > -4096UL)
		return NULL;
	zp_sys(SYS_mprotect, m, GUARD, PROT_NONE);
	s = (struct zp_stack *)(m + GUARD + SIZE - 64);
	s->owner = tid;
	s->next = __atomic_load_n(&stacks, __ATOMIC_RELAXED);
	while (!__atomic_compare_exchange_n(&stacks, &s->next, s, true, __ATOMIC_RELEASE, __ATOMIC_RELAXED))
		;
	return s;
}

struct zp_stack *zp_stack_take(void)
{
	int tid = zp_sys(SYS_gettid);
	struct zp_stack *first = __atomic_load_n(&stacks, __ATOMIC_ACQUIRE);

	for (struct zp_stack *s = first; s; s = s->next)
		if (__atomic_load_n(&s->owner, __ATOMIC_RELAXED) == 0 && take(s, 0, tid))
			return s;
	/* Threads that ended in a hook: killed by exec of a child of vfork, or
	 * cancelled, or other threads of the parent of this process. */
	for (struct zp_stack *s = first; s; s = s->next) {
		int owner = __atomic_load_n(&s->owner, __ATOMIC_RELAXED);

		if (owner && owner != tid && zp_sys(SYS_tkill, owner, 0) == -ESRCH && take(s, owner, tid))
			return s;
	}
	return make(tid);
}

void *zp_stack_top(struct zp_stack *s)
{
	return s;
}

void zp_stack_give(struct zp_stack *s)
{
	__atomic_store_n(&s->owner, 0, __ATOMIC_RELEASE);
}
