/*
 * sendmsg of two iovecs on a non-blocking socket that is full again and again:
 * no byte may be lost, doubled or out of place.
 *
 *   iovec server PORT BYTES   reads slowly at first, checks every byte
 *   iovec client PORT BYTES   writes; goes on after a short write where it ended
 *
 * The stream is 32-bit sequence numbers, so that each byte tells its place.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { FIRST = 3001, SECOND = 61007 }; /* odd on purpose */

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static unsigned char byte_at(uint64_t offset)
{
	return (uint32_t)(offset / 4) >> (offset % 4 * 8);
}

static struct sockaddr_in address(const char *port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(atoi(port)) };
	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	return a;
}

static int server(const char *port, uint64_t bytes)
{
	struct sockaddr_in a = address(port);
	int one = 1, l = socket(AF_INET, SOCK_STREAM, 0);
	setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (bind(l, (void *)&a, sizeof a) || listen(l, 5))
		die("listen");
	puts("listening");
	fflush(stdout);
	int fd = accept(l, NULL, NULL);
	if (fd < 0)
		die("accept");
	uint64_t at = 0;
	static unsigned char buf[65536];
	for (int reads = 0;; reads++) {
		if (reads < 200)
			poll(NULL, 0, 5); /* the slow reader is the test's subject */
		ssize_t n = read(fd, buf, reads < 200 ? 4096 : sizeof buf);
		if (n < 0)
			die("read");
		if (n == 0)
			break;
		for (ssize_t i = 0; i < n; i++, at++)
			if (buf[i] != byte_at(at)) {
				printf("byte %llu is wrong\n", (unsigned long long)at);
				return 1;
			}
	}
	printf("%s: %llu bytes in order\n", at == bytes ? "all" : "WRONG COUNT", (unsigned long long)at);
	return at != bytes;
}

static int client(const char *port, uint64_t bytes)
{
	struct sockaddr_in a = address(port);
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	if (connect(fd, (void *)&a, sizeof a))
		die("connect");
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	static unsigned char one[FIRST], two[SECOND];
	uint64_t at = 0, again = 0, shorts = 0;
	while (at < bytes) {
		size_t len1 = bytes - at < FIRST ? bytes - at : FIRST;
		size_t len2 = bytes - at - len1 < SECOND ? bytes - at - len1 : SECOND;
		for (size_t i = 0; i < len1; i++)
			one[i] = byte_at(at + i);
		for (size_t i = 0; i < len2; i++)
			two[i] = byte_at(at + len1 + i);
		struct iovec v[2] = { { one, len1 }, { two, len2 } };
		struct msghdr m = { .msg_iov = v, .msg_iovlen = 2 };
		ssize_t n = sendmsg(fd, &m, MSG_NOSIGNAL);
		if (n < 0) {
			if (errno != EAGAIN)
				die("sendmsg");
			again++;
			struct pollfd p = { .fd = fd, .events = POLLOUT };
			if (poll(&p, 1, 20000) != 1)
				die("poll");
			continue;
		}
		shorts += (size_t)n < len1 + len2;
		at += n;
	}
	if (close(fd))
		die("close");
	printf("full: %s, short writes: %llu\n", again ? "yes" : "no", (unsigned long long)shorts);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc != 4)
		return 2;
	uint64_t bytes = strtoull(argv[3], NULL, 10);
	return strcmp(argv[1], "server") ? client(argv[2], bytes) : server(argv[2], bytes);
}
