/* Threads that are cancelled while they wait in a system call: what they have left
 * to do is done, for which the stack is unwound through the loader. */
#define _GNU_SOURCE
#include "check.h"

#include <pthread.h>
#include <sys/socket.h>
#include <sys/syscall.h>

enum { THREADS = 20 };

static int p[2], cleaned, waiting;

static void clean(int *unused)
{
	(void)unused;
	__atomic_fetch_add(&cleaned, 1, __ATOMIC_RELAXED);
}

static void *body(void *unused)
{
	__attribute__((cleanup(clean))) int here;
	char c;

	(void)unused;
	here = 0;
	(void)here;
	__atomic_fetch_add(&waiting, 1, __ATOMIC_RELAXED);
	CHECK(read(p[0], &c, 1) == -2);
	return NULL;
}

int main(void)
{
	pthread_t threads[THREADS];
	void *r;

	CHECK(pipe(p) == 0);
	for (int i = 0; i < THREADS; i++)
		CHECK(pthread_create(&threads[i], NULL, body, NULL) == 0);
	while (__atomic_load_n(&waiting, __ATOMIC_RELAXED) < THREADS)
		sched_yield();
	for (int i = 0; i < THREADS; i++)
		CHECK(pthread_cancel(threads[i]) == 0);
	for (int i = 0; i < THREADS; i++)
		CHECK(pthread_join(threads[i], &r) == 0 && r == PTHREAD_CANCELED);
	CHECK(cleaned == THREADS);
	CHECK(getsid(0) == SESSION);
	return 0;
}
