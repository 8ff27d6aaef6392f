/*
 * Calls the socket functions with bad pointers and lengths and prints what each
 * returns, one line a call. The output under poemq-launch must be the kernel's
 * own. Nothing that differs between runs (ports, descriptors) is printed.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

static const char *state = "";

/* Prints "state: call = result". Raw system calls: no libc in between. */
static long show(const char *call, long r)
{
	if (r < 0)
		printf("%s: %s = %s\n", state, call, strerrorname_np(errno));
	else
		printf("%s: %s = ok\n", state, call);
	return r;
}

#define SHOW(...) show(#__VA_ARGS__, syscall(__VA_ARGS__))

static char *nowhere;		   /* never mapped readable or writable */
static char *readonly;		   /* readable only */
static char *edge;		   /* the last 8 bytes before an unmapped page */
static struct sockaddr_in any;	   /* 127.0.0.1:0 */
static struct sockaddr_in6 any6;   /* ::1, port 0 */
static struct sockaddr_un un_name; /* another family */

static void set_up(void)
{
	long page = sysconf(_SC_PAGESIZE);
	nowhere = mmap(NULL, page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	readonly = mmap(NULL, page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *two = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (nowhere == MAP_FAILED || readonly == MAP_FAILED || two == MAP_FAILED)
		exit(1);
	munmap(two + page, page);
	edge = two + page - 8;
	*(uint16_t *)edge = AF_INET;
	any.sin_family = AF_INET;
	any.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	any6.sin6_family = AF_INET6;
	any6.sin6_addr = in6addr_loopback;
	un_name.sun_family = AF_UNIX;
	strcpy(un_name.sun_path, "nowhere");
}

/* connect and bind read an address. */
static void addresses_in(int s)
{
	SHOW(SYS_bind, s, NULL, 16);
	SHOW(SYS_bind, s, nowhere, 16);
	SHOW(SYS_bind, s, edge, 16);
	SHOW(SYS_bind, s, &any, 0);
	SHOW(SYS_bind, s, &any, 1);
	SHOW(SYS_bind, s, &any, 2);
	SHOW(SYS_bind, s, &any, 15);
	SHOW(SYS_bind, s, &any, -1);
	SHOW(SYS_bind, s, &any, 129);
	SHOW(SYS_bind, s, &un_name, sizeof un_name);
	SHOW(SYS_bind, -1, &any, 16);
	SHOW(SYS_connect, s, NULL, 16);
	SHOW(SYS_connect, s, nowhere, 16);
	SHOW(SYS_connect, s, edge, 16);
	SHOW(SYS_connect, s, &any, 0);
	SHOW(SYS_connect, s, &any, 1);
	SHOW(SYS_connect, s, &any, 2);
	SHOW(SYS_connect, s, &any, 15);
	SHOW(SYS_connect, s, &any, -1);
	SHOW(SYS_connect, s, &any, 129);
	SHOW(SYS_connect, s, NULL, 0);
	SHOW(SYS_connect, s, &un_name, sizeof un_name);
	SHOW(SYS_connect, -1, &any, 16);
}

/* How much of a buffer getsockname writes to: up to the last byte that changes in
   one of two fillings, for a port can be like either. */
static size_t bytes_written(int s, int size)
{
	static const unsigned char fill[] = { 0xee, 0x11 };
	size_t most = 0;

	for (size_t i = 0; i < sizeof fill; i++) {
		unsigned char got[sizeof(struct sockaddr_storage)];
		socklen_t len = (socklen_t)size;
		size_t n = sizeof got;

		memset(got, fill[i], sizeof got);
		syscall(SYS_getsockname, s, got, &len);
		while (n > 0 && got[n - 1] == fill[i])
			n--;
		if (n > most)
			most = n;
	}
	return most;
}

/* getsockname and getpeername write an address and its length. */
static void addresses_out(int s)
{
	struct sockaddr_storage got;
	socklen_t len;
	static const int lens[] = { 0, 1, 2, 4, 8, 15, 16, 28, 128, 1000, -1 };

	SHOW(SYS_getsockname, s, NULL, NULL);
	SHOW(SYS_getsockname, s, &got, NULL);
	SHOW(SYS_getsockname, s, &got, nowhere);
	SHOW(SYS_getsockname, s, &got, readonly);
	len = sizeof got;
	SHOW(SYS_getsockname, s, NULL, &len);
	len = sizeof got;
	SHOW(SYS_getsockname, s, nowhere, &len);
	len = sizeof got;
	SHOW(SYS_getsockname, s, readonly, &len);
	len = sizeof got;
	SHOW(SYS_getpeername, s, NULL, &len);
	SHOW(SYS_getpeername, s, &got, NULL);
	for (size_t i = 0; i < sizeof lens / sizeof *lens; i++) {
		char call[64];
		size_t written = bytes_written(s, lens[i]);

		memset(&got, 0xee, sizeof got);
		len = (socklen_t)lens[i];
		snprintf(call, sizeof call, "getsockname, length %d", lens[i]);
		show(call, syscall(SYS_getsockname, s, &got, &len));
		printf("%s:   length %d, family %d, %zu bytes written\n", state, (int)len,
		       written >= 2 ? got.ss_family : -1, written);
		len = (socklen_t)lens[i];
		snprintf(call, sizeof call, "getpeername, length %d", lens[i]);
		show(call, syscall(SYS_getpeername, s, &got, &len));
		printf("%s:   length %d\n", state, (int)len);
	}
}

static void one_option(int s, const char *name, int level, int option)
{
	static const int lens[] = { 0, 1, 2, 4, 8, -1 };
	char call[64];
	int value;
	socklen_t len;

	for (size_t i = 0; i < sizeof lens / sizeof *lens; i++) {
		value = -1;
		len = (socklen_t)lens[i];
		snprintf(call, sizeof call, "getsockopt %s, length %d", name, lens[i]);
		if (show(call, syscall(SYS_getsockopt, s, level, option, &value, &len)) == 0)
			printf("%s:   value %d, length %d\n", state, value, (int)len);
	}
	snprintf(call, sizeof call, "getsockopt %s, no length", name);
	show(call, syscall(SYS_getsockopt, s, level, option, &value, NULL));
	len = sizeof value;
	snprintf(call, sizeof call, "getsockopt %s, no value", name);
	show(call, syscall(SYS_getsockopt, s, level, option, NULL, &len));
	len = sizeof value;
	snprintf(call, sizeof call, "getsockopt %s, bad value", name);
	show(call, syscall(SYS_getsockopt, s, level, option, nowhere, &len));
	snprintf(call, sizeof call, "getsockopt %s, bad length", name);
	show(call, syscall(SYS_getsockopt, s, level, option, &value, nowhere));
	value = 1;
	snprintf(call, sizeof call, "setsockopt %s, short", name);
	show(call, syscall(SYS_setsockopt, s, level, option, &value, 1));
	snprintf(call, sizeof call, "setsockopt %s, negative", name);
	show(call, syscall(SYS_setsockopt, s, level, option, &value, -1));
	snprintf(call, sizeof call, "setsockopt %s, no value", name);
	show(call, syscall(SYS_setsockopt, s, level, option, NULL, 4));
	snprintf(call, sizeof call, "setsockopt %s, bad value", name);
	show(call, syscall(SYS_setsockopt, s, level, option, nowhere, 4));
}

static void options(int s)
{
	one_option(s, "SO_ERROR", SOL_SOCKET, SO_ERROR);
	one_option(s, "SO_TYPE", SOL_SOCKET, SO_TYPE);
	one_option(s, "SO_DOMAIN", SOL_SOCKET, SO_DOMAIN);
	one_option(s, "SO_PROTOCOL", SOL_SOCKET, SO_PROTOCOL);
	one_option(s, "SO_ACCEPTCONN", SOL_SOCKET, SO_ACCEPTCONN);
	one_option(s, "SO_REUSEADDR", SOL_SOCKET, SO_REUSEADDR);
	one_option(s, "TCP_NODELAY", IPPROTO_TCP, TCP_NODELAY);
}

/* accept with a connection waiting, so that it gets as far as the address. */
static void accepts(int l, const struct sockaddr_in *to)
{
	struct sockaddr_storage got;
	socklen_t len = sizeof got;
	struct pollfd waiting = { .fd = l, .events = POLLIN };

	SHOW(SYS_accept, l, NULL, NULL);
	SHOW(SYS_accept, l, nowhere, nowhere);
	SHOW(SYS_accept4, l, NULL, NULL, 12345);
	SHOW(SYS_accept4, l, &got, &len, SOCK_CLOEXEC);
	SHOW(SYS_accept, -1, NULL, NULL);
	for (int way = 0; way < 5; way++) {
		int c = socket(AF_INET, SOCK_STREAM, 0);
		if (connect(c, (const struct sockaddr *)to, sizeof *to) < 0) {
			perror("connect");
			exit(1);
		}
		if (poll(&waiting, 1, 10000) != 1) {
			puts("no connection came");
			exit(1);
		}
		long a = -1;
		len = sizeof got;
		switch (way) {
		case 0: a = SHOW(SYS_accept, l, nowhere, &len); break;
		case 1: a = SHOW(SYS_accept, l, &got, nowhere); break;
		case 2: len = (socklen_t)-1; a = SHOW(SYS_accept, l, &got, &len); break;
		case 3: a = SHOW(SYS_accept, l, NULL, nowhere); break;
		case 4:
			len = 4;
			a = SHOW(SYS_accept, l, &got, &len);
			printf("%s:   length %d\n", state, (int)len);
			break;
		}
		if (a >= 0)
			close((int)a);
		close(c);
	}
}

int main(void)
{
	set_up();

	state = "fresh";
	int s = socket(AF_INET, SOCK_STREAM, 0);
	addresses_in(s);
	addresses_out(s);
	options(s);
	SHOW(SYS_accept, s, NULL, NULL);
	SHOW(SYS_accept, s, nowhere, nowhere);
	close(s);

	state = "fresh inet6";
	s = socket(AF_INET6, SOCK_STREAM, 0);
	SHOW(SYS_bind, s, &any, 16);
	SHOW(SYS_bind, s, &any6, 24);
	SHOW(SYS_bind, s, &any6, 23);
	SHOW(SYS_connect, s, &any6, 23);
	SHOW(SYS_connect, s, &any6, 2);
	addresses_out(s);
	close(s);

	state = "bound";
	s = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	SHOW(SYS_bind, s, &any, 16);
	SHOW(SYS_bind, s, &any, 16);
	SHOW(SYS_bind, s, nowhere, 16);
	addresses_out(s);

	state = "listening";
	SHOW(SYS_listen, s, -1);
	SHOW(SYS_bind, s, &any, 16);
	SHOW(SYS_connect, s, &any, 16);
	addresses_out(s);
	struct sockaddr_in to;
	socklen_t len = sizeof to;
	if (getsockname(s, (struct sockaddr *)&to, &len) < 0)
		return 1;
	accepts(s, &to);

	state = "connected";
	int c = socket(AF_INET, SOCK_STREAM, 0);
	if (connect(c, (struct sockaddr *)&to, sizeof to) < 0) {
		perror("connect");
		return 1;
	}
	SHOW(SYS_connect, c, &to, 16);
	SHOW(SYS_connect, c, nowhere, 16);
	SHOW(SYS_bind, c, &any, 16);
	SHOW(SYS_listen, c, 1);
	SHOW(SYS_accept, c, NULL, NULL);
	addresses_out(c);
	options(c);
	return 0;
}
