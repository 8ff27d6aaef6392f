/* A hook for tests. It counts the calls that come to it, in a page that the
 * loader's tests can look at, and changes the answer of one: getsid is 4711 if
 * POEMQ_TEST_SESSION is set. Like any hook it may use vector registers, and does. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

typedef long (*hook_fn)(long nr, long a1, long a2, long a3, long a4, long a5, long a6);

static hook_fn next;
static long counts[1024];
static int answer;

/* What a program asks us by a call that no kernel has. */
#define ASK 500 /* (nr): how often that call came */

static long hook(long nr, long a1, long a2, long a3, long a4, long a5, long a6)
{
	double spoil[8];

	for (int i = 0; i < 8; i++)
		spoil[i] = nr + i;
	__asm__ volatile("vzeroall" : : "m"(spoil) : "memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",
			 "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
	if (nr == ASK)
		return __atomic_load_n(&counts[a1 & 1023], __ATOMIC_RELAXED);
	__atomic_fetch_add(&counts[nr & 1023], 1, __ATOMIC_RELAXED);
	if (nr == SYS_getsid && answer) {
		getpid(); /* of the hook's own libc: must not come back here */
		return 4711;
	}
	return next(nr, a1, a2, a3, a4, a5, a6);
}

__attribute__((visibility("default"))) int __hook_init(long placeholder, void *hook_ptr);

int __hook_init(long placeholder, void *hook_ptr)
{
	(void)placeholder;
	next = *(hook_fn *)hook_ptr;
	*(hook_fn *)hook_ptr = hook;
	answer = getenv("POEMQ_TEST_SESSION") != NULL;
	return 0;
}
