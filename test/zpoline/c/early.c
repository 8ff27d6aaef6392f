/* A library whose constructor starts a thread, which may be before the loader's
 * own constructor; and what looks at it. */
#define _GNU_SOURCE
#include "check.h"

#include <pthread.h>
#include <sys/syscall.h>

static pthread_t thread;
static volatile int go;

static void *body(void *unused)
{
	(void)unused;
	while (!go)
		sched_yield();
	return (void *)raw(SYS_getsid, 0, 0, 0, 0, 0, 0);
}

__attribute__((constructor)) static void start(void)
{
	CHECK(pthread_create(&thread, NULL, body, NULL) == 0);
}

__attribute__((visibility("default"))) long early_result(void);

long early_result(void)
{
	void *r;

	go = 1;
	CHECK(pthread_join(thread, &r) == 0);
	return (long)r;
}
