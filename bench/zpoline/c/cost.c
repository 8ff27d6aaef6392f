/*
 * Prints what a call costs, in nanoseconds: getpgrp(2), which does next to nothing,
 * in batches of which the median counts. argv[1] is the number of batches. With
 * "first" as argv[2]: the first call at each of many places instead.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 1000, PLACES = 64, APART = 4096, WARM = 2000 };

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static void print(double *ns, int n)
{
	qsort(ns, n, sizeof *ns, by_value);
	printf("%.1f\n", ns[n / 2]);
}

/* Each place on a page of its own, as in a library that was just loaded. */
static void first(void)
{
	static const unsigned char code[] = {0xb8, SYS_getpgrp, 0, 0, 0, 0x0f, 0x05, 0xc3};
	unsigned char *p = mmap(NULL, PLACES * APART, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	double ns[PLACES];

	if (p == MAP_FAILED)
		exit(1);
	for (int i = 0; i < PLACES; i++)
		memcpy(p + i * APART, code, sizeof code);
	if (mprotect(p, PLACES * APART, PROT_READ | PROT_EXEC) != 0)
		exit(1);
	for (int i = 0; i < PLACES; i++) {
		double t = now();
		((long (*)(void))(p + i * APART))();
		ns[i] = now() - t;
	}
	print(ns, PLACES);
}

int main(int argc, char **argv)
{
	int batches = argc > 1 ? atoi(argv[1]) : 0;
	double *ns = calloc(batches, sizeof *ns);

	if (batches < 1 || !ns) {
		fprintf(stderr, "usage: %s BATCHES [first]\n", argv[0]);
		return 2;
	}
	for (int i = 0; i < WARM; i++)
		getpgrp();
	if (argc > 2) {
		first();
		return 0;
	}
	for (int b = 0; b < batches; b++) {
		double t = now();
		for (int i = 0; i < BATCH; i++)
			getpgrp();
		ns[b] = (now() - t) / BATCH;
	}
	print(ns, batches);
	return 0;
}
