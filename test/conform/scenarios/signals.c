/* signals.c - calls that wait, interrupted. */
#include "conform.h"
#include <setjmp.h>
#include <sys/prctl.h>

static volatile sig_atomic_t runs;
static void count(int s) { (void)s, runs++; }

static void handle(int sig, void (*fn)(int), int flags)
{
	struct sigaction sa = {.sa_handler = fn, .sa_flags = flags};
	sigaction(sig, &sa, NULL);
}

/* full gives a listening socket on which a connect waits. */
static int full(struct addr *a)
{
	*a = loop(0);
	int l = server_at(a, 0);
	client(a);
	return l;
}

struct wait {
	int fd, ms; /* ms: SO_RCVTIMEO and SO_SNDTIMEO */
	struct addr a;
};

static void in_accept(void *arg) { FD(accept(((struct wait *)arg)->fd, NULL, NULL)); }
static void in_read(void *arg)
{
	char b[1];
	R(read(((struct wait *)arg)->fd, b, 1));
}
static void in_connect(void *arg)
{
	struct wait *w = arg;
	R(connect(w->fd, &w->a.sa, w->a.len));
}

/* poke interrupts a task blocked in a call with SIGUSR1, once. */
static void poke(struct task *t, long nr)
{
	blocked_in(t->tid, nr);
	int before = runs;
	R(syscall(SYS_tgkill, getpid(), t->tid, SIGUSR1));
	UNTIL(runs > before);
	say("handler ran");
}

static void give_up_after(int fd, int ms)
{
	struct timeval tv = {ms / 1000, 0};
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv);
}

static void accept_poked(int flags, int ms)
{
	struct addr a;
	struct wait w = {.fd = server(&a)};
	if (ms)
		give_up_after(w.fd, ms);
	handle(SIGUSR1, count, flags);
	struct task *t = start("server", in_accept, &w);
	poke(t, SYS_accept);
	if (flags & SA_RESTART && !ms) {
		poke(t, SYS_accept);
		blocked_in(t->tid, SYS_accept);
		client(&a);
	}
	join(t);
	client(&a);
	FD(accept(w.fd, NULL, NULL));
}

SCENARIO(accept_eintr, ALL, "accept without SA_RESTART: EINTR") { accept_poked(0, 0); }
SCENARIO(accept_restart, ALL, "accept with SA_RESTART goes on") { accept_poked(SA_RESTART, 0); }
SCENARIO(accept_timeo_restart, ALL, "accept with SO_RCVTIMEO: EINTR even with SA_RESTART") { accept_poked(SA_RESTART, 15000); }

static void connect_poked(int flags, int ms)
{
	struct wait w = {.fd = tcp()};
	int l = full(&w.a);
	if (ms)
		give_up_after(w.fd, ms);
	handle(SIGUSR1, count, flags);
	struct task *t = start("client", in_connect, &w);
	poke(t, SYS_connect);
	if (flags & SA_RESTART && !ms)
		blocked_in(t->tid, SYS_connect);
	else
		join(t), t = NULL;
	nonblock(w.fd, 1);
	R(connect(w.fd, &w.a.sa, w.a.len));
	FD(accept(l, NULL, NULL));
	if (t)
		join(t);
	wait_bits("client", w.fd, POLLOUT);
	show_error("client", w.fd);
	FD(accept(l, NULL, NULL));
	R(send(w.fd, "x", 1, MSG_NOSIGNAL));
}

SCENARIO(connect_eintr, ALL, "connect without SA_RESTART: EINTR, and it goes on in the background") { connect_poked(0, 0); }
SCENARIO(connect_restart, ALL, "connect with SA_RESTART goes on") { connect_poked(SA_RESTART, 0); }
SCENARIO(connect_timeo_restart, ALL, "connect with SO_SNDTIMEO: EINTR even with SA_RESTART") { connect_poked(SA_RESTART, 15000); }

static void read_poked(int flags, int ms)
{
	struct conn k = conn();
	struct wait w = {.fd = k.s};
	if (ms)
		give_up_after(w.fd, ms);
	handle(SIGUSR1, count, flags);
	struct task *t = start("reader", in_read, &w);
	poke(t, SYS_read);
	if (flags & SA_RESTART && !ms) {
		blocked_in(t->tid, SYS_read);
		R(send(k.c, "x", 1, MSG_NOSIGNAL));
	}
	join(t);
}

SCENARIO(read_eintr, ALL, "read without SA_RESTART: EINTR") { read_poked(0, 0); }
SCENARIO(read_restart, ALL, "read with SA_RESTART goes on") { read_poked(SA_RESTART, 0); }
SCENARIO(read_timeo_restart, ALL, "read with SO_RCVTIMEO: EINTR even with SA_RESTART") { read_poked(SA_RESTART, 15000); }

static void in_poll(void *arg)
{
	struct pollfd p = {.fd = ((struct wait *)arg)->fd, .events = POLLIN};
	R(poll(&p, 1, -1));
}

SCENARIO(poll_eintr, ALL, "poll is EINTR, SA_RESTART or not")
{
	struct addr a;
	struct wait w = {.fd = server(&a)};
	handle(SIGUSR1, count, SA_RESTART);
	struct task *t = start("server", in_poll, &w);
	poke(t, SYS_poll);
	join(t);
}

static void leave(int s)
{
	(void)s;
	_exit(7);
}

static void term_server(void *arg)
{
	handle(SIGTERM, leave, SA_RESTART);
	turn_give(0);
	accept(((struct wait *)arg)->fd, NULL, NULL);
}

SCENARIO(sigterm, ALL, "SIGTERM's handler runs at once in a server blocked in accept")
{
	struct addr a;
	struct wait w = {.fd = server(&a)};
	struct task *t = spawn("server", term_server, &w);
	turn_wait(0, 1);
	blocked_in(t->tid, SYS_accept);
	int64_t begin = now_ms();
	R(kill(t->tid, SIGTERM));
	reap(t);
	say("within 2 s: %d", now_ms() - begin < 2000);
}

static void make_and_accept(void *arg)
{
	struct addr *a = arg;
	int l = tcp();
	bind(l, &a->sa, a->len);
	listen(l, 5);
	turn_give(0);
	accept(l, NULL, NULL);
}

static void killed_in_accept(int sig)
{
	struct addr a = closed_port();
	struct task *t = spawn("server", make_and_accept, &a);
	turn_wait(0, 1);
	blocked_in(t->tid, SYS_accept);
	R(connect(tcp(), &a.sa, 0));
	RL(kill(t->tid, sig), "kill %d", sig);
	reap(t);
	R(connect(tcp(), &a.sa, a.len));
	int l = tcp();
	R(bind(l, &a.sa, a.len));
	R(listen(l, 5));
}

SCENARIO(sigkill, ALL, "SIGKILL in accept frees the port") { killed_in_accept(SIGKILL); }
SCENARIO(sigint_default, ALL, "a default SIGINT in accept frees the port") { killed_in_accept(SIGINT); }

static void kill_in_connect(void *arg)
{
	struct wait *w = arg;
	connect(w->fd, &w->a.sa, w->a.len);
}

SCENARIO(sigkill_connect, ALL, "SIGKILL in connect: nobody comes")
{
	struct wait w = {.fd = -1};
	int l = full(&w.a);
	w.fd = tcp();
	fcntl(w.fd, F_SETFD, FD_CLOEXEC);
	struct task *t = spawn("client", kill_in_connect, &w);
	close(w.fd);
	blocked_in(t->tid, SYS_connect);
	R(kill(t->tid, SIGKILL));
	reap(t);
	FD(accept(l, NULL, NULL));
	nonblock(l, 1);
	R(accept(l, NULL, NULL));
	client(&w.a);
	await(l, POLLIN);
	FD(accept(l, NULL, NULL));
	R(accept(l, NULL, NULL));
}

static void accept_and_send(void *arg)
{
	int s = FD(accept(((struct wait *)arg)->fd, NULL, NULL));
	R(send(s, "x", 1, MSG_NOSIGNAL));
}

SCENARIO(stop_continue, ALL, "SIGSTOP and SIGCONT do not show in accept")
{
	struct addr a;
	struct wait w = {.fd = server(&a)};
	char b[1];
	struct task *t = spawn("server", accept_and_send, &w);
	blocked_in(t->tid, SYS_accept);
	R(kill(t->tid, SIGSTOP));
	int st;
	waitpid(t->tid, &st, WUNTRACED);
	say("stopped %d", WIFSTOPPED(st));
	int c = client(&a);
	R(kill(t->tid, SIGCONT));
	R(recv(c, b, 1, MSG_WAITALL));
	reap(t);
}

static sigjmp_buf jump;
static void jump_out(int s)
{
	(void)s;
	siglongjmp(jump, 1);
}

static void jumper(void *arg)
{
	struct wait *w = arg;
	if (sigsetjmp(jump, 1) == 0)
		accept(w->fd, NULL, NULL);
	say("out of accept");
	turn_give(0);
	int s = FD(accept(w->fd, NULL, NULL));
	R(send(s, "x", 1, MSG_NOSIGNAL));
}

SCENARIO(longjmp, ALL, "a handler jumps out of accept; the next accept serves")
{
	struct addr a;
	struct wait w = {.fd = server(&a)};
	char b[1];
	handle(SIGUSR1, jump_out, SA_RESTART);
	struct task *t = start("server", jumper, &w);
	blocked_in(t->tid, SYS_accept);
	R(syscall(SYS_tgkill, getpid(), t->tid, SIGUSR1));
	turn_wait(0, 1); /* the jump, before there is anything to accept */
	int c = client(&a);
	R(recv(c, b, 1, MSG_WAITALL));
	join(t);
	nonblock(w.fd, 1);
	R(accept(w.fd, NULL, NULL));
}

static void *cancelled(void *arg)
{
	__atomic_store_n(&((struct wait *)arg)->ms, (int)syscall(SYS_gettid), __ATOMIC_SEQ_CST);
	accept(((struct wait *)arg)->fd, NULL, NULL);
	return NULL;
}

SCENARIO(cancel, ALL, "pthread_cancel of a thread in accept; the socket serves on")
{
	struct addr a;
	struct wait w = {.fd = server(&a)};
	pthread_t t;
	void *r;
	pthread_create(&t, NULL, cancelled, &w);
	UNTIL(__atomic_load_n(&w.ms, __ATOMIC_SEQ_CST));
	blocked_in(w.ms, SYS_accept);
	R(pthread_cancel(t));
	pthread_join(t, &r);
	say("cancelled %d", r == PTHREAD_CANCELED);
	client(&a);
	FD(accept(w.fd, NULL, NULL));
}

SCENARIO(alarm_in_connect, ALL, "the classic: alarm() to bound a connect")
{
	struct wait w = {.fd = tcp()};
	full(&w.a);
	handle(SIGUSR2, count, 0);
	timer_t timer;
	struct sigevent ev = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR2};
	struct itimerspec in = {.it_value.tv_nsec = 100000000};
	timer_create(CLOCK_MONOTONIC, &ev, &timer);
	timer_settime(timer, 0, &in, NULL);
	R(connect(w.fd, &w.a.sa, w.a.len));
	say("handler ran %d", runs);
	R(close(w.fd));
}

/* A 1 kHz timer against n connections made and accepted, with canaries. */
struct storm {
	struct addr a;
	int n;
};

static void storm_client(void *arg)
{
	struct storm *s = arg;
	sigset_t set;
	int ok = 0;
	sigfillset(&set);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	for (int i = 0; i < s->n; i++) {
		int c = client(&s->a), got = -1;
		ok += send(c, &i, sizeof i, MSG_NOSIGNAL) == sizeof i && recv(c, &got, sizeof got, MSG_WAITALL) == sizeof got && got == i;
		struct linger lg = {1, 0}; /* no TIME_WAIT: the ports would run out */
		setsockopt(c, SOL_SOCKET, SO_LINGER, &lg, sizeof lg);
		close(c);
	}
	say("right answers: %d", ok == s->n);
}

static int canaries(const unsigned char *b, size_t n, unsigned char v)
{
	for (size_t i = 0; i < n; i++)
		if (b[i] != v)
			return 1;
	return 0;
}

static void timer_storm(int n, int flags)
{
	struct {
		unsigned char before[64];
		struct sockaddr_in6 name;
		unsigned char between[64];
		socklen_t len;
		unsigned char after[64];
	} b;
	struct storm s = {.n = n};
	int l = server(&s.a), touched = 0, wrong = 0, eintr = 0, order = 0;
	handle(SIGUSR2, count, flags);
	timer_t timer;
	struct sigevent ev = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGUSR2};
	ev._sigev_un._tid = (pid_t)syscall(SYS_gettid);
	struct itimerspec in = {.it_value.tv_nsec = 1000000, .it_interval.tv_nsec = 1000000};
	timer_create(CLOCK_MONOTONIC, &ev, &timer);
	struct task *t = start("client", storm_client, &s);
	timer_settime(timer, 0, &in, NULL);
	for (int i = 0; i < n; i++) {
		int fd, got = -1;
		memset(&b, 0xa5, sizeof b);
		do {
			b.len = sizeof b.name;
			fd = accept(l, (struct sockaddr *)&b.name, &b.len);
			eintr += fd < 0 && errno == EINTR;
		} while (fd < 0 && errno == EINTR);
		wrong += fd < 0 || b.len != s.a.len;
		for (int j = 0; j < 2; j++) {
			touched += canaries(b.before, 64, 0xa5) + canaries(b.between, 64, 0xa5) + canaries(b.after, 64, 0xa5);
			touched += canaries((unsigned char *)&b.name + s.a.len, sizeof b.name - s.a.len, 0xa5);
			b.len = sizeof b.name;
			wrong += getsockname(fd, (struct sockaddr *)&b.name, &b.len) != 0;
		}
		ssize_t r;
		do
			r = recv(fd, &got, sizeof got, MSG_WAITALL);
		while (r < 0 && errno == EINTR);
		order += got != i;
		if (send(fd, &got, sizeof got, MSG_NOSIGNAL) != sizeof got)
			wrong++;
		close(fd);
	}
	timer_delete(timer);
	join(t);
	say("wrong %d, canaries touched %d, lost or doubled %d", wrong, touched, order);
	say("the timer ran: %d, EINTR although SA_RESTART: %d", runs > 0, flags & SA_RESTART ? eintr : 0);
}

SCENARIO(timer_restart, ALL, "1,000 accepts and look-ups under a 1 kHz timer with SA_RESTART") { timer_storm(1000, SA_RESTART); }
SCENARIO(timer_eintr, ALL, "1,000 accepts and look-ups under a 1 kHz timer without") { timer_storm(1000, 0); }
SCENARIO(timer_heavy, V4 | HEAVY, "5,000 of them, 100,000 when CONFORM_HEAVY is set")
{
	const char *h = getenv("CONFORM_HEAVY");
	int n = h && *h ? 100000 : 5000;
	timer_storm(n, SA_RESTART);
}
