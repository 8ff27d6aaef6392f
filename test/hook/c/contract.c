/*
 * The hook library as upstream zpoline's loader has it: dlmopen(3) into a
 * namespace of its own, __hook_init(0, &hook, bitmap, bitmap), and from then on
 * hook(nr, a1, ..., a6) in the place of each system call. With -DLINKED it is a
 * part of this program instead, so that sanitizers look into it.
 *
 * No code is rewritten: what goes through hook() is the library's, and what goes
 * through the kernel shows what it did.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

typedef long (*hook_fn)(long nr, long a1, long a2, long a3, long a4, long a5, long a6);

#define CHECK(what)                                                                  \
	do {                                                                         \
		if (!(what)) {                                                       \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #what);   \
			exit(1);                                                     \
		}                                                                    \
	} while (0)

static long passed_on;		/* calls that came to the hook before the library's */
static long last[7];		/* the last one of them that is not the library's own */
static __thread int of_library; /* it has been asked for something of the broker's */

/* What upstream's enter_syscall is: the kernel, with the call as the caller made it. */
static long enter(long nr, long a1, long a2, long a3, long a4, long a5, long a6)
{
	register long r10 __asm__("r10") = a4, r8 __asm__("r8") = a5, r9 __asm__("r9") = a6;
	long r;

	__atomic_fetch_add(&passed_on, 1, __ATOMIC_RELAXED);
	if (!of_library)
		memcpy(last, (long[]){ nr, a1, a2, a3, a4, a5, a6 }, sizeof last);
	__asm__ volatile("syscall" : "=a"(r) : "a"(nr), "D"(a1), "S"(a2), "d"(a3), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
	return r;
}

static hook_fn hook = enter;

#define CALL(...) CALL_(__VA_ARGS__, 0, 0, 0, 0, 0, 0)
#define CALL_(nr, a, b, c, d, e, f, ...) call(nr, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))

/* One call of the program. errno is the program's: a hook leaves it alone. */
static long call(long nr, long a1, long a2, long a3, long a4, long a5, long a6)
{
	long r;

	errno = 4711;
	of_library = 1;
	r = hook(nr, a1, a2, a3, a4, a5, a6);
	of_library = 0;
	CHECK(errno == 4711);
	return r;
}

static void load(const char *path)
{
	static char bitmap[2][8];
	int (*init)(long, ...);
#ifdef LINKED
	extern int __hook_init(long, void *);

	(void)path;
	init = (int (*)(long, ...))__hook_init;
#else
	void *library = dlmopen(LM_ID_NEWLM, path, RTLD_NOW | RTLD_LOCAL);

	if (!library)
		fprintf(stderr, "%s\n", dlerror());
	CHECK(library);
	*(void **)&init = dlsym(library, "__hook_init");
	CHECK(init);
#endif
	CHECK(init(0, &hook, bitmap[0], bitmap[1]) == 0);
	CHECK(hook != enter);
	CHECK(passed_on > 0); /* it has said hello, by the hook that it found */
}

/* Whatever is not the broker's goes on as it came. */
static void others(void)
{
	long before = passed_on;
	int p[2];

	CHECK(hook(SYS_getppid, 1, 2, 3, 4, 5, 6) == getppid());
	CHECK(passed_on == before + 1);
	CHECK(memcmp(last, (long[]){ SYS_getppid, 1, 2, 3, 4, 5, 6 }, sizeof last) == 0);
	CHECK(hook(SYS_socket, AF_UNIX, SOCK_STREAM, 4242, 0, 0, 0) == -EPROTONOSUPPORT);
	CHECK(passed_on == before + 2 && last[3] == 4242);
	CHECK(hook(-1, 0, 0, 0, 0, 0, 0) == -ENOSYS);
	CHECK(hook(SYS_io_uring_setup, 8, 0, 0, 0, 0, 0) == -ENOSYS && passed_on == before + 3);
	CHECK(CALL(SYS_pipe2, p, 0) == 0);
	CHECK(CALL(SYS_setsockopt, p[0], SOL_SOCKET, SO_REUSEADDR, &p, 4) == -ENOTSOCK);
	CHECK(CALL(SYS_listen, 9999, 1) == -EBADF);
	close(p[0]);
	close(p[1]);
}

static int tcp(void)
{
	int domain = 0;
	socklen_t n = sizeof domain;
	long fd = CALL(SYS_socket, AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	CHECK(fd >= 0);
	CHECK(getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &n) == 0 && domain == AF_UNIX);
	CHECK(CALL(SYS_getsockopt, fd, SOL_SOCKET, SO_DOMAIN, &domain, &n) == 0 && domain == AF_INET);
	return fd;
}

static int listening(struct sockaddr_in *at)
{
	socklen_t n = sizeof *at;
	int l = tcp(), one = 1;

	*at = (struct sockaddr_in){ .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	CHECK(CALL(SYS_setsockopt, l, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) == 0);
	CHECK(CALL(SYS_bind, l, at, sizeof *at) == 0);
	CHECK(CALL(SYS_listen, l, 1000) == 0);
	CHECK(CALL(SYS_getsockname, l, at, &n) == 0 && n == sizeof *at && at->sin_port != 0);
	return l;
}

static void *nowhere;

/* Each call once, and with memory that is not there. */
static void one_connection(void)
{
	struct sockaddr_in at, from, back;
	socklen_t n = sizeof from;
	int l = listening(&at), c = tcp(), v = -1, left;
	char b[4];
	long a;

	CHECK(CALL(SYS_connect, c, nowhere, sizeof at) == -EFAULT);
	CHECK(CALL(SYS_connect, c, &at, sizeof at) == 0);
	CHECK(CALL(SYS_connect, c, &at, sizeof at) == -EISCONN);
	a = CALL(SYS_accept4, l, &from, &n, SOCK_CLOEXEC | SOCK_NONBLOCK);
	CHECK(a >= 0 && n == sizeof from);
	n = sizeof back;
	CHECK(CALL(SYS_getsockname, c, &back, &n) == 0 && memcmp(&from, &back, sizeof back) == 0);
	CHECK(CALL(SYS_getpeername, c, &back, &n) == 0 && memcmp(&at, &back, sizeof back) == 0);
	CHECK(CALL(SYS_getpeername, c, nowhere, &n) == -EFAULT);
	CHECK(CALL(SYS_getpeername, c, &back, nowhere) == -EFAULT);
	v = 1;
	CHECK(CALL(SYS_setsockopt, c, IPPROTO_TCP, TCP_NODELAY, &v, sizeof v) == 0);
	CHECK(CALL(SYS_setsockopt, c, IPPROTO_TCP, TCP_NODELAY, nowhere, sizeof v) == -EFAULT);
	v = 0, n = sizeof v;
	CHECK(CALL(SYS_getsockopt, c, IPPROTO_TCP, TCP_NODELAY, &v, &n) == 0 && v == 1);
	CHECK(CALL(SYS_getsockopt, c, SOL_SOCKET, SO_ERROR, &v, &n) == 0 && v == 0);
	CHECK(write(c, "ping", 4) == 4);
	CHECK(poll(&(struct pollfd){ .fd = a, .events = POLLIN }, 1, 20000) == 1);
	CHECK(read(a, b, sizeof b) == 4 && memcmp(b, "ping", 4) == 0);
	CHECK(CALL(SYS_ioctl, c, TIOCOUTQ, &left) == 0);
	CHECK(CALL(SYS_shutdown, c, SHUT_WR) == 0);
	CHECK(poll(&(struct pollfd){ .fd = a, .events = POLLIN }, 1, 20000) == 1 && read(a, b, sizeof b) == 0);
	CHECK(CALL(SYS_accept, -1, NULL, NULL) == -EBADF);
	close(a);
	close(c);
	close(l);
}

static sigjmp_buf away;
static void nothing(int s) { (void)s; }
static void leave(int s) { siglongjmp(away, s); }

static void *interrupt(void *main_thread)
{
	char path[64], text[16] = "";
	FILE *f;

	/* Until it waits in recvmsg(2), number 47 (proc_pid_syscall(5)). */
	snprintf(path, sizeof path, "/proc/self/task/%d/syscall", getpid());
	while (strncmp(text, "47 ", 3) != 0) {
		if ((f = fopen(path, "r"))) {
			if (!fgets(text, sizeof text, f))
				*text = 0;
			fclose(f);
		}
		sched_yield();
	}
	pthread_kill(*(pthread_t *)main_thread, SIGUSR1);
	return NULL;
}

/* Signals take the program out of its call, one way and the other. */
static void signals(void)
{
	struct sigaction sa = { .sa_handler = nothing };
	struct sockaddr_in at;
	int l = listening(&at), c;
	pthread_t self = pthread_self(), other;
	long a;

	sigaction(SIGUSR1, &sa, NULL);
	CHECK(pthread_create(&other, NULL, interrupt, &self) == 0);
	CHECK(CALL(SYS_accept, l, NULL, NULL) == -EINTR);
	pthread_join(other, NULL);
	sa.sa_handler = leave;
	sigaction(SIGUSR1, &sa, NULL);
	if (sigsetjmp(away, 1) == 0) {
		CHECK(pthread_create(&other, NULL, interrupt, &self) == 0);
		CALL(SYS_accept, l, NULL, NULL);
		CHECK(!"accept returned");
	}
	of_library = 0;
	pthread_join(other, NULL);
	c = tcp(); /* nothing of the call that was left is in the way */
	CHECK(CALL(SYS_connect, c, &at, sizeof at) == 0);
	a = CALL(SYS_accept, l, NULL, NULL);
	CHECK(a >= 0);
	close(a);
	close(c);
	close(l);
}

static int crowded;

static void *waits(void *unused)
{
	long a = CALL(SYS_accept, crowded, NULL, NULL);

	CHECK(a >= 0);
	close(a);
	return unused;
}

/* More calls at a time than connections that last: 128 (hook_slots.c). */
static void crowd(void)
{
	enum { MANY = 140 };
	pthread_t t[MANY];
	struct sockaddr_in at;

	crowded = listening(&at);
	for (int i = 0; i < MANY; i++)
		CHECK(pthread_create(&t[i], NULL, waits, NULL) == 0);
	for (int i = 0; i < MANY; i++) {
		int c = tcp();

		CHECK(CALL(SYS_connect, c, &at, sizeof at) == 0);
		close(c);
	}
	for (int i = 0; i < MANY; i++)
		pthread_join(t[i], NULL);
	close(crowded);
}

/* Children have connections of their own, with one broker. */
static void children(void)
{
	for (int i = 0; i < 20; i++) {
		int st = -1;
		pid_t p = fork();

		if (p == 0) {
			one_connection();
			_exit(0);
		}
		CHECK(waitpid(p, &st, 0) == p && st == 0);
	}
	close(tcp());
}

int main(int argc, char **argv)
{
	const struct rlimit files = { 8192, 8192 };

	setrlimit(RLIMIT_NOFILE, &files); /* it may be less already */
	load(argc > 1 ? argv[1] : NULL);
	nowhere = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	others();
	one_connection();
	signals();
	children();
	crowd();
	for (int fd = 3; fd < 4200; fd++) /* as daemons do */
		close(fd);
	one_connection();
	puts("ok");
	return 0;
}
