/*
 * load makes traffic on plain sockets, with blocking calls and as few of them
 * as will do, so that what is measured is what carries the bytes. Every byte is
 * counted on both sides, and its place in the stream is checked.
 *
 *	load serve | serve-one | serve-hold
 *	load bulk ADDRESS PORT up|down STREAMS SECONDS WRITE [full]
 *	load ping ADDRESS PORT SIZE SECONDS
 *	load connects ADDRESS PORT SECONDS [spread]
 *	load hold ADDRESS PORT NUMBER [spread]
 *
 * LOAD_CONGESTION in the environment is the congestion control of clients.
 * Clients print lines of a name and a number. Times are in ns.
 */
#include "load.h"

unsigned char pattern[PERIOD + MOST];

void die(const char *what)
{
	fprintf(stderr, "load: %s: %s\n", what, errno ? strerror(errno) : "not as expected");
	exit(1);
}

uint64_t now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ULL + t.tv_nsec;
}

uint64_t cpu_used(void)
{
	struct timespec t;
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return t.tv_sec * 1000000000ULL + t.tv_nsec;
}

void make_pattern(void)
{
	uint64_t x = 88172645463325252ULL;
	for (int i = 0; i < PERIOD; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		pattern[i] = x >> 32;
	}
	for (int i = 0; i < MOST; i++)
		pattern[PERIOD + i] = pattern[i % PERIOD];
}

void write_all(int fd, const void *data, size_t n)
{
	for (size_t done = 0; done < n;) {
		ssize_t w = write(fd, (const char *)data + done, n - done);
		if (w < 0)
			die("write");
		done += w;
	}
}

int read_all(int fd, void *data, size_t n)
{
	for (size_t done = 0; done < n;) {
		ssize_t r = read(fd, (char *)data + done, n - done);
		if (r < 0)
			die("read");
		if (r == 0) {
			if (done == 0)
				return 0;
			errno = 0;
			die("end of file inside a message");
		}
		done += r;
	}
	return 1;
}

uint64_t pour(int fd, uint64_t offset, uint32_t size, uint64_t until)
{
	uint64_t sent = 0;
	do {
		write_all(fd, pattern + (offset + sent) % PERIOD, size);
		sent += size;
	} while (now() < until);
	return sent;
}

uint64_t drain(int fd, void *buffer, uint64_t offset, int full, int *bad)
{
	uint64_t got = 0;
	*bad = 0;
	for (;;) {
		ssize_t n = read(fd, buffer, 1 << 17);
		if (n < 0)
			die("read");
		if (n == 0)
			return got;
		size_t look = full || n < SAMPLE ? (size_t)n : SAMPLE;
		if (memcmp(buffer, pattern + (offset + got) % PERIOD, look) != 0)
			*bad = 1;
		got += n;
	}
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	make_pattern();
	if (strcmp(what, "serve") == 0)
		serve();
	else if (strcmp(what, "serve-one") == 0)
		serve_one();
	else if (strcmp(what, "serve-hold") == 0)
		serve_hold();
	else if (strcmp(what, "bulk") == 0 && argc >= 8)
		bulk(argc - 2, argv + 2);
	else if (strcmp(what, "ping") == 0 && argc == 6)
		ping(argc - 2, argv + 2);
	else if (strcmp(what, "connects") == 0 && argc >= 5)
		connects(argc - 2, argv + 2);
	else if (strcmp(what, "hold") == 0 && argc >= 5)
		hold(argc - 2, argv + 2);
	else {
		fprintf(stderr, "load: unknown command or too few arguments: %s\n", what);
		return 2;
	}
	return 0;
}
