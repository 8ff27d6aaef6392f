/* 1,000 threads that start as fast as they can; none may make a call unseen. */
#define _GNU_SOURCE
#include "check.h"

#include <pthread.h>
#include <sys/syscall.h>

enum { THREADS = 1000, CALLS = 20 };

static void *body(void *unused)
{
	for (int i = 0; i < CALLS; i++)
		CHECK(raw(SYS_getsid, 0, 0, 0, 0, 0, 0) == SESSION);
	return unused;
}

int main(void)
{
	static pthread_t threads[THREADS];
	pthread_attr_t small;
	long before = asked(SYS_getsid);

	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, 64 << 10);
	for (int i = 0; i < THREADS; i++)
		CHECK(pthread_create(&threads[i], &small, body, NULL) == 0);
	for (int i = 0; i < THREADS; i++)
		CHECK(pthread_join(threads[i], NULL) == 0);
	CHECK(asked(SYS_getsid) - before == (long)THREADS * CALLS);
	return 0;
}
