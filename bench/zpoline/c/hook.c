/* A hook that does nothing. WANTS is 1 if it has all calls, 0 if none; VECTORS is 1
 * if the loader shall keep vector registers for it. */
#include "loader.h"

typedef long (*hook_fn)(long nr, long a1, long a2, long a3, long a4, long a5, long a6);

static hook_fn next;

static long hook(long nr, long a1, long a2, long a3, long a4, long a5, long a6)
{
	return next(nr, a1, a2, a3, a4, a5, a6);
}

__attribute__((visibility("default"))) struct zp_hook_wants __hook_wants = {
	.size = sizeof __hook_wants,
	.flags = VECTORS ? 0 : ZP_HOOK_NO_VECTORS,
};

__attribute__((visibility("default"))) int __hook_init(long placeholder, void *hook_ptr);

int __hook_init(long placeholder, void *hook_ptr)
{
	(void)placeholder;
	for (int i = 0; i < ZP_CALLS; i++)
		__hook_wants.nr[i] = WANTS;
	next = *(hook_fn *)hook_ptr;
	*(hook_fn *)hook_ptr = hook;
	return 0;
}
