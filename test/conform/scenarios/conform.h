/*
 * conform.h - what a scenario needs to tell what the kernel answers.
 *
 * A family file (socket.c, bind.c, ...) holds scenarios:
 *
 *	SCENARIO(twice, ALL, "a second bind is EINVAL") { ... }
 *
 * "prog --list" prints "name families flags", "prog NAME v4|v6|mapped" runs
 * one and prints its transcript on stdout. A scenario makes its own server
 * and client; ports come from bind to 0.
 *
 * A transcript holds what a program can know and nothing that may differ
 * between two runs on the same kernel. Ports become P1, P2 ... in order of
 * appearance (one table for the scenario's whole process tree), descriptors
 * become "fd", and what a thread or a child says is kept back until the
 * scenario joins it, so that the order of lines is the order of the source.
 * Events are waited for, with a deadline; nothing sleeps to let time pass.
 */
#ifndef CONFORM_H
#define CONFORM_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef SO_RCVPRIORITY
#define SO_RCVPRIORITY 82
#endif

#define LIMIT_S 25   /* how long a scenario may take, by alarm() */
#define N(a) (sizeof(a) / sizeof((a)[0]))

/* How long an expected event may take. A scenario in which one is known not to
 * come under poemq sets it to SHORT_MS. */
static int cf_wait_ms = 8000;
#define WAIT_MS cf_wait_ms
#define SHORT_MS 1500

/* ---- scenarios ---------------------------------------------------------- */

enum { V4 = 1, V6 = 2, MAPPED = 4, ALL = 7, INET6 = 6, ONCE = 1, ROOT = 16, HEAVY = 32 };

struct scenario {
	const char *name;
	int flags;
	void (*run)(void);
};

static struct scenario cf_scenarios[128];
static int cf_nscenarios;

#define SCENARIO(name, flags, what)                                                       \
	static void scenario_##name(void);                                                \
	__attribute__((constructor)) static void register_##name(void)                    \
	{                                                                                 \
		cf_scenarios[cf_nscenarios++] = (struct scenario){#name, flags, scenario_##name}; \
	}                                                                                 \
	static void scenario_##name(void)

static int fam;     /* V4, V6 or MAPPED: the family of this run */
static int AF;      /* its socket domain */
static char *const *cf_argv;

/* ---- transcript --------------------------------------------------------- */

/* What one thread or child says; shared memory, so that a fork can fill it. */
struct cf_log {
	size_t len;
	char text[60000];
};

struct cf_shared {
	int lock, nports;
	in_port_t port[512];
	int turn[16]; /* see turn_wait */
};

static struct cf_shared *cf_shared;
static __thread struct cf_log *cf_log; /* NULL: straight to stdout */

static inline void *shared_memory(size_t n)
{
	void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		abort();
	return p;
}

static inline void cf_write(const char *s, size_t n)
{
	if (cf_log) {
		if (n > sizeof cf_log->text - cf_log->len)
			n = sizeof cf_log->text - cf_log->len;
		memcpy(cf_log->text + cf_log->len, s, n);
		cf_log->len += n;
		return;
	}
	while (n > 0) {
		ssize_t w = write(STDOUT_FILENO, s, n);
		if (w < 0 && errno == EINTR)
			continue;
		if (w <= 0)
			abort();
		s += w;
		n -= (size_t)w;
	}
}

/* say prints one line and leaves errno alone. */
__attribute__((format(printf, 1, 2))) static inline void say(const char *fmt, ...)
{
	char line[2048];
	int e = errno;
	va_list ap;
	va_start(ap, fmt);
	int n = vsnprintf(line, sizeof line - 1, fmt, ap);
	va_end(ap);
	if (n > (int)sizeof line - 2)
		n = sizeof line - 2;
	line[n++] = '\n';
	cf_write(line, (size_t)n);
	errno = e;
}

/* die is for set-up that must work in any run. */
#define die(what)                                                                  \
	do {                                                                       \
		say("SET-UP FAILED %s:%d: %s: %s", __FILE__, __LINE__, what, ename(errno)); \
		_exit(99);                                                         \
	} while (0)

#define skip(why)                     \
	do {                          \
		say("SKIP: %s", why); \
		exit(0);              \
	} while (0)

static inline const char *ename(int e)
{
	const char *s = strerrorname_np(e);
	return e == 0 ? "0" : s ? s : "E?";
}

/* R runs a call and prints its source text, result and errno; FD the same for
 * a result that is a descriptor; OK for one whose positive value is not told. */
#define R(call) cf_result(#call, (errno = 0, (long)(call)), 0)
#define FD(call) cf_fd(#call, (errno = 0, (long)(call)))
#define OK(call) cf_result(#call, (errno = 0, (long)(call)), 2)

/* RL is R with a label of its own, for loops. */
#define RL(call, ...) cf_result(label(__VA_ARGS__), (errno = 0, (long)(call)), 0)
#define FDL(call, ...) cf_fd(label(__VA_ARGS__), (errno = 0, (long)(call)))

__attribute__((format(printf, 1, 2))) static inline const char *label(const char *fmt, ...)
{
	static __thread char text[4][256];
	static __thread int next;
	char *s = text[next++ % 4];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(s, sizeof text[0], fmt, ap);
	va_end(ap);
	return s;
}

static inline long cf_result(const char *call, long r, int kind)
{
	int e = errno;
	if (r == -1)
		say("%s = -1 %s", call, ename(e));
	else if (kind == 1 || (kind == 2 && r > 0))
		say("%s = %s", call, kind == 1 ? "fd" : "ok");
	else
		say("%s = %ld", call, r);
	errno = e;
	return r;
}

static inline int cf_fd(const char *call, long r) { return (int)cf_result(call, r, 1); }

/* ---- addresses ---------------------------------------------------------- */

struct addr {
	union {
		struct sockaddr sa;
		struct sockaddr_in in4;
		struct sockaddr_in6 in6;
		struct sockaddr_storage ss;
	};
	socklen_t len;
};

static inline const char *port_name(in_port_t port)
{
	static __thread char name[4][16];
	static __thread int next;
	char *s = name[next++ % 4];
	int i;
	if (port == 0)
		return "0";
	while (__atomic_exchange_n(&cf_shared->lock, 1, __ATOMIC_ACQUIRE))
		sched_yield();
	for (i = 0; i < cf_shared->nports && cf_shared->port[i] != port; i++)
		;
	if (i == cf_shared->nports && i < (int)N(cf_shared->port))
		cf_shared->port[cf_shared->nports++] = port;
	__atomic_store_n(&cf_shared->lock, 0, __ATOMIC_RELEASE);
	snprintf(s, sizeof name[0], "P%d", i + 1);
	return s;
}

static inline struct addr ip4(const char *ip, in_port_t port)
{
	struct addr a = {.in4 = {.sin_family = AF_INET, .sin_port = port}, .len = sizeof a.in4};
	inet_pton(AF_INET, ip, &a.in4.sin_addr);
	return a;
}

static inline struct addr ip6(const char *ip, in_port_t port)
{
	struct addr a = {.in6 = {.sin6_family = AF_INET6, .sin6_port = port}, .len = sizeof a.in6};
	inet_pton(AF_INET6, ip, &a.in6.sin6_addr);
	return a;
}

/* ip gives the address of this run's family; v4 stands for mapped as well.
 * Ports are in network order throughout. */
static inline struct addr ip(const char *v4, const char *v6, in_port_t port)
{
	char mapped[64];
	if (fam == V4)
		return ip4(v4, port);
	if (fam == V6)
		return ip6(v6, port);
	snprintf(mapped, sizeof mapped, "::ffff:%s", v4);
	return ip6(mapped, port);
}

static inline struct addr loop(in_port_t port) { return ip("127.0.0.1", "::1", port); }
static inline struct addr any(in_port_t port)
{
	return fam == V4 ? ip4("0.0.0.0", port) : ip6("::", port);
}
static inline in_port_t port_of(const struct addr *a)
{
	return a->sa.sa_family == AF_INET ? a->in4.sin_port : a->in6.sin6_port;
}

static inline const char *addr_text(const void *sa, socklen_t len)
{
	static __thread char text[4][160];
	static __thread int next;
	char *s = text[next++ % 4], ipt[64];
	const struct sockaddr_in *in4 = sa;
	const struct sockaddr_in6 *in6 = sa;
	sa_family_t f = len >= sizeof f ? in4->sin_family : AF_UNSPEC;
	if (len == 0)
		snprintf(s, sizeof text[0], "(len 0)");
	else if (f == AF_INET && len >= sizeof *in4)
		snprintf(s, sizeof text[0], "%s:%s (len %u)", inet_ntop(f, &in4->sin_addr, ipt, sizeof ipt),
			 port_name(in4->sin_port), len);
	else if (f == AF_INET6 && len >= sizeof *in6)
		snprintf(s, sizeof text[0], "[%s]:%s flow %u scope %u (len %u)",
			 inet_ntop(f, &in6->sin6_addr, ipt, sizeof ipt), port_name(in6->sin6_port),
			 in6->sin6_flowinfo, in6->sin6_scope_id, len);
	else
		snprintf(s, sizeof text[0], "family %u (len %u)", f, len);
	return s;
}

/* name_of gets one of a socket's two names; die on failure is the caller's. */
static inline int name_of(long call, int fd, struct addr *a)
{
	memset(a, 0, sizeof *a);
	a->len = sizeof a->ss;
	return (int)syscall(call, fd, &a->sa, &a->len);
}

static inline struct addr local_of(int fd)
{
	struct addr a;
	if (name_of(SYS_getsockname, fd, &a) < 0)
		die("getsockname");
	return a;
}

static inline void show_names(const char *who, int fd)
{
	struct addr l, p;
	int rl = name_of(SYS_getsockname, fd, &l);
	const char *lt = rl < 0 ? ename(errno) : addr_text(&l.sa, l.len);
	int rp = name_of(SYS_getpeername, fd, &p);
	say("%s: local %s, peer %s", who, lt, rp < 0 ? ename(errno) : addr_text(&p.sa, p.len));
}

/* show_written tells of a buffer of 0xee into which a name was written that
 * had n bytes of room: the bytes that fit are right, nothing else is touched. */
static inline void show_written(const unsigned char *buf, size_t size, int n, const struct addr *want)
{
	size_t fit = n < 0 ? 0 : (size_t)n < want->len ? (size_t)n : want->len, i = fit;
	while (i < size && buf[i] == 0xee)
		i++;
	say("%zu bytes right: %d, the rest untouched: %d", fit, !memcmp(buf, &want->sa, fit), i == size);
}

/* ---- events ------------------------------------------------------------- */

static inline const char *bits_text(unsigned bits)
{
	static const struct { unsigned bit; const char *name; } names[] = {
		{POLLIN, "IN"}, {POLLPRI, "PRI"}, {POLLOUT, "OUT"}, {POLLERR, "ERR"},
		{POLLHUP, "HUP"}, {POLLNVAL, "NVAL"}, {POLLRDNORM, "RDNORM"}, {POLLRDBAND, "RDBAND"},
		{POLLWRNORM, "WRNORM"}, {POLLWRBAND, "WRBAND"}, {POLLRDHUP, "RDHUP"}};
	static __thread char text[2][96];
	static __thread int next;
	char *s = text[next++ % 2];
	s[0] = 0;
	for (size_t i = 0; i < N(names); i++)
		if (bits & names[i].bit)
			sprintf(s + strlen(s), "%s%s", s[0] ? "|" : "", names[i].name);
	return s[0] ? s : "none";
}

#define ALLBITS (POLLIN | POLLPRI | POLLOUT | POLLRDHUP)

static inline unsigned bits_of(int fd)
{
	struct pollfd p = {.fd = fd, .events = ALLBITS};
	return poll(&p, 1, 0) < 0 ? 0xffff : (unsigned)p.revents & 0xffff;
}

static inline void show_bits(const char *who, int fd) { say("%s: poll %s", who, bits_text(bits_of(fd))); }

static inline int64_t now_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000LL + t.tv_nsec / 1000000;
}

/* UNTIL polls a condition that no descriptor reports. */
#define UNTIL(cond)                                                             \
	({                                                                      \
		int64_t cf_end = now_ms() + WAIT_MS;                            \
		int cf_ok;                                                      \
		while (!(cf_ok = !!(cond)) && now_ms() < cf_end)                \
			usleep(500);                                            \
		if (!cf_ok)                                                     \
			say("TIMED OUT waiting for: %s", #cond);                \
		cf_ok;                                                          \
	})

/* await waits until all of want are up and returns all bits that are. */
static inline unsigned await(int fd, unsigned want)
{
	struct pollfd p = {.fd = fd, .events = (short)want};
	int64_t end = now_ms() + WAIT_MS;
	unsigned b;
	while ((b = bits_of(fd), (b & want) != want) && now_ms() < end) {
		if (b & (want | POLLERR | POLLHUP))
			usleep(500); /* poll would return at once */
		else if (poll(&p, 1, 100) < 0 && errno != EINTR)
			break;
	}
	return b;
}

/* wait_bits is await that prints; the bits beside the wanted ones are part of
 * the transcript, so ask for those that come last. */
static inline void wait_bits(const char *who, int fd, unsigned want)
{
	unsigned b = await(fd, want);
	say("%s: poll %s%s", who, bits_text(b), (b & want) == want ? "" : " (TIMED OUT)");
}

/* hears_itself is true when a datagram sent to a arrives: connect(2) alone
 * succeeds before the kernel knows the address as its own. */
static inline int hears_itself(struct addr a)
{
	int fd = socket(a.sa.sa_family, SOCK_DGRAM, 0), ok;
	struct pollfd p = {.fd = fd, .events = POLLIN};
	socklen_t n = a.len;
	*(a.sa.sa_family == AF_INET ? &a.in4.sin_port : &a.in6.sin6_port) = 0;
	ok = bind(fd, &a.sa, a.len) == 0 && getsockname(fd, &a.sa, &n) == 0 &&
	     sendto(fd, "x", 1, 0, &a.sa, n) == 1 && poll(&p, 1, 50) == 1 && recv(fd, &n, 1, 0) == 1;
	close(fd);
	return ok;
}

/* await_route waits until an address just given to an interface can be used,
 * which the kernel lets happen a little later; it asks by UDP. */
static inline void await_route(struct addr a) { UNTIL(hears_itself(a)); }

static inline int so_error(int fd)
{
	int e = -1;
	socklen_t n = sizeof e;
	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &e, &n) < 0)
		return -errno;
	return e;
}
static inline void show_error(const char *who, int fd) { say("%s: SO_ERROR %s", who, ename(so_error(fd))); }

static inline void nonblock(int fd, int on)
{
	int f = fcntl(fd, F_GETFL);
	if (fcntl(fd, F_SETFL, on ? f | O_NONBLOCK : f & ~O_NONBLOCK) < 0)
		die("F_SETFL");
}

static inline int set_int(int fd, int level, int opt, int v) { return setsockopt(fd, level, opt, &v, sizeof v); }
static inline int get_int(int fd, int level, int opt)
{
	int v = -1;
	socklen_t n = sizeof v;
	return getsockopt(fd, level, opt, &v, &n) < 0 ? -1 : v;
}

/* ---- sockets ------------------------------------------------------------ */

static inline int tcp(void)
{
	int fd = socket(AF, SOCK_STREAM, 0);
	if (fd < 0)
		die("socket");
	return fd;
}

/* server_at binds and listens; *a becomes the address to connect to. */
static inline int server_at(struct addr *a, int backlog)
{
	int fd = tcp();
	if (bind(fd, &a->sa, a->len) < 0)
		die("bind");
	*a = local_of(fd);
	if (listen(fd, backlog) < 0)
		die("listen");
	return fd;
}

static inline int server(struct addr *a)
{
	*a = loop(0);
	return server_at(a, 64);
}

static inline int client(const struct addr *a)
{
	int fd = tcp();
	if (connect(fd, &a->sa, a->len) < 0)
		die("connect");
	return fd;
}

struct conn {
	struct addr a; /* the listening socket's */
	int l, c, s;   /* listening, client's, accepted */
};

static inline struct conn conn(void)
{
	struct conn k;
	k.l = server(&k.a);
	k.c = client(&k.a);
	k.s = accept4(k.l, NULL, NULL, SOCK_CLOEXEC);
	if (k.s < 0)
		die("accept");
	return k;
}

/* closed_port is one that refuses: free on every address of both families,
 * and below the ephemeral range, so that nobody is given it in the meantime. */
static inline struct addr closed_port(void)
{
	static unsigned at;
	if (at == 0)
		at = (unsigned)getpid() * 97u;
	for (int i = 0; i < 20000; i++) {
		in_port_t port = htons((uint16_t)(11000 + at++ % 20000));
		struct addr a = ip6("::", port);
		int fd = socket(AF_INET6, SOCK_STREAM, 0), ok = bind(fd, &a.sa, a.len) == 0;
		close(fd);
		if (ok)
			return loop(port);
	}
	die("no free port");
}

static inline unsigned char pattern(uint64_t i) { return (unsigned char)((i * 2654435761u) >> 13); }
static inline uint64_t sum_of(uint64_t h, const void *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		h = (h ^ ((const unsigned char *)p)[i]) * 1099511628211ull;
	return h;
}

/* send_all writes n bytes of the pattern, starting at byte off. */
static inline ssize_t send_all(int fd, size_t n, uint64_t off)
{
	static __thread char buf[65536];
	size_t done = 0;
	while (done < n) {
		size_t m = n - done < sizeof buf ? n - done : sizeof buf;
		for (size_t i = 0; i < m; i++)
			buf[i] = (char)pattern(off + done + i);
		for (size_t at = 0; at < m;) {
			ssize_t w = send(fd, buf + at, m - at, MSG_NOSIGNAL);
			if (w < 0 && errno == EINTR)
				continue;
			if (w < 0)
				return -1;
			at += (size_t)w;
		}
		done += m;
	}
	return (ssize_t)n;
}

/* take reads until n bytes came, EOF or an error, and says which. */
static inline size_t take(const char *who, int fd, size_t n)
{
	static __thread char buf[65536];
	size_t got = 0;
	uint64_t bad = 0;
	const char *end = "";
	while (got < n) {
		ssize_t r = recv(fd, buf, n - got < sizeof buf ? n - got : sizeof buf, 0);
		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0) {
			end = r == 0 ? ", then EOF" : ename(errno);
			break;
		}
		for (ssize_t i = 0; i < r; i++)
			bad += (unsigned char)buf[i] != pattern(got + (size_t)i);
		got += (size_t)r;
	}
	say("%s: read %zu bytes%s%s%s", who, got, bad ? " NOT the pattern" : "", *end == 'E' ? ", then " : "", end);
	return got;
}

/* ---- threads and children ----------------------------------------------- */

struct task {
	struct cf_log *log;
	void (*fn)(void *);
	void *arg;
	pthread_t thread;
	pid_t tid; /* thread or child */
	const char *name;
};

static inline void cf_flush(struct task *t)
{
	char *at = t->log->text, *end = at + t->log->len;
	while (at < end) {
		char *nl = memchr(at, '\n', (size_t)(end - at));
		say("  %s| %.*s", t->name, (int)((nl ? nl : end) - at), at);
		at = nl ? nl + 1 : end;
	}
	munmap(t->log, sizeof *t->log);
}

static inline void *cf_thread(void *p)
{
	struct task *t = p;
	cf_log = t->log;
	__atomic_store_n(&t->tid, (pid_t)syscall(SYS_gettid), __ATOMIC_RELEASE);
	t->fn(t->arg);
	return NULL;
}

/* start and join: a thread whose lines appear at join. */
static inline struct task *start(const char *name, void (*fn)(void *), void *arg)
{
	struct task *t = calloc(1, sizeof *t);
	t->log = shared_memory(sizeof *t->log);
	t->fn = fn, t->arg = arg, t->name = name;
	if (pthread_create(&t->thread, NULL, cf_thread, t))
		die("pthread_create");
	while (!__atomic_load_n(&t->tid, __ATOMIC_ACQUIRE))
		sched_yield();
	return t;
}

static inline void join(struct task *t)
{
	pthread_join(t->thread, NULL);
	cf_flush(t);
	free(t);
}

/* spawn and reap: the same for a forked child, with how it ended. */
static inline struct task *spawn(const char *name, void (*fn)(void *), void *arg)
{
	struct task *t = calloc(1, sizeof *t);
	t->log = shared_memory(sizeof *t->log);
	t->fn = fn, t->arg = arg, t->name = name;
	t->tid = fork();
	if (t->tid < 0)
		die("fork");
	if (t->tid == 0) {
		cf_log = t->log;
		alarm(LIMIT_S);
		fn(arg);
		_exit(0);
	}
	return t;
}

static inline void show_status(const char *who, int st)
{
	if (WIFSIGNALED(st))
		say("%s: killed by SIG%s", who, sigabbrev_np(WTERMSIG(st)));
	else
		say("%s: exit %d", who, WEXITSTATUS(st));
}

static inline void reap(struct task *t)
{
	int st = -1;
	while (waitpid(t->tid, &st, 0) < 0 && errno == EINTR)
		;
	cf_flush(t);
	show_status(t->name, st);
	free(t);
}

/* waits_for tells whether a task in the call "in" is what a program would say is
 * in nr: under the hook library connect and accept wait for the broker's answer. */
static inline int waits_for(long in, long nr)
{
	const char *via = getenv("CONFORM_VIA");
	if (in == nr)
		return 1;
	return via && !strcmp(via, "zpoline") && (nr == SYS_connect || nr == SYS_accept || nr == SYS_accept4) &&
	       (in == SYS_recvmsg || in == SYS_poll);
}

/* blocked_in waits until a task sleeps in one of the given calls. */
static inline int blocked_in(pid_t tid, long nr)
{
	char path[64], text[64];
	int64_t end = now_ms() + WAIT_MS;
	snprintf(path, sizeof path, "/proc/%d/syscall", tid);
	while (now_ms() < end) {
		int fd = open(path, O_RDONLY | O_CLOEXEC);
		ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
		close(fd);
		if (n > 0) {
			text[n] = 0;
			if (text[0] != 'r' && waits_for(atol(text), nr)) {
				usleep(20000); /* on its way into the kernel it looks the same */
				/* What is asked first is answered first: the call is with
				 * whoever answers by now, however busy. */
				close(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
				return 1;
			}
		}
		usleep(300);
	}
	say("TIMED OUT waiting for a task to block in syscall %ld", nr);
	return 0;
}

/* turn_wait and turn_give order the steps of processes: slot i counts up. */
static inline void turn_give(int i) { __atomic_add_fetch(&cf_shared->turn[i], 1, __ATOMIC_SEQ_CST); }
static inline void turn_wait(int i, int n)
{
	UNTIL(__atomic_load_n(&cf_shared->turn[i], __ATOMIC_SEQ_CST) >= n);
}

/* ---- main --------------------------------------------------------------- */

/* A program re-executes itself as "prog --exec NAME FAMILY ARG..." to run
 * what EXEC(NAME) defines; argument i is cf_argv[4 + i]. */
#define EXEC(name, what) SCENARIO(exec_##name, 0, what)

static inline int cf_usage(void)
{
	static const char *const fams[] = {"v4", "v6", "mapped"};
	for (int i = 0; i < cf_nscenarios; i++) {
		struct scenario *s = &cf_scenarios[i];
		if (!(s->flags & ALL))
			continue;
		printf("%s ", s->name);
		for (int f = 0, sep = 0; f < 3; f++)
			if (s->flags & (1 << f))
				printf("%s%s", sep++ ? "," : "", fams[f]);
		printf("%s%s\n", s->flags & ROOT ? " root" : "", s->flags & HEAVY ? " heavy" : "");
	}
	return 0;
}

/* "prog --probe" tells whether its TCP sockets are carried: then they are
 * listed among the UNIX ones. A suite that compared nothing would pass too. */
static inline int cf_probe(void)
{
	struct stat st;
	char line[256], inode[32];
	FILE *f = fopen("/proc/self/net/unix", "r");
	fstat(socket(AF_INET, SOCK_STREAM, 0), &st);
	snprintf(inode, sizeof inode, " %lu", (unsigned long)st.st_ino);
	while (f && fgets(line, sizeof line, f))
		if (strstr(line, inode))
			return puts("carried"), 0;
	return puts("not carried"), 0;
}

int main(int argc, char **argv)
{
	char name[80];
	if (argc == 2 && !strcmp(argv[1], "--list"))
		return cf_usage();
	if (argc == 2 && !strcmp(argv[1], "--probe"))
		return cf_probe();
	int ex = argc >= 4 && !strcmp(argv[1], "--exec");
	if (argc < 3)
		return 2;
	snprintf(name, sizeof name, "%s%s", ex ? "exec_" : "", argv[1 + ex]);
	const char *f = argv[2 + ex];
	fam = !strcmp(f, "v4") ? V4 : !strcmp(f, "v6") ? V6 : MAPPED;
	AF = fam == V4 ? AF_INET : AF_INET6;
	cf_argv = argv;
	cf_shared = shared_memory(sizeof *cf_shared);
	alarm(getenv("CONFORM_HEAVY") ? 600 : LIMIT_S);
	for (int i = 0; i < cf_nscenarios; i++)
		if (!strcmp(cf_scenarios[i].name, name)) {
			cf_scenarios[i].run();
			return 0;
		}
	return 2;
}
#endif
