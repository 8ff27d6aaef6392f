/* Threads that come to the same new instruction at the same time, while it is being
 * rewritten; in each of many rounds it lies elsewhere in a page of a file. */
#define _GNU_SOURCE
#include "check.h"

#include <pthread.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>

enum { THREADS = 8, ROUNDS = 300, CALLS = 30, PAGE = 4096 };

static const uint8_t code[] = { 0xb8, SYS_getsid, 0, 0, 0, 0x0f, 0x05, 0xc3 };
static pthread_barrier_t begin, end;
static long (*fn)(void);

static void *body(void *unused)
{
	for (int r = 0; r < ROUNDS; r++) {
		pthread_barrier_wait(&begin);
		for (int i = 0; i < CALLS; i++)
			CHECK(fn() == SESSION);
		pthread_barrier_wait(&end);
	}
	return unused;
}

int main(void)
{
	pthread_t threads[THREADS];
	int rewritten = 0, fd = memfd_create("code", 0);
	long before = asked(SYS_getsid);
	uint8_t page[PAGE], *p;

	memset(page, 0xcc, sizeof(page));
	for (int i = 0; i < ROUNDS; i++)
		memcpy(page + i * 13, code, sizeof(code));
	CHECK(fd >= 0 && write(fd, page, PAGE) == PAGE);
	pthread_barrier_init(&begin, NULL, THREADS + 1);
	pthread_barrier_init(&end, NULL, THREADS + 1);
	for (int i = 0; i < THREADS; i++)
		CHECK(pthread_create(&threads[i], NULL, body, NULL) == 0);
	for (int r = 0; r < ROUNDS; r++) {
		p = mmap(NULL, PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0);
		CHECK(p != MAP_FAILED);
		*(void **)&fn = p + r * 13;
		pthread_barrier_wait(&begin);
		pthread_barrier_wait(&end);
		rewritten += p[r * 13 + 5] == 0xff;
		CHECK(munmap(p, PAGE) == 0);
	}
	for (int i = 0; i < THREADS; i++)
		CHECK(pthread_join(threads[i], NULL) == 0);
	CHECK(asked(SYS_getsid) - before == (long)ROUNDS * THREADS * CALLS);
	/* All but those in two cache lines, if the lock was free once. */
	printf("rewritten %d\n", rewritten > ROUNDS * 9 / 10);
	return 0;
}
