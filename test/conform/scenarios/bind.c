/* bind.c - local addresses: which are taken, shared, refused. */
#include "conform.h"
#include <grp.h>

SCENARIO(basic, ALL, "port 0, wildcard, specific")
{
	struct addr as[] = {loop(0), any(0)};
	for (int i = 0; i < 2; i++) {
		int fd = tcp();
		R(bind(fd, &as[i].sa, as[i].len));
		show_names("bound", fd);
		R(listen(fd, 1));
		show_names("listening", fd);
	}
}

SCENARIO(explicit_port, ALL, "a port asked for is the port one gets")
{
	struct addr a = closed_port();
	int fd = tcp();
	say("asked for %s", addr_text(&a.sa, a.len));
	R(bind(fd, &a.sa, a.len));
	show_names("bound", fd);
}

SCENARIO(twice, ALL, "a second bind is EINVAL")
{
	int fd = tcp();
	struct addr a = loop(0), b = closed_port();
	R(bind(fd, &a.sa, a.len));
	R(bind(fd, &a.sa, a.len));
	R(bind(fd, &b.sa, b.len));
	show_names("bound", fd);
	R(listen(fd, 1));
	R(bind(fd, &b.sa, b.len));
	a = local_of(fd);
	int c = client(&a);
	R(bind(c, &b.sa, b.len));
}

SCENARIO(in_use, ALL, "EADDRINUSE against a bound, a listening and a wildcard socket")
{
	int x = tcp(), y = tcp(), z = tcp();
	struct addr a = closed_port();
	R(bind(x, &a.sa, a.len));
	a = local_of(x);
	struct addr w = any(port_of(&a));
	R(bind(y, &a.sa, a.len));
	R(bind(z, &w.sa, w.len));
	R(listen(x, 1));
	R(bind(y, &a.sa, a.len));
	R(bind(z, &w.sa, w.len));
	show_names("refused", y);
	R(close(x));
	R(bind(y, &a.sa, a.len));
	R(listen(y, 1));
	R(close(y));
	R(bind(z, &w.sa, w.len));
}

SCENARIO(in_use_wildcard, ALL, "EADDRINUSE against a wildcard")
{
	int x = tcp(), y = tcp();
	struct addr free = closed_port(), w = any(port_of(&free));
	R(bind(x, &w.sa, w.len));
	w = local_of(x);
	struct addr a = loop(port_of(&w));
	R(bind(y, &a.sa, a.len));
	R(listen(x, 1));
	R(bind(y, &a.sa, a.len));
	R(close(x));
	R(bind(y, &a.sa, a.len));
}

SCENARIO(other_address, ALL, "one port on two addresses")
{
	struct addr s = closed_port();
	int x = server_at(&s, 5), y = tcp();
	struct addr b = ip("127.0.0.2", "::1", port_of(&s));
	R(bind(y, &b.sa, b.len));
	if (fam == V6)
		return;
	R(listen(y, 5));
	int c = client(&b);
	FD(accept4(y, NULL, NULL, 0));
	int d = client(&s);
	FD(accept4(x, NULL, NULL, 0));
	show_names("to 127.0.0.2", c);
	show_names("to 127.0.0.1", d);
}

SCENARIO(reuseaddr_bound, ALL, "SO_REUSEADDR lets bound sockets share, not listening ones")
{
	for (int both = 0; both < 2; both++) {
		int x = tcp(), y = tcp();
		struct addr a = closed_port();
		R(set_int(x, SOL_SOCKET, SO_REUSEADDR, 1));
		if (both)
			R(set_int(y, SOL_SOCKET, SO_REUSEADDR, 1));
		R(bind(x, &a.sa, a.len));
		a = local_of(x);
		R(bind(y, &a.sa, a.len));
		R(listen(x, 1));
		R(listen(y, 1));
		R(close(x));
		R(listen(y, 1));
		close(y);
	}
}

SCENARIO(reuseaddr_listening, ALL, "SO_REUSEADDR does not take a listening port")
{
	int x = tcp(), y = tcp();
	struct addr a = closed_port();
	set_int(x, SOL_SOCKET, SO_REUSEADDR, 1);
	R(bind(x, &a.sa, a.len));
	R(listen(x, 1));
	a = local_of(x);
	set_int(y, SOL_SOCKET, SO_REUSEADDR, 1);
	R(bind(y, &a.sa, a.len));
	struct addr w = any(port_of(&a));
	R(bind(y, &w.sa, w.len));
}

SCENARIO(restart, ALL, "a server that restarts on its port, its connections still open")
{
	struct addr a = closed_port();
	for (int i = 0; i < 3; i++) {
		int l = tcp();
		R(set_int(l, SOL_SOCKET, SO_REUSEADDR, 1));
		R(bind(l, &a.sa, a.len));
		R(listen(l, 5));
		a = local_of(l);
		int c = client(&a), s = FD(accept(l, NULL, NULL));
		show_names("accepted", s);
		R(close(l));
		if (i == 1) /* this side closes first */
			R(close(s));
		OK(send(c, "x", 1, MSG_NOSIGNAL));
	}
}

SCENARIO(restart_without, ALL, "without SO_REUSEADDR a connection holds the port of its server")
{
	struct conn k = conn();
	int y = tcp();
	R(close(k.l));
	R(bind(y, &k.a.sa, k.a.len));
	R(set_int(y, SOL_SOCKET, SO_REUSEADDR, 1));
	R(bind(y, &k.a.sa, k.a.len));
}

SCENARIO(time_wait, ALL, "the side that closed first holds the port a while")
{
	struct conn k = conn();
	int y = tcp();
	R(close(k.s));
	wait_bits("client", k.c, POLLRDHUP);
	R(close(k.c));
	R(close(k.l));
	R(bind(y, &k.a.sa, k.a.len));
}

SCENARIO(rebind_at_once, ALL, "close and bind again, a hundred times")
{
	struct addr a = closed_port();
	int ok = 0;
	for (int i = 0; i < 100; i++) {
		int fd = tcp();
		ok += bind(fd, &a.sa, a.len) == 0 && listen(fd, 5) == 0;
		close(fd);
	}
	R(ok);
}

SCENARIO(reuseport_rules, ALL, "SO_REUSEPORT: who may share")
{
	for (int i = 0; i < 4; i++) {
		int x = tcp(), y = tcp();
		struct addr a = closed_port();
		RL(set_int(x, SOL_SOCKET, SO_REUSEPORT, i & 1), "first REUSEPORT %d", i & 1);
		RL(set_int(y, SOL_SOCKET, SO_REUSEPORT, i >> 1), "second REUSEPORT %d", i >> 1);
		R(bind(x, &a.sa, a.len));
		a = local_of(x);
		R(bind(y, &a.sa, a.len));
		R(listen(x, 5));
		R(listen(y, 5));
		close(x), close(y);
	}
}

static void reuseport_worker(void *arg)
{
	struct addr *a = arg;
	int fd = tcp(), n = 0;
	set_int(fd, SOL_SOCKET, SO_REUSEPORT, 1);
	R(bind(fd, &a->sa, a->len));
	R(listen(fd, 64));
	nonblock(fd, 1);
	turn_give(0);
	/* Until every connection of the scenario is taken by someone. */
	while (__atomic_load_n(&cf_shared->turn[1], __ATOMIC_SEQ_CST) < 64) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		poll(&p, 1, 20);
		int s = accept(fd, NULL, NULL);
		if (s >= 0) {
			turn_give(1);
			n++;
			if (send(s, "x", 1, MSG_NOSIGNAL) != 1)
				say("send %s", ename(errno));
		}
	}
	say("got some: %d", n > 0);
}

SCENARIO(reuseport_shared_out, ALL, "four processes share a port's connections")
{
	int hold = tcp(), c[64], answered = 0;
	struct addr a = closed_port();
	struct task *t[4];
	set_int(hold, SOL_SOCKET, SO_REUSEPORT, 1);
	R(bind(hold, &a.sa, a.len));
	a = local_of(hold);
	for (int i = 0; i < 4; i++)
		t[i] = spawn("worker", reuseport_worker, &a);
	turn_wait(0, 4);
	for (int i = 0; i < 64; i++) {
		char b;
		c[i] = client(&a);
		answered += recv(c[i], &b, 1, 0) == 1;
	}
	R(answered);
	for (int i = 0; i < 4; i++)
		reap(t[i]);
}

static void as_user(void *arg)
{
	static const int ports[] = {1, 80, 443, 1023};
	(void)arg;
	if (setgroups(0, NULL) || setgid(65534) || setuid(65534))
		die("setuid");
	for (size_t i = 0; i < N(ports); i++) {
		struct addr a = loop(htons((uint16_t)ports[i])), w = any(htons((uint16_t)ports[i]));
		RL(bind(tcp(), &a.sa, a.len), "bind loopback:%d", ports[i]);
		RL(bind(tcp(), &w.sa, w.len), "bind any:%d", ports[i]);
	}
	struct addr a = closed_port();
	int l = server_at(&a, 5);
	int c = client(&a);
	FD(accept(l, NULL, NULL));
	show_names("client", c);
}

SCENARIO(privileged, ALL | ROOT, "an ordinary user gets EACCES below 1024")
{
	reap(spawn("user", as_user, NULL));
}

static void in_use_by_root(void *arg)
{
	struct addr *a = arg;
	if (setgid(65534) || setuid(65534))
		die("setuid");
	int fd = tcp();
	set_int(fd, SOL_SOCKET, SO_REUSEPORT, 1);
	R(bind(fd, &a->sa, a->len));
}

SCENARIO(reuseport_other_user, ALL | ROOT, "SO_REUSEPORT is not shared with another user")
{
	int fd = tcp();
	struct addr a = closed_port();
	R(set_int(fd, SOL_SOCKET, SO_REUSEPORT, 1));
	R(bind(fd, &a.sa, a.len));
	R(listen(fd, 5));
	a = local_of(fd);
	reap(spawn("user", in_use_by_root, &a));
}

SCENARIO(not_local, ALL, "EADDRNOTAVAIL for an address that is not ours")
{
	struct addr as[] = {ip("203.0.113.77", "2001:db8::77", 0), ip("255.255.255.255", "ff02::1", 0),
			    ip("224.0.0.1", "ff0e::1", 0)};
	for (size_t i = 0; i < N(as); i++)
		RL(bind(tcp(), &as[i].sa, as[i].len), "bind %s", addr_text(&as[i].sa, as[i].len));
}

SCENARIO(lengths, ALL, "address lengths too short and too long")
{
	struct addr a = loop(0);
	static const socklen_t lens[] = {0, 1, 2, 8, 15, 16, 17, 23, 24, 27, 28, 29, 128, 129, 4096, 0x7fffffff, (socklen_t)-1};
	char big[4200] = {0};
	memcpy(big, &a.sa, a.len);
	for (size_t i = 0; i < N(lens); i++) {
		int fd = tcp();
		RL(syscall(SYS_bind, fd, big, lens[i]), "bind length %d", (int)lens[i]);
		close(fd);
	}
}

SCENARIO(families, ALL, "address families that do not fit the socket")
{
	struct addr four = ip4("127.0.0.1", 0), six = ip6("::1", 0), zero = four, unspec_any = ip4("0.0.0.0", 0);
	struct sockaddr_un un = {.sun_family = AF_UNIX, .sun_path = "/nonexistent/x"};
	R(bind(tcp(), &four.sa, four.len));
	R(bind(tcp(), &six.sa, six.len));
	zero.sa.sa_family = AF_UNSPEC;
	R(bind(tcp(), &zero.sa, zero.len));
	unspec_any.sa.sa_family = AF_UNSPEC;
	R(bind(tcp(), &unspec_any.sa, unspec_any.len));
	unspec_any.len = sizeof unspec_any.in6;
	R(bind(tcp(), &unspec_any.sa, unspec_any.len));
	R(bind(tcp(), (void *)&un, sizeof un));
	zero.sa.sa_family = 200;
	R(bind(tcp(), &zero.sa, sizeof zero.ss));
}

SCENARIO(faults, ALL, "EFAULT, and what is checked before it")
{
	struct addr a = loop(0);
	int fd = tcp();
	char *page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	munmap(page + 4096, 4096);
	memcpy(page + 4096 - a.len, &a.sa, a.len);
	R(syscall(SYS_bind, fd, NULL, a.len));
	R(syscall(SYS_bind, fd, 1L, a.len));
	R(syscall(SYS_bind, fd, page + 4096 - a.len + 1, a.len));
	R(syscall(SYS_bind, fd, -1L, a.len));
	R(syscall(SYS_bind, fd, NULL, 0));
	R(syscall(SYS_bind, fd, NULL, 1000));
	R(syscall(SYS_bind, fd, page + 4096 - a.len, a.len));
	show_names("bound", fd);
}

SCENARIO(readonly_address, ALL, "an address in read-only memory")
{
	struct addr a = loop(0);
	char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memcpy(page, &a.sa, a.len);
	mprotect(page, 4096, PROT_READ);
	R(syscall(SYS_bind, tcp(), page, a.len));
}

SCENARIO(v6only, INET6, "IPV6_V6ONLY default, set, and too late")
{
	struct addr free = closed_port(), a = any(port_of(&free));
	int fd = tcp();
	say("default %d", get_int(fd, IPPROTO_IPV6, IPV6_V6ONLY));
	R(set_int(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1));
	say("set %d", get_int(fd, IPPROTO_IPV6, IPV6_V6ONLY));
	struct addr m = ip6("::ffff:127.0.0.1", 0);
	R(bind(fd, &m.sa, m.len));
	R(bind(fd, &a.sa, a.len));
	R(set_int(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0));
	R(listen(fd, 5));
	a = local_of(fd);
	struct addr four = ip4("127.0.0.1", port_of(&a)), six = ip6("::1", port_of(&a));
	R(connect(socket(AF_INET, SOCK_STREAM, 0), &four.sa, four.len));
	R(connect(socket(AF_INET6, SOCK_STREAM, 0), &six.sa, six.len));
}

SCENARIO(v4_beside_v6, INET6, "v4 and v6-only servers on one port, each gets its own")
{
	struct addr free = closed_port(), a = ip6("::", port_of(&free)), from = {.len = sizeof from.ss};
	int six = socket(AF_INET6, SOCK_STREAM, 0), four = socket(AF_INET, SOCK_STREAM, 0);
	R(set_int(six, IPPROTO_IPV6, IPV6_V6ONLY, 1));
	R(bind(six, &a.sa, a.len));
	a = local_of(six);
	struct addr b = ip4("0.0.0.0", port_of(&a));
	R(bind(four, &b.sa, b.len));
	R(listen(six, 5));
	R(listen(four, 5));
	struct addr to4 = ip4("127.0.0.1", port_of(&a)), to6 = ip6("::1", port_of(&a));
	int c4 = socket(AF_INET, SOCK_STREAM, 0), c6 = socket(AF_INET6, SOCK_STREAM, 0);
	R(connect(c4, &to4.sa, to4.len));
	R(connect(c6, &to6.sa, to6.len));
	FD(accept(four, &from.sa, &from.len));
	say("v4 server: from family %d", from.sa.sa_family == AF_INET);
	from.len = sizeof from.ss;
	FD(accept(six, &from.sa, &from.len));
	say("v6 server: from family %d", from.sa.sa_family == AF_INET6);
}

SCENARIO(dual_conflict, INET6, "a dual-stack wildcard holds the v4 port too")
{
	struct addr free = closed_port(), a = ip6("::", port_of(&free));
	int six = socket(AF_INET6, SOCK_STREAM, 0), four = socket(AF_INET, SOCK_STREAM, 0);
	R(bind(six, &a.sa, a.len));
	a = local_of(six);
	struct addr b = ip4("0.0.0.0", port_of(&a)), c = ip4("127.0.0.1", port_of(&a));
	R(bind(four, &b.sa, b.len));
	R(bind(four, &c.sa, c.len));
	R(listen(six, 5));
	R(bind(four, &c.sa, c.len));
	R(close(six));
	R(bind(four, &b.sa, b.len));
	six = socket(AF_INET6, SOCK_STREAM, 0);
	R(bind(six, &a.sa, a.len));
	struct addr one = ip6("::1", port_of(&a));
	R(bind(six, &one.sa, one.len));
}

SCENARIO(before_connect, ALL, "bind then connect: the peer sees that port")
{
	struct addr a, mine = loop(0);
	int l = server(&a), c = tcp(), s;
	R(bind(c, &mine.sa, mine.len));
	show_names("client, bound", c);
	R(connect(c, &a.sa, a.len));
	s = accept(l, NULL, NULL);
	show_names("client", c);
	show_names("accepted", s);
}

SCENARIO(before_connect_any, ALL, "bind to any, then connect fills the address in")
{
	struct addr a, mine = any(0);
	int l = server(&a), c = tcp(), s;
	R(bind(c, &mine.sa, mine.len));
	show_names("client, bound", c);
	R(connect(c, &a.sa, a.len));
	s = accept(l, NULL, NULL);
	show_names("client", c);
	show_names("accepted", s);
}

SCENARIO(before_connect_address, V4 | MAPPED, "the peer sees the source address bound to")
{
	struct addr a, mine = ip("127.0.0.9", "", 0);
	int l = server(&a), c = tcp(), s;
	R(bind(c, &mine.sa, mine.len));
	R(connect(c, &a.sa, a.len));
	s = accept(l, NULL, NULL);
	show_names("client", c);
	show_names("accepted", s);
}

SCENARIO(address_no_port, V4, "IP_BIND_ADDRESS_NO_PORT chooses the port at connect")
{
	struct addr a, mine = loop(0);
	int l = server(&a), c = tcp();
	R(set_int(c, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1));
	R(bind(c, &mine.sa, mine.len));
	show_names("bound", c);
	R(connect(c, &a.sa, a.len));
	show_names("client", c);
	show_names("accepted", accept(l, NULL, NULL));
}

SCENARIO(same_source_twice, ALL, "one source port to two servers, by SO_REUSEADDR")
{
	struct addr a, b, mine = closed_port();
	int la = server(&a), lb = server(&b), x = tcp(), y = tcp();
	set_int(x, SOL_SOCKET, SO_REUSEADDR, 1);
	set_int(y, SOL_SOCKET, SO_REUSEADDR, 1);
	R(bind(x, &mine.sa, mine.len));
	mine = local_of(x);
	R(connect(x, &a.sa, a.len));
	R(bind(y, &mine.sa, mine.len));
	R(connect(y, &b.sa, b.len));
	show_names("to a", accept(la, NULL, NULL));
	show_names("to b", accept(lb, NULL, NULL));
	int z = tcp();
	set_int(z, SOL_SOCKET, SO_REUSEADDR, 1);
	R(bind(z, &mine.sa, mine.len));
	R(connect(z, &a.sa, a.len));
}

SCENARIO(ephemeral, ALL, "a thousand ports by bind 0 are distinct")
{
	static in_port_t seen[65536];
	struct rlimit r = {1100, 1100};
	setrlimit(RLIMIT_NOFILE, &r);
	int doubled = 0, low = 0;
	for (int i = 0; i < 1000; i++) {
		struct addr a = loop(0);
		int fd = tcp();
		if (bind(fd, &a.sa, a.len) < 0)
			die("bind");
		a = local_of(fd);
		doubled += seen[port_of(&a)]++ > 0;
		low += ntohs(port_of(&a)) < 1024;
	}
	R(doubled);
	R(low);
}

static void hold_port(void *arg)
{
	struct addr *a = arg;
	R(bind(tcp(), &a->sa, a->len));
	turn_give(0);
	turn_wait(1, 1);
}

SCENARIO(held_by_child, ALL, "a port another process holds, until it is killed")
{
	struct addr a = closed_port();
	struct task *t = spawn("child", hold_port, &a);
	turn_wait(0, 1);
	int fd = tcp();
	R(bind(fd, &a.sa, a.len));
	R(kill(t->tid, SIGKILL));
	reap(t);
	R(bind(fd, &a.sa, a.len));
}

SCENARIO(held_by_dup, ALL, "a dup holds the port after close")
{
	struct addr a = loop(0);
	int fd = server_at(&a, 5), d = dup(fd), y = tcp();
	R(close(fd));
	R(bind(y, &a.sa, a.len));
	int c = client(&a);
	FD(accept(d, NULL, NULL));
	show_names("client", c);
	R(close(d));
	R(connect(tcp(), &a.sa, a.len));
}

SCENARIO(connected, ALL, "bind on a connected socket")
{
	struct conn k = conn();
	struct addr a = loop(0);
	R(bind(k.c, &a.sa, a.len));
	R(bind(k.s, &a.sa, a.len));
}

SCENARIO(ephemeral_in_use, ALL, "the local port of a connection can be taken only by agreement")
{
	struct conn k = conn();
	struct addr a = local_of(k.c);
	int x = tcp(), y = tcp();
	R(bind(x, &a.sa, a.len));
	R(set_int(y, SOL_SOCKET, SO_REUSEADDR, 1));
	R(bind(y, &a.sa, a.len));
}

SCENARIO(bind_to_device, ALL | ROOT, "SO_BINDTODEVICE lo carries the loopback")
{
	struct addr a;
	int l = server(&a), c = tcp();
	char name[16];
	socklen_t n = sizeof name;
	R(setsockopt(c, SOL_SOCKET, SO_BINDTODEVICE, "lo", 3));
	R(getsockopt(c, SOL_SOCKET, SO_BINDTODEVICE, name, &n));
	say("%.*s", (int)n, name);
	R(setsockopt(c, SOL_SOCKET, SO_BINDTODEVICE, "nosuch0", 8));
	R(connect(c, &a.sa, a.len));
	FD(accept(l, NULL, NULL));
}

SCENARIO(freebind, V4, "IP_FREEBIND and IP_TRANSPARENT bind to what is not ours")
{
	struct addr a = ip4("203.0.113.9", 0);
	int x = tcp();
	R(set_int(x, IPPROTO_IP, IP_FREEBIND, 1));
	R(bind(x, &a.sa, a.len));
	show_names("bound", x);
	R(listen(x, 1));
}
