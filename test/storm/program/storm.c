/*
 * Makes sockets from several threads under a storm of signals, and holds every
 * result to what socket(2) promises: a descriptor that nobody else has, or
 * EINTR where the handler was installed without SA_RESTART.
 *
 * storm CALLS THREADS restart|interrupt; prints one line of figures, exits 0.
 *
 * Signals take a thread out of a call that a broker is answering at that
 * moment. A broker that is not careful installs a descriptor nobody hears of,
 * installs two, or answers the wrong call.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

enum { MOST_THREADS = 64, MOST_FDS = 1024, BATCH = 16, PERIOD_US = 1000 };

static atomic_long signals, interrupted;
static atomic_int held[MOST_FDS];
static int restart;
static size_t per_thread;
static uint64_t *cookies; /* of every socket, to find one that came twice */

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static void fail(const char *what, long n)
{
	fprintf(stderr, "storm: %s (%ld)\n", what, n);
	exit(1);
}

static void count(int sig)
{
	(void)sig;
	atomic_fetch_add(&signals, 1);
}

/* A new socket, as the program must get it; EINTR is tried again. */
static int make(uint64_t *cookie)
{
	int fd;
	while ((fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) < 0) {
		if (errno != EINTR)
			die("socket");
		if (restart)
			fail("EINTR though the handler restarts calls", 0);
		atomic_fetch_add(&interrupted, 1);
	}
	if (fd >= MOST_FDS)
		fail("a descriptor that is not the lowest free one", fd);
	if (atomic_exchange(&held[fd], 1))
		fail("a descriptor that another call has", fd);
	int flags = fcntl(fd, F_GETFD);
	if (flags != FD_CLOEXEC)
		fail("not open, or not close-on-exec", fd);
	socklen_t len = sizeof *cookie;
	if (getsockopt(fd, SOL_SOCKET, SO_COOKIE, cookie, &len))
		die("SO_COOKIE");
	return fd;
}

static void *work(void *arg)
{
	uint64_t *mine = arg;
	int fds[BATCH];
	for (size_t done = 0; done < per_thread;) {
		size_t n = 0;
		while (n < BATCH && done < per_thread)
			fds[n++] = make(&mine[done++]);
		while (n > 0) {
			int fd = fds[--n];
			atomic_store(&held[fd], 0);
			if (close(fd))
				die("close");
		}
	}
	return NULL;
}

static int open_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	if (!d)
		die("/proc/self/fd");
	int n = 0;
	/* The hook library keeps connections at high numbers, as many as threads. */
	for (struct dirent *e; (e = readdir(d));)
		n += atoi(e->d_name) < MOST_FDS;
	closedir(d);
	return n;
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return x < y ? -1 : x > y;
}

static void twice(size_t n)
{
	qsort(cookies, n, sizeof *cookies, by_value);
	for (size_t i = 1; i < n; i++)
		if (cookies[i] == cookies[i - 1])
			fail("one socket was given twice", (long)cookies[i]);
}

int main(int argc, char **argv)
{
	if (argc != 4)
		fail("usage: storm CALLS THREADS restart|interrupt", argc);
	size_t threads = strtoul(argv[2], NULL, 10);
	restart = !strcmp(argv[3], "restart");
	if (threads < 1 || threads > MOST_THREADS)
		fail("so many threads are too many or too few", (long)threads);
	per_thread = strtoul(argv[1], NULL, 10) / threads;
	size_t calls = per_thread * threads;
	cookies = calloc(calls, sizeof *cookies);
	if (!cookies)
		die("calloc");
	struct rlimit files = { 0, 0 };
	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max; /* room for high numbers */
	setrlimit(RLIMIT_NOFILE, &files);
	int before = open_fds();

	struct sigaction act = { .sa_handler = count, .sa_flags = restart ? SA_RESTART : 0 };
	if (sigaction(SIGALRM, &act, NULL))
		die("sigaction");
	pthread_t id[MOST_THREADS];
	for (size_t i = 0; i < threads; i++)
		if (pthread_create(&id[i], NULL, work, &cookies[i * per_thread]))
			fail("pthread_create", (long)i);
	/* The signals are for those that make the calls. */
	sigset_t alarm;
	sigemptyset(&alarm);
	sigaddset(&alarm, SIGALRM);
	pthread_sigmask(SIG_BLOCK, &alarm, NULL);
	struct itimerval every = { { 0, PERIOD_US }, { 0, PERIOD_US } }, never = { { 0, 0 }, { 0, 0 } };
	if (setitimer(ITIMER_REAL, &every, NULL))
		die("setitimer");
	for (size_t i = 0; i < threads; i++)
		pthread_join(id[i], NULL);
	setitimer(ITIMER_REAL, &never, NULL);

	twice(calls);
	int after = open_fds();
	if (after != before)
		fail("descriptors that no call returned are open", after - before);
	printf("%zu sockets, %ld calls interrupted, %ld signals\n", calls, atomic_load(&interrupted), atomic_load(&signals));
	return 0;
}
