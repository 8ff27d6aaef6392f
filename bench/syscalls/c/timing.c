/*
 * What calls.c and floor.c share; it stands before each. A call is timed by
 * itself, and told as its name, the median and the 99th percentile in
 * nanoseconds.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static void check(int failed, const char *what)
{
	if (!failed)
		return;
	perror(what);
	exit(1);
}

static long now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000L + t.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
	long x = *(const long *)a, y = *(const long *)b;
	return (x > y) - (x < y);
}

static void nothing(void) {}

/* Makes the call so many times, and a tenth before that to warm up; before and
 * after are not timed. */
static void measure(const char *name, int times, void (*before)(void), long (*call)(void), void (*after)(void))
{
	long *ns = calloc(times, sizeof *ns);
	check(!ns, "calloc");
	for (int i = -times / 10; i < times; i++) {
		before();
		long t = now();
		long r = call();
		t = now() - t;
		check(r < 0, name);
		after();
		if (i >= 0)
			ns[i] = t;
	}
	qsort(ns, times, sizeof *ns, by_value);
	printf("%s %ld %ld\n", name, ns[times / 2], ns[times - 1 - times / 100]);
	fflush(stdout);
	free(ns);
}
