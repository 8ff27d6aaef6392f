/* connect.c - connecting, at once, in progress, refused, unreachable. */
#include "conform.h"

SCENARIO(success, ALL, "connect, names, poll")
{
	struct addr a;
	int l = server(&a), c = tcp();
	R(connect(c, &a.sa, a.len));
	show_bits("client", c);
	show_error("client", c);
	show_names("client", c);
	int s = FD(accept(l, NULL, NULL));
	show_bits("accepted", s);
	show_names("accepted", s);
}

SCENARIO(isconn, ALL, "EISCONN on a connected socket, either side")
{
	struct conn k = conn();
	R(connect(k.c, &k.a.sa, k.a.len));
	R(connect(k.s, &k.a.sa, k.a.len));
	struct addr other = closed_port();
	R(connect(k.c, &other.sa, other.len));
	OK(send_all(k.c, 100, 0));
	take("accepted", k.s, 100);
}

SCENARIO(refused, ALL, "ECONNREFUSED, blocking, and what the socket is then")
{
	struct addr a = closed_port(), z;
	int c = tcp();
	char b[1];
	R(connect(c, &a.sa, a.len));
	show_error("client", c);
	show_bits("client", c);
	R(name_of(SYS_getpeername, c, &z));
	R(recv(c, b, 1, MSG_DONTWAIT));
	R(send(c, b, 1, MSG_NOSIGNAL));
	R(connect(c, &a.sa, a.len));
	show_error("client", c);
}

SCENARIO(refused_then_served, ALL, "the same socket connects after it was refused")
{
	struct addr a = closed_port();
	int c = tcp();
	R(connect(c, &a.sa, a.len));
	int l = server_at(&a, 5);
	R(connect(c, &a.sa, a.len));
	int s = FD(accept(l, NULL, NULL));
	show_names("client", c);
	show_names("accepted", s);
	OK(send_all(c, 100, 0));
	take("accepted", s, 100);
}

SCENARIO(refused_poll, ALL, "refused, non-blocking: EINPROGRESS, poll, SO_ERROR once")
{
	struct addr a = closed_port();
	int c = tcp();
	nonblock(c, 1);
	R(connect(c, &a.sa, a.len));
	wait_bits("client", c, POLLERR | POLLHUP);
	show_error("client", c);
	show_error("client", c);
	show_bits("client", c);
	R(connect(c, &a.sa, a.len));
	show_bits("client", c);
	show_error("client", c);
}

SCENARIO(refused_second_connect, ALL, "refused, non-blocking: the errno by a second connect")
{
	struct addr a = closed_port();
	int c = tcp();
	nonblock(c, 1);
	R(connect(c, &a.sa, a.len));
	wait_bits("client", c, POLLERR | POLLHUP);
	R(connect(c, &a.sa, a.len));
	show_error("client", c);
}

SCENARIO(refused_read, ALL, "refused, non-blocking: the errno by read, by write")
{
	struct addr a = closed_port();
	char b[1] = "";
	for (int w = 0; w < 2; w++) {
		int c = tcp();
		nonblock(c, 1);
		R(connect(c, &a.sa, a.len));
		wait_bits("client", c, POLLERR | POLLHUP);
		if (w)
			R(send(c, b, 1, MSG_NOSIGNAL));
		else
			R(read(c, b, 1));
		show_error("client", c);
		R(read(c, b, 1));
		R(send(c, b, 1, MSG_NOSIGNAL));
	}
}

SCENARIO(refused_epoll, ALL, "refused, with epoll registered before connect")
{
	struct addr a = closed_port();
	int c = tcp(), ep = epoll_create1(0);
	struct epoll_event ev = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP};
	nonblock(c, 1);
	R(connect(c, &a.sa, a.len));
	R(epoll_ctl(ep, EPOLL_CTL_ADD, c, &ev));
	wait_bits("client", c, POLLERR | POLLHUP);
	R(epoll_wait(ep, &ev, 1, WAIT_MS));
	say("events %s", bits_text(ev.events));
	show_error("client", c);
}

SCENARIO(refused_select, ALL, "refused, with select")
{
	struct addr a = closed_port();
	int c = tcp();
	fd_set r, w, x;
	nonblock(c, 1);
	R(connect(c, &a.sa, a.len));
	await(c, POLLERR | POLLHUP);
	FD_ZERO(&r);
	FD_ZERO(&w);
	FD_ZERO(&x);
	FD_SET(c, &r);
	FD_SET(c, &w);
	FD_SET(c, &x);
	struct timeval tv = {WAIT_MS / 1000, 0};
	R(select(c + 1, &r, &w, &x, &tv));
	say("read %d write %d except %d", FD_ISSET(c, &r) != 0, FD_ISSET(c, &w) != 0, FD_ISSET(c, &x) != 0);
	show_error("client", c);
}

SCENARIO(nonblocking, ALL, "non-blocking: EINPROGRESS, POLLOUT, 0, then EISCONN")
{
	struct addr a;
	int l = server(&a), c = tcp();
	nonblock(c, 1);
	R(connect(c, &a.sa, a.len));
	wait_bits("client", c, POLLOUT);
	show_error("client", c);
	R(connect(c, &a.sa, a.len));
	R(connect(c, &a.sa, a.len));
	show_names("client", c);
	FD(accept(l, NULL, NULL));
}

SCENARIO(nonblocking_at_creation, ALL, "SOCK_NONBLOCK at creation")
{
	struct addr a;
	int l = server(&a), c = socket(AF, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP);
	char b[1];
	R(connect(c, &a.sa, a.len));
	wait_bits("client", c, POLLOUT);
	show_error("client", c);
	R(read(c, b, 1));
	int s = FD(accept(l, NULL, NULL));
	OK(send_all(s, 10, 0));
	wait_bits("client", c, POLLIN);
	take("client", c, 10);
	R(read(c, b, 1));
}

static void epoll_connect(int before, unsigned mode)
{
	struct addr a;
	int l = server(&a), c = tcp(), ep = epoll_create1(0), s;
	struct epoll_event ev = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | mode}, got = {0};
	nonblock(c, 1);
	if (before) {
		R(epoll_ctl(ep, EPOLL_CTL_ADD, c, &ev));
		R(epoll_wait(ep, &got, 1, 0));
		say("events %s", bits_text(got.events));
	}
	R(connect(c, &a.sa, a.len));
	if (!before)
		R(epoll_ctl(ep, EPOLL_CTL_ADD, c, &ev));
	await(c, POLLOUT);
	R(epoll_wait(ep, &got, 1, WAIT_MS));
	say("events %s", bits_text(got.events));
	show_error("client", c);
	s = FD(accept(l, NULL, NULL));
	OK(send(s, "x", 1, 0));
	await(c, POLLIN);
	R(epoll_wait(ep, &got, 1, WAIT_MS));
	say("events %s", bits_text(got.events));
	R(epoll_wait(ep, &got, 1, 0));
	close(s);
	await(c, POLLRDHUP);
	R(epoll_wait(ep, &got, 1, WAIT_MS));
	say("events %s", bits_text(got.events));
}

SCENARIO(epoll_before_level, ALL, "epoll ADD before connect, level") { epoll_connect(1, 0); }
SCENARIO(epoll_before_edge, ALL, "epoll ADD before connect, edge") { epoll_connect(1, EPOLLET); }
SCENARIO(epoll_after_level, ALL, "epoll ADD after connect, level") { epoll_connect(0, 0); }
SCENARIO(epoll_after_edge, ALL, "epoll ADD after connect, edge") { epoll_connect(0, EPOLLET); }

SCENARIO(select_connect, ALL, "select for the end of a connect")
{
	struct addr a;
	int l = server(&a), c = tcp();
	fd_set r, w;
	nonblock(c, 1);
	R(connect(c, &a.sa, a.len));
	FD_ZERO(&r);
	FD_ZERO(&w);
	FD_SET(c, &r);
	FD_SET(c, &w);
	struct timeval tv = {WAIT_MS / 1000, 0};
	R(select(c + 1, &r, &w, NULL, &tv));
	say("read %d write %d", FD_ISSET(c, &r) != 0, FD_ISSET(c, &w) != 0);
	show_error("client", c);
	FD(accept(l, NULL, NULL));
}

/* full gives a listening socket whose queue is full: a connect to it stays in
 * progress. */
static int full(struct addr *a)
{
	*a = loop(0);
	int l = server_at(a, 0);
	client(a);
	return l;
}

SCENARIO(in_progress, ALL, "everything about a socket while its connect is in progress")
{
	struct addr a, other = closed_port(), z;
	int l = full(&a), c = tcp(), v = 7;
	char b[4] = "abc";
	nonblock(c, 1);
	R(connect(c, &a.sa, a.len));
	R(connect(c, &a.sa, a.len));
	R(connect(c, &other.sa, other.len));
	show_bits("client", c);
	show_error("client", c);
	show_names("client", c);
	R(name_of(SYS_getpeername, c, &z));
	R(recv(c, b, 1, 0));
	R(send(c, b, 1, MSG_NOSIGNAL));
	R(send(c, b, 1, MSG_NOSIGNAL | MSG_DONTWAIT));
	R(bind(c, &a.sa, a.len));
	R(listen(c, 1));
	R(ioctl(c, FIONREAD, &v));
	R(ioctl(c, SIOCOUTQ, &v));
	R(set_int(c, IPPROTO_TCP, TCP_NODELAY, 1));
	FD(accept(l, NULL, NULL));
	wait_bits("client", c, POLLOUT);
	show_error("client", c);
	R(send(c, b, 3, MSG_NOSIGNAL));
	int s = FD(accept(l, NULL, NULL));
	R(recv(s, b, 3, MSG_WAITALL));
	say("%.3s", b);
	show_names("client", c);
}

SCENARIO(in_progress_epoll, ALL, "no event before the connect is done, one edge after")
{
	struct addr a;
	int l = full(&a), c = tcp(), ep = epoll_create1(0);
	struct epoll_event ev = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET};
	nonblock(c, 1);
	R(connect(c, &a.sa, a.len));
	R(epoll_ctl(ep, EPOLL_CTL_ADD, c, &ev));
	R(epoll_wait(ep, &ev, 1, 100));
	FD(accept(l, NULL, NULL));
	R(epoll_wait(ep, &ev, 1, WAIT_MS));
	say("events %s", bits_text(ev.events));
	R(epoll_wait(ep, &ev, 1, 50));
}

SCENARIO(in_progress_close, ALL, "close while in progress: nobody comes")
{
	struct addr a;
	int l = full(&a), c = tcp();
	nonblock(c, 1);
	R(connect(c, &a.sa, a.len));
	R(poll(&(struct pollfd){.fd = c, .events = POLLOUT}, 1, 300)); /* it has come, and found no room */
	R(close(c));
	FD(accept(l, NULL, NULL));
	nonblock(l, 1);
	R(accept(l, NULL, NULL));
	client(&a);
	await(l, POLLIN);
	FD(accept(l, NULL, NULL));
	R(accept(l, NULL, NULL));
}

SCENARIO(in_progress_shutdown, ALL, "shutdown while in progress ends it")
{
	struct addr a;
	int l = full(&a), c = tcp();
	(void)l;
	nonblock(c, 1);
	R(connect(c, &a.sa, a.len));
	R(shutdown(c, SHUT_RDWR));
	show_bits("client", c);
	show_error("client", c);
}

SCENARIO(in_progress_disconnect, ALL, "AF_UNSPEC while in progress ends it")
{
	struct addr a, b, un = {.sa.sa_family = AF_UNSPEC, .len = sizeof un.in4};
	int l = full(&a), c = tcp(), l2;
	(void)l;
	nonblock(c, 1);
	R(connect(c, &a.sa, a.len));
	R(connect(c, &un.sa, un.len));
	show_bits("client", c);
	show_error("client", c);
	show_names("client", c);
	nonblock(c, 0);
	l2 = server(&b);
	R(connect(c, &b.sa, b.len));
	FD(accept(l2, NULL, NULL));
}

struct blocked_connect {
	struct addr a;
	int c;
};

static void connect_blocking(void *arg)
{
	struct blocked_connect *b = arg;
	R(connect(b->c, &b->a.sa, b->a.len));
}

SCENARIO(in_progress_blocking, ALL, "a blocking connect waits for room in the queue")
{
	struct blocked_connect b = {.c = tcp()};
	int l = full(&b.a);
	struct task *t = start("client", connect_blocking, &b);
	blocked_in(t->tid, SYS_connect);
	FD(accept(l, NULL, NULL));
	join(t);
	FD(accept(l, NULL, NULL));
	show_names("client", b.c);
}

SCENARIO(sndtimeo, ALL, "SO_SNDTIMEO ends connect with EINPROGRESS, then EALREADY")
{
	struct addr a;
	int l = full(&a), c = tcp();
	struct timeval tv = {0, 150000};
	R(setsockopt(c, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv));
	int64_t t = now_ms();
	R(connect(c, &a.sa, a.len));
	t = now_ms() - t;
	say("waited at least 150 ms: %d, less than 3 s: %d", t >= 149, t < 3000);
	R(connect(c, &a.sa, a.len));
	FD(accept(l, NULL, NULL));
	wait_bits("client", c, POLLOUT);
	R(connect(c, &a.sa, a.len));
	R(connect(c, &a.sa, a.len));
}

SCENARIO(timed_out, ALL, "ETIMEDOUT when nobody answers, as soon as TCP_SYNCNT allows")
{
	struct addr a;
	int l = full(&a), c = tcp();
	(void)l;
	R(set_int(c, IPPROTO_TCP, TCP_SYNCNT, 1));
	int64_t t = now_ms();
	R(connect(c, &a.sa, a.len));
	t = now_ms() - t;
	say("within 15 s: %d", t < 15000);
	show_error("client", c);
	show_bits("client", c);
}

SCENARIO(disconnect, ALL, "connect to AF_UNSPEC breaks a connection; the socket serves again")
{
	struct conn k = conn();
	struct addr b, un = {.sa.sa_family = AF_UNSPEC, .len = sizeof un.in4};
	char x[1];
	R(connect(k.c, &un.sa, un.len));
	show_names("client", k.c);
	show_bits("client", k.c);
	wait_bits("accepted", k.s, POLLHUP);
	R(read(k.s, x, 1));
	R(recv(k.c, x, 1, MSG_DONTWAIT));
	int l2 = server(&b);
	R(connect(k.c, &b.sa, b.len));
	int s = FD(accept(l2, NULL, NULL));
	OK(send_all(k.c, 1000, 0));
	take("second", s, 1000);
	show_names("client", k.c);
}

SCENARIO(disconnect_fresh, ALL, "AF_UNSPEC on fresh and on listening sockets, short lengths")
{
	struct addr a, un = {.sa.sa_family = AF_UNSPEC, .len = sizeof un.in4};
	int l = server(&a), c = tcp();
	R(connect(c, &un.sa, un.len));
	R(connect(c, &un.sa, sizeof un.sa));
	R(connect(c, &un.sa, 2));
	R(connect(c, &un.sa, 1));
	R(connect(l, &un.sa, un.len));
	show_bits("was listening", l);
	R(connect(tcp(), &a.sa, a.len));
}

SCENARIO(to_itself, ALL, "a socket bound to a port connects to itself")
{
	int c = tcp();
	struct addr a = loop(0);
	char b[8] = "";
	R(bind(c, &a.sa, a.len));
	a = local_of(c);
	R(connect(c, &a.sa, a.len));
	show_names("client", c);
	R(send(c, "echo", 4, 0));
	R(recv(c, b, 4, MSG_WAITALL));
	say("%s", b);
	R(shutdown(c, SHUT_WR));
	wait_bits("client", c, POLLIN | POLLRDHUP);
	R(recv(c, b, 4, 0));
}

SCENARIO(to_any, ALL, "the wildcard address means this host")
{
	struct addr a = any(0);
	int l = server_at(&a, 5), c = tcp();
	struct addr to = any(port_of(&a));
	R(connect(c, &to.sa, to.len));
	int s = FD(accept(l, NULL, NULL));
	show_names("client", c);
	show_names("accepted", s);
}

SCENARIO(port_zero, ALL, "port 0")
{
	struct addr a = loop(0);
	int c = tcp();
	R(connect(c, &a.sa, a.len));
	nonblock(c, 1);
	R(connect(c, &a.sa, a.len));
	wait_bits("client", c, POLLHUP);
	show_error("client", c);
}

SCENARIO(lengths, ALL, "address lengths")
{
	struct addr a;
	int l = server(&a);
	char big[4200] = {0};
	static const socklen_t lens[] = {0, 1, 2, 8, 15, 16, 20, 23, 24, 27, 28, 100, 128, 129, 4096, (socklen_t)-1};
	memcpy(big, &a.sa, a.len);
	for (size_t i = 0; i < N(lens); i++) {
		int c = tcp();
		if (RL(syscall(SYS_connect, c, big, lens[i]), "connect length %d", (int)lens[i]) == 0)
			close(accept(l, NULL, NULL));
		close(c);
	}
}

SCENARIO(faults, ALL, "EFAULT, and the socket is as before")
{
	struct addr a;
	int l = server(&a), c = tcp();
	R(syscall(SYS_connect, c, NULL, a.len));
	R(syscall(SYS_connect, c, 1L, a.len));
	R(syscall(SYS_connect, c, NULL, 0));
	R(syscall(SYS_connect, c, -1L, a.len));
	R(connect(c, &a.sa, a.len));
	FD(accept(l, NULL, NULL));
}

SCENARIO(families, ALL, "addresses of another family")
{
	struct addr a;
	int l = server(&a);
	struct addr four = ip4("127.0.0.1", port_of(&a)), six = ip6("::1", port_of(&a));
	struct sockaddr_un un = {.sun_family = AF_UNIX, .sun_path = "/nonexistent"};
	(void)l;
	R(connect(tcp(), &four.sa, four.len));
	R(connect(tcp(), &four.sa, sizeof four.in6));
	R(connect(tcp(), &six.sa, six.len));
	R(connect(tcp(), (void *)&un, sizeof un));
	six.sa.sa_family = 99;
	R(connect(tcp(), &six.sa, six.len));
}

SCENARIO(v6only_to_mapped, V6, "an IPV6_V6ONLY socket does not reach v4")
{
	struct addr a = ip6("::", 0);
	int l = server_at(&a, 5), c = tcp();
	(void)l;
	struct addr m = ip6("::ffff:127.0.0.1", port_of(&a));
	R(set_int(c, IPPROTO_IPV6, IPV6_V6ONLY, 1));
	R(connect(c, &m.sa, m.len));
	R(set_int(c, IPPROTO_IPV6, IPV6_V6ONLY, 0));
	R(connect(c, &m.sa, m.len));
}

SCENARIO(broadcast_multicast, ALL, "broadcast and multicast addresses")
{
	struct addr as[] = {ip("255.255.255.255", "ff02::1", htons(9)), ip("224.0.0.1", "ff0e::1", htons(9)),
			    ip("127.255.255.255", "ff01::1", htons(9))};
	for (size_t i = 0; i < N(as); i++) {
		int c = tcp();
		nonblock(c, 1);
		RL(connect(c, &as[i].sa, as[i].len), "connect %d", (int)i);
		close(c);
	}
}

/* netns makes a network namespace with lo up and runs ip(8) in it. */
static void netns(const char *route)
{
	char cmd[300];
	if (access("/usr/sbin/ip", X_OK) && access("/sbin/ip", X_OK))
		skip("needs ip(8)");
	if (unshare(CLONE_NEWNET) < 0)
		skip("cannot make a network namespace");
	snprintf(cmd, sizeof cmd, "PATH=$PATH:/usr/sbin:/sbin; ip link set lo up && %s", route);
	fflush(NULL);
	if (system(cmd) != 0)
		die("ip");
	await_route(loop(0));
}

static void unreachable_one(const char *kind)
{
	char cmd[160];
	struct addr a = ip("198.51.100.7", "2001:db8:51::7", htons(80));
	if (kind)
		snprintf(cmd, sizeof cmd, "ip %s route add %s %s", fam == V6 ? "-6" : "-4", kind,
			 fam == V6 ? "2001:db8:51::/48" : "198.51.100.0/24");
	netns(kind ? cmd : "true");
	int c = tcp();
	R(connect(c, &a.sa, a.len));
	show_error("blocking", c);
	show_bits("blocking", c);
	c = tcp();
	nonblock(c, 1);
	R(connect(c, &a.sa, a.len));
	show_error("non-blocking", c);
	show_bits("non-blocking", c);
	show_names("non-blocking", c);
	struct addr b;
	int l = server(&b);
	nonblock(c, 0);
	R(connect(c, &b.sa, b.len));
	FD(accept(l, NULL, NULL));
}

SCENARIO(net_unreachable, ALL | ROOT, "ENETUNREACH without a route") { unreachable_one(NULL); }
SCENARIO(host_unreachable, ALL | ROOT, "EHOSTUNREACH by an unreachable route") { unreachable_one("unreachable"); }
SCENARIO(prohibited, ALL | ROOT, "EACCES by a prohibit route") { unreachable_one("prohibit"); }
SCENARIO(blackhole, ALL | ROOT, "EINVAL by a blackhole route") { unreachable_one("blackhole"); }

SCENARIO(lo_down, ALL | ROOT, "a namespace whose loopback is down")
{
	struct addr a = loop(htons(4000));
	if (unshare(CLONE_NEWNET) < 0)
		skip("cannot make a network namespace");
	R(connect(tcp(), &a.sa, a.len));
	R(bind(tcp(), &a.sa, a.len));
	a = any(0);
	R(bind(tcp(), &a.sa, a.len));
}

SCENARIO(fastopen_plain, ALL, "MSG_FASTOPEN: a program that falls back is served")
{
	struct addr a;
	int l = server(&a), c = tcp();
	if (sendto(c, "hello", 5, MSG_FASTOPEN | MSG_NOSIGNAL, &a.sa, a.len) < 0) {
		if (connect(c, &a.sa, a.len) < 0 || send(c, "hello", 5, MSG_NOSIGNAL) != 5)
			die("no way back");
	}
	int s = FD(accept(l, NULL, NULL));
	char b[8] = "";
	R(recv(s, b, 5, MSG_WAITALL));
	say("%s", b);
	show_names("client", c);
	show_names("accepted", s);
}

SCENARIO(fastopen_result, ALL, "MSG_FASTOPEN: what sendto and sendmsg say")
{
	struct addr a;
	int l = server(&a), c = tcp(), d = tcp();
	struct iovec v = {"hello", 5};
	struct msghdr m = {.msg_name = &a.sa, .msg_namelen = a.len, .msg_iov = &v, .msg_iovlen = 1};
	(void)l;
	R(sendto(c, "hello", 5, MSG_FASTOPEN | MSG_NOSIGNAL, &a.sa, a.len));
	R(sendmsg(d, &m, MSG_FASTOPEN | MSG_NOSIGNAL));
}

SCENARIO(fastopen_connect, ALL, "TCP_FASTOPEN_CONNECT and TCP_FASTOPEN")
{
	struct addr a;
	int l = tcp(), c = tcp();
	a = loop(0);
	bind(l, &a.sa, a.len);
	R(set_int(l, IPPROTO_TCP, TCP_FASTOPEN, 16));
	R(listen(l, 5));
	a = local_of(l);
	R(set_int(c, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1));
	R(get_int(c, IPPROTO_TCP, TCP_FASTOPEN_CONNECT));
	R(connect(c, &a.sa, a.len));
	R(send(c, "hello", 5, MSG_NOSIGNAL));
	int s = FD(accept(l, NULL, NULL));
	char b[8] = "";
	R(recv(s, b, 5, MSG_WAITALL));
	say("%s", b);
}

SCENARIO(sendto_address, ALL, "sendto with an address on a connected and on a fresh socket")
{
	struct conn k = conn();
	struct addr other = closed_port();
	char b[4] = "";
	if (R(sendto(k.c, "abc", 3, 0, &other.sa, other.len)) < 0)
		send(k.c, "abc", 3, 0);
	take("accepted", k.s, 0);
	R(recv(k.s, b, 3, MSG_WAITALL));
	R(sendto(tcp(), "abc", 3, MSG_NOSIGNAL, &k.a.sa, k.a.len));
}

static void connect_and_close(void *arg)
{
	int ok = 0;
	for (int i = 0; i < 50; i++) {
		int c = tcp();
		ok += connect(c, arg, fam == V4 ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6)) == 0;
		close(c);
	}
	R(ok);
}

SCENARIO(many, ALL, "four threads connect and close two hundred times")
{
	struct addr a = loop(0);
	int l = server_at(&a, 512), n = 0;
	struct task *t[4];
	for (int i = 0; i < 4; i++)
		t[i] = start("client", connect_and_close, &a.sa);
	for (int i = 0; i < 4; i++)
		join(t[i]);
	for (; n < 200; n++)
		if (accept4(l, NULL, NULL, SOCK_CLOEXEC) < 0)
			break;
	R(n);
}

SCENARIO(never_accepted, ALL, "a connection nobody accepts takes data; it is there later")
{
	struct addr a;
	int l = server(&a), c = client(&a);
	OK(send_all(c, 20000, 0));
	show_bits("client", c);
	R(shutdown(c, SHUT_WR));
	int s = FD(accept(l, NULL, NULL));
	take("accepted", s, 30000);
}

SCENARIO(again_epoll, ALL, "epoll tells of a socket that was refused and tries again")
{
	struct addr a, closed = closed_port();
	int l = server(&a), c = tcp(), d = dup(c), ep = epoll_create1(0);
	struct epoll_event ev = {.events = EPOLLOUT | EPOLLET, .data.u64 = 0x123456789a};
	(void)l;
	nonblock(c, 1);
	R(connect(c, &closed.sa, closed.len));
	R(epoll_ctl(ep, EPOLL_CTL_ADD, c, &ev));
	ev.data.u64 = 5;
	R(epoll_ctl(ep, EPOLL_CTL_ADD, d, &ev));
	wait_bits("client", c, POLLERR | POLLHUP);
	R(connect(c, &a.sa, a.len));
	R(connect(c, &a.sa, a.len));
	wait_bits("client", c, POLLOUT);
	for (uint64_t told = 0; told != 0x123456789f;)
		if (R(epoll_wait(ep, &ev, 1, WAIT_MS)) == 1)
			told += ev.data.u64;
		else
			break;
	say("events %s", bits_text(ev.events));
	R(epoll_wait(ep, &ev, 1, 0));
	ev.events = EPOLLOUT;
	R(epoll_ctl(ep, EPOLL_CTL_MOD, c, &ev));
	R(epoll_wait(ep, &ev, 1, WAIT_MS));
	R(epoll_ctl(ep, EPOLL_CTL_DEL, c, NULL));
}

SCENARIO(again_dup, ALL, "a duplicate has the connection of a socket that was refused before")
{
	struct addr a, closed = closed_port();
	int l = server(&a), c = tcp(), d = fcntl(c, F_DUPFD_CLOEXEC, 0);
	R(connect(c, &closed.sa, closed.len));
	R(connect(c, &a.sa, a.len));
	int s = FD(accept(l, NULL, NULL));
	OK(close(c));
	show_names("duplicate", d);
	R(fcntl(d, F_GETFD));
	OK(send_all(d, 1000, 0));
	take("accepted", s, 1000);
	OK(close(d));
	wait_bits("accepted", s, POLLIN | POLLRDHUP);
}

SCENARIO(refused_getpeername, ALL, "refused, non-blocking: getpeername, then the errno by read, by write")
{
	struct addr a, closed = closed_port();
	char b[1] = "";
	int l = server(&a);
	for (int w = 0; w < 2; w++) {
		int c = tcp(), d = dup(c);
		nonblock(c, 1);
		R(connect(c, &closed.sa, closed.len));
		wait_bits("client", c, POLLERR | POLLHUP);
		show_names("client", c);
		if (w)
			say("send %s", send(d, b, 1, MSG_NOSIGNAL) < 0 ? strerrorname_np(errno) : "worked");
		else
			say("read %s", read(d, b, 1) < 0 ? strerrorname_np(errno) : "worked");
		show_error("client", c);
		R(fcntl(c, F_GETFL));
		R(connect(c, &a.sa, a.len));
		R(connect(c, &a.sa, a.len));
		wait_bits("client", d, POLLOUT);
		int s = FD(accept(l, NULL, NULL));
		OK(send_all(d, 1000, 0));
		take("accepted", s, 1000);
	}
}

SCENARIO(refused_getpeername_bound, ALL, "refused, asked for, and closed: the port is free")
{
	struct addr a = loop(0), closed = closed_port();
	int c = tcp();
	OK(bind(c, &a.sa, a.len));
	a = local_of(c);
	nonblock(c, 1);
	R(connect(c, &closed.sa, closed.len));
	wait_bits("client", c, POLLERR | POLLHUP);
	show_names("client", c);
	show_error("client", c);
	OK(close(c));
	R(server_at(&a, 1) >= 0);
}
