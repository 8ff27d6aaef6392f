/*
 * libpoemq-hook: the calls that poemq-launch's filter traps, answered by the
 * broker from inside of the program.
 *
 * Theory of operation
 *
 * A loader (zpoline's, or our libpoemq-zpoline.so) has every system call of the
 * process come to a function, loads this library into a namespace of its own by
 * dlmopen(3), and calls __hook_init. From then on pq_hook is that function. Most
 * calls go on to the function that was there before, at the cost of a switch; the
 * few that a broker answers are sent to it over a socket, with the file they are
 * about and the memory they point to, and come back as a result, a descriptor,
 * or the word that the kernel shall do it. The broker has the same handlers for
 * them as for calls that come by seccomp. The order of the files is the way's:
 *
 *	hook_env.c      what the environment says
 *	hook.c          every call: which are looked at
 *	hook_calls.c    which of these are the broker's; the memory they point to
 *	hook_ask.c      one call: question, answer, signals in between
 *	hook_slots.c    a connection for each call at a time
 *	hook_connect.c  connections: the first of a process, those after a fork
 *	hook_io.c       packets with descriptors; hook_text.c words on stderr
 *
 * Rules that all of it keeps:
 *
 *   - It runs in signal handlers, in children of vfork(2), and in threads that
 *     have no thread-local storage yet: no libc after __hook_init, no errno, no
 *     malloc, no locks. State that two could want is taken by compare-and-swap,
 *     and a handler that finds it taken takes another.
 *   - Its own system calls go to the next hook: it never comes to itself.
 *   - Vector and x87 registers are the program's (-mgeneral-regs-only), and its
 *     stack may be small: buffers are not on it.
 *   - The program's memory is only touched by the kernel, which says EFAULT.
 *   - Its descriptors are close-on-exec, high, and looked at before each use: a
 *     program that closes all it does not know closes ours, and may have got
 *     another file under the number since.
 *
 * What it never does: let a call through that the broker refused, and hold a
 * program to anything. A program that makes system calls past the loader is not
 * seen; this is cooperation, where a seccomp filter is enforcement.
 */
#include "hook.h"
#include "loader.h"

#include <sys/syscall.h>

pq_syscall pq_next;

int pq_moved;

#ifndef SYS_io_uring_setup
#define SYS_io_uring_setup 425
#endif

enum { CLONE_NEWNET_ = 0x40000000, ENOSYS_ = 38 };

/* A call after which the caller may be in another network namespace. */
static long move(const struct pq_args *c)
{
	long r = pq_next(c->nr, c->a[0], c->a[1], c->a[2], c->a[3], c->a[4], c->a[5]);

	if (r >= 0)
		__atomic_store_n(&pq_moved, 1, __ATOMIC_RELAXED);
	return r;
}

static long look(const struct pq_args *c)
{
	if (c->nr == SYS_setns || (c->nr == SYS_unshare && (c->a[0] & CLONE_NEWNET_)))
		return move(c);
	if (!pq_wanted(c))
		return pq_next(c->nr, c->a[0], c->a[1], c->a[2], c->a[3], c->a[4], c->a[5]);
	return pq_ask(c);
}

static long pq_hook(long nr, long a1, long a2, long a3, long a4, long a5, long a6)
{
	switch (nr) {
	case SYS_socket:
	case SYS_connect:
	case SYS_accept:
	case SYS_accept4:
	case SYS_bind:
	case SYS_listen:
	case SYS_getsockname:
	case SYS_getpeername:
	case SYS_setsockopt:
	case SYS_getsockopt:
	case SYS_shutdown:
	case SYS_ioctl:
	case SYS_setns:
	case SYS_unshare: {
		const struct pq_args c = { nr, { a1, a2, a3, a4, a5, a6 } };

		return look(&c);
	}
	case SYS_io_uring_setup: /* its connects and accepts are seen by nobody */
		return -ENOSYS_;
	}
	return pq_next(nr, a1, a2, a3, a4, a5, a6);
}

/* Our loader does not even come here with other calls. */
__attribute__((visibility("default"))) extern const struct zp_hook_wants __hook_wants;

const struct zp_hook_wants __hook_wants = {
	sizeof(__hook_wants),
	ZP_HOOK_NO_VECTORS,
	{
		[SYS_socket] = 1, [SYS_connect] = 1, [SYS_accept] = 1, [SYS_accept4] = 1, [SYS_bind] = 1, [SYS_listen] = 1,
		[SYS_getsockname] = 1, [SYS_getpeername] = 1, [SYS_setsockopt] = 1, [SYS_getsockopt] = 1, [SYS_shutdown] = 1,
		[SYS_ioctl] = 1, [SYS_setns] = 1, [SYS_unshare] = 1, [SYS_io_uring_setup] = 1,
	},
};

/*
 * What zpoline's loader calls: *sys_call_hook_ptr is the hook so far, the first
 * being the system call itself. 0 for success.
 */
__attribute__((visibility("default"))) int __hook_init(long placeholder, void *sys_call_hook_ptr);

int __hook_init(long placeholder, void *sys_call_hook_ptr)
{
	pq_syscall *hook = sys_call_hook_ptr;

	(void)placeholder;
	pq_next = *hook;
	pq_configure();
	if (pq_slots_init() != 0)
		return -1; /* it has said why */
	*hook = pq_hook;
	return 0;
}
