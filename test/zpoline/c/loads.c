/* Loads and unloads argv[1], own_calls.so, while other threads run. */
#define _GNU_SOURCE
#include "check.h"

#include <dlfcn.h>
#include <pthread.h>
#include <sys/syscall.h>

static volatile int end;

static void *busy(void *unused)
{
	while (!end)
		CHECK(getsid(0) == SESSION);
	return unused;
}

int main(int argc, char **argv)
{
	pthread_t threads[4];
	long before;

	CHECK(argc > 1);
	for (int i = 0; i < 4; i++)
		CHECK(pthread_create(&threads[i], NULL, busy, NULL) == 0);
	for (int i = 0; i < 50; i++) {
		void *l = dlopen(argv[1], RTLD_NOW);
		long (*fn)(void);

		CHECK(l);
		*(void **)&fn = dlsym(l, "own_getsid");
		CHECK(fn && fn() == SESSION && fn() == SESSION);
		CHECK(dlclose(l) == 0);
	}
	end = 1;
	for (int i = 0; i < 4; i++)
		CHECK(pthread_join(threads[i], NULL) == 0);
	before = asked(SYS_getsid);
	CHECK(getsid(0) == SESSION && asked(SYS_getsid) == before + 1);
	return 0;
}
