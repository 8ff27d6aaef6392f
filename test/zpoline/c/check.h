/* What the programs of this folder share: a check that ends them, and system
 * calls made by an instruction of their own. */
#ifndef CHECK_H
#define CHECK_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CHECK(good)                                                                                   \
	do {                                                                                          \
		if (!(good)) {                                                                        \
			fprintf(stderr, "%s:%d: %s (errno %s)\n", __FILE__, __LINE__, #good, strerror(errno)); \
			exit(1);                                                                      \
		}                                                                                     \
	} while (0)

/* Always inlined: each use is an instruction of its own, behind which nothing is
 * in the red zone (the build says -mno-red-zone where that matters). */
static inline __attribute__((always_inline)) long raw(long nr, long a, long b, long c, long d, long e, long f)
{
	register long r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
	long r;

	__asm__ volatile("syscall" : "=a"(r) : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
	return r;
}

/* What count_hook.c answers: how often call nr has come to it. */
#define SYS_ask 500
#define SESSION 4711

static inline long asked(long nr)
{
	return raw(SYS_ask, nr, 0, 0, 0, 0, 0);
}

#endif
