/*
 * Times system calls on TCP sockets. argv[1] is how often each call is made,
 * argv[2], if given, the only one to make.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static int tcp, conn; /* an unconnected socket, a connected one */
static struct sockaddr_in to;

static void prepare(void)
{
	tcp = socket(AF_INET, SOCK_STREAM, 0);
	check(tcp < 0, "socket");
}

static void finish(void) { close(tcp); }

static long do_socket(void)
{
	tcp = socket(AF_INET, SOCK_STREAM, 0);
	return tcp < 0 ? -1 : 0;
}

static long do_bind(void)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	return bind(tcp, (struct sockaddr *)&a, sizeof a);
}

static long do_listen(void) { return listen(tcp, 8); }

static long do_setsockopt(void)
{
	int one = 1;
	return setsockopt(conn, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

static long do_getsockopt(void)
{
	int v;
	socklen_t n = sizeof v;
	return getsockopt(conn, IPPROTO_TCP, TCP_NODELAY, &v, &n);
}

static long do_so_error(void)
{
	int v;
	socklen_t n = sizeof v;
	return getsockopt(conn, SOL_SOCKET, SO_ERROR, &v, &n);
}

static long do_keepalive(void)
{
	int one = 1;
	return setsockopt(conn, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
}

static long do_reuseaddr(void)
{
	int one = 1;
	return setsockopt(tcp, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
}

static long do_getsockname(void)
{
	struct sockaddr_in a;
	socklen_t n = sizeof a;
	return getsockname(conn, (struct sockaddr *)&a, &n);
}

static long do_getpeername(void)
{
	struct sockaddr_in a;
	socklen_t n = sizeof a;
	return getpeername(conn, (struct sockaddr *)&a, &n);
}

static long do_getpid(void) { return syscall(SYS_getpid) < 0 ? -1 : 0; }

static long do_udp(void)
{
	tcp = socket(AF_INET, SOCK_DGRAM, 0);
	return tcp < 0 ? -1 : 0;
}

static const struct call {
	const char *name;
	void (*before)(void);
	long (*call)(void);
	void (*after)(void);
} calls[] = {
	{"socket", nothing, do_socket, finish},
	{"bind", prepare, do_bind, finish},
	{"listen", prepare, do_listen, finish},
	{"setsockopt_SO_REUSEADDR", prepare, do_reuseaddr, finish},
	{"setsockopt_SO_KEEPALIVE", nothing, do_keepalive, nothing},
	{"setsockopt_TCP_NODELAY", nothing, do_setsockopt, nothing},
	{"getsockopt_TCP_NODELAY", nothing, do_getsockopt, nothing},
	{"getsockopt_SO_ERROR", nothing, do_so_error, nothing},
	{"getsockname", nothing, do_getsockname, nothing},
	{"getpeername", nothing, do_getpeername, nothing},
	{"socket_UDP_not_trapped", nothing, do_udp, finish},
	{"getpid_not_trapped", nothing, do_getpid, nothing},
};

/* A connection of ours with ourselves. */
static void connect_both(void)
{
	int l = socket(AF_INET, SOCK_STREAM, 0);
	socklen_t n = sizeof to;
	to.sin_family = AF_INET;
	to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	check(bind(l, (struct sockaddr *)&to, sizeof to) || listen(l, 1), "listen");
	check(getsockname(l, (struct sockaddr *)&to, &n), "getsockname");
	conn = socket(AF_INET, SOCK_STREAM, 0);
	check(connect(conn, (struct sockaddr *)&to, sizeof to), "connect");
	check(accept(l, NULL, NULL) < 0, "accept");
	close(l);
}

/* The zpoline loader changes code only after 1,000 calls where page 0 can be read
 * (docs/zpoline.md); what the first ones cost is for bench/zpoline to tell. */
static void warm_up(void)
{
	for (int i = 0; i < 1500; i++)
		do_getpid();
}

int main(int argc, char **argv)
{
	int times = argc > 1 ? atoi(argv[1]) : 0;
	if (times < 100) {
		fprintf(stderr, "usage: %s TIMES [CALL] (at least 100 times)\n", argv[0]);
		return 2;
	}
	warm_up();
	connect_both();
	for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
		if (argc < 3 || strcmp(argv[2], calls[i].name) == 0)
			measure(calls[i].name, times, calls[i].before, calls[i].call, calls[i].after);
	return 0;
}
