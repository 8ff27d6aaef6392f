/*
 * 100,000 calls from 16 threads under signals of 1 kHz, whose handlers make calls
 * as well. Vector and x87 registers must be as they were after each, no call may
 * be lost or seen twice, and an interrupted read must restart.
 */
#define _GNU_SOURCE
#include "check.h"

#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/time.h>

enum { THREADS = 16, CALLS = 100000 / THREADS };

static long handled;

static void tick(int sig)
{
	CHECK(sig == SIGALRM);
	CHECK(raw(SYS_getsid, 0, 0, 0, 0, 0, 0) == SESSION);
	__atomic_fetch_add(&handled, 1, __ATOMIC_RELAXED);
}

/* A call with known values in registers that C does not keep over one. */
static long guarded(long seed)
{
	double in[4] = { seed, seed + 1, seed + 2, seed + 3 }, out[4];
	unsigned short control = seed & 1 ? 0x37f : 0x27f, control_after;
	long r;

	__asm__ volatile("fldcw %[cw]\n\t"
			 "fldl %[one]\n\t"
			 "movupd %[in], %%xmm0\n\t"
			 "movupd 16+%[in], %%xmm15\n\t"
			 "syscall\n\t"
			 "movupd %%xmm0, %[out]\n\t"
			 "movupd %%xmm15, 16+%[out]\n\t"
			 "fnstcw %[cw2]\n\t"
			 "faddl %[one]\n\t"
			 "fstpl %[one]\n\t"
			 "fninit"
			 : "=a"(r), [out] "=o"(out), [cw2] "=m"(control_after), [one] "+m"(in[1])
			 : "a"(SYS_getsid), [in] "o"(in), [cw] "m"(control)
			 : "rcx", "r11", "memory", "xmm0", "xmm15");
	CHECK(in[1] == 2 * (seed + 1) && control == control_after);
	CHECK(out[0] == seed && out[1] == seed + 1 && out[2] == seed + 2 && out[3] == seed + 3);
	return r;
}

static void *body(void *arg)
{
	for (long i = 0; i < CALLS; i++)
		CHECK(guarded((long)arg * CALLS + i) == SESSION);
	return NULL;
}

int main(void)
{
	struct sigaction sa = { .sa_handler = tick, .sa_flags = SA_RESTART };
	struct itimerval each = { { 0, 1000 }, { 0, 1000 } }, never = { 0 };
	long before = asked(SYS_getsid), after;
	pthread_t threads[THREADS];
	int p[2];
	char c;

	CHECK(pipe(p) == 0);
	sigfillset(&sa.sa_mask); /* SIGSYS among them */
	sigdelset(&sa.sa_mask, SIGABRT);
	CHECK(sigaction(SIGALRM, &sa, NULL) == 0);
	CHECK(setitimer(ITIMER_REAL, &each, NULL) == 0);
	for (long i = 0; i < THREADS; i++)
		CHECK(pthread_create(&threads[i], NULL, body, (void *)i) == 0);
	for (int i = 0; i < THREADS; i++)
		CHECK(pthread_join(threads[i], NULL) == 0);
	/* Only signals come here, for a while; then a byte. */
	long some = __atomic_load_n(&handled, __ATOMIC_RELAXED) + 20;

	if (fork() == 0) {
		struct timespec ms = { 0, 1000000 };

		for (int i = 0; i < 50; i++)
			nanosleep(&ms, NULL);
		_exit(write(p[1], "x", 1) != 1);
	}
	CHECK(read(p[0], &c, 1) == 1 && c == 'x');
	while (__atomic_load_n(&handled, __ATOMIC_RELAXED) < some)
		pause();
	CHECK(setitimer(ITIMER_REAL, &never, NULL) == 0);
	after = asked(SYS_getsid);
	CHECK(after - before == (long)THREADS * CALLS + handled);
	printf("%d calls, %ld signals\n", THREADS * CALLS, handled);
	return 0;
}
