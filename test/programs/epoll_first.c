/*
 * Registers a socket with epoll, edge-triggered, before it connects without
 * blocking; then dups it, forks, writes through the dup in the parent and reads
 * in the child. nginx, Netty and others register before connect: whoever swaps
 * the file under the descriptor loses the registration.
 *
 * epoll_first HOST PORT, against an echo; prints "ok" and exits 0.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { TOTAL = 4 << 20, CHUNK = 16 << 10, WAIT_MS = 15000 };

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static void fail(const char *what)
{
	fprintf(stderr, "epoll_first: %s\n", what);
	exit(1);
}

/* The byte at offset i of the data. */
static unsigned char pattern(size_t i)
{
	return (unsigned char)(i * 31 + (i >> 8) * 7);
}

/* Waits for an edge and returns its events; the data must be the one registered. */
static unsigned wait_edge(int ep, unsigned tag, const char *what)
{
	struct epoll_event ev;
	int n = epoll_wait(ep, &ev, 1, WAIT_MS);
	if (n < 0)
		die("epoll_wait");
	if (n == 0)
		fail(what);
	if (ev.data.u32 != tag)
		fail("an event for another registration");
	return ev.events;
}

/* Child: reads all of it by edges and checks every byte. */
static void read_all(int ep, int fd, unsigned tag)
{
	static unsigned char buf[CHUNK];
	size_t got = 0;
	for (;;) {
		ssize_t n = read(fd, buf, sizeof buf);
		if (n == 0)
			break;
		if (n < 0 && errno == EAGAIN) {
			wait_edge(ep, tag, "no edge while data was due");
			continue;
		}
		if (n < 0)
			die("read");
		for (ssize_t i = 0; i < n; i++, got++)
			if (buf[i] != pattern(got))
				fail("another byte than was sent");
	}
	if (got != TOTAL)
		fail("not everything came back");
}

/* Parent: writes all of it through the dup, then ends its direction. */
static void write_all(int fd)
{
	static unsigned char buf[CHUNK];
	for (size_t sent = 0; sent < TOTAL;) {
		size_t want = TOTAL - sent < CHUNK ? TOTAL - sent : CHUNK;
		for (size_t i = 0; i < want; i++)
			buf[i] = pattern(sent + i);
		ssize_t n = write(fd, buf, want);
		if (n < 0 && errno == EAGAIN) {
			struct pollfd p = { .fd = fd, .events = POLLOUT };
			if (poll(&p, 1, WAIT_MS) <= 0)
				fail("the socket does not become writable again");
			continue;
		}
		if (n < 0)
			die("write");
		sent += (size_t)n;
	}
	if (shutdown(fd, SHUT_WR) < 0)
		die("shutdown");
}

int main(int argc, char **argv)
{
	if (argc != 3)
		fail("usage: epoll_first HOST PORT");
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV };
	struct addrinfo *to;
	if (getaddrinfo(argv[1], argv[2], &hints, &to) != 0)
		fail("bad address");

	const unsigned tag = 4711;
	int fd = socket(to->ai_family, SOCK_STREAM | SOCK_NONBLOCK, 0);
	if (fd < 0)
		die("socket");
	int ep = epoll_create1(0);
	struct epoll_event want = { .events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.u32 = tag };
	if (epoll_ctl(ep, EPOLL_CTL_ADD, fd, &want) < 0)
		die("epoll_ctl");

	/* A fresh TCP socket is at once reported as writable and hung up. */
	unsigned fresh = wait_edge(ep, tag, "no first edge on a fresh socket");
	if (fresh != (EPOLLOUT | EPOLLHUP))
		fprintf(stderr, "epoll_first: note: a fresh socket shows events %#x\n", fresh);

	if (connect(fd, to->ai_addr, to->ai_addrlen) < 0) {
		if (errno != EINPROGRESS)
			die("connect");
		unsigned events;
		do
			events = wait_edge(ep, tag, "no edge for the connect");
		while (!(events & EPOLLOUT));
	}
	int err;
	socklen_t len = sizeof err;
	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len) < 0)
		die("getsockopt");
	if (err) {
		errno = err;
		die("connect, by SO_ERROR");
	}

	int copy = dup(fd);
	if (copy < 0)
		die("dup");
	fflush(NULL);
	pid_t child = fork();
	if (child < 0)
		die("fork");
	if (child == 0) {
		close(copy);
		read_all(ep, fd, tag);
		exit(0);
	}
	close(fd); /* the child and the dup keep the file, and its registration */
	write_all(copy);
	int status;
	if (waitpid(child, &status, 0) < 0)
		die("waitpid");
	if (status != 0)
		fail("the child failed");
	puts("ok");
	return 0;
}
