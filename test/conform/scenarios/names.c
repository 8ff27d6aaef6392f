/* names.c - getsockname and getpeername. */
#include "conform.h"

SCENARIO(agree, ALL, "each side's local name is the other's peer name")
{
	struct conn k = conn();
	struct addr cl, cp, sl, sp;
	name_of(SYS_getsockname, k.c, &cl), name_of(SYS_getpeername, k.c, &cp);
	name_of(SYS_getsockname, k.s, &sl), name_of(SYS_getpeername, k.s, &sp);
	say("client's: %d, accepted's: %d", !memcmp(&cl.ss, &sp.ss, cl.len), !memcmp(&cp.ss, &sl.ss, cp.len));
	show_names("client", k.c);
	show_names("accepted", k.s);
	show_names("listening", k.l);
}

SCENARIO(accept_agrees, ALL, "accept tells the name getpeername tells")
{
	struct addr a, from = {.len = sizeof from.ss}, peer;
	int l = server(&a), c = client(&a), s = accept(l, &from.sa, &from.len);
	name_of(SYS_getpeername, s, &peer);
	say("same: %d", from.len == peer.len && !memcmp(&from.ss, &peer.ss, peer.len));
	close(c);
}

SCENARIO(lengths, ALL, "short, long and negative lengths")
{
	static const int lens[] = {0, 1, 2, 4, 15, 16, 20, 28, 100, 128, 500, -1};
	static const long calls[] = {SYS_getsockname, SYS_getpeername};
	struct conn k = conn();
	for (int c = 0; c < 2; c++)
		for (size_t i = 0; i < N(lens); i++) {
			unsigned char b[500];
			socklen_t n = (socklen_t)lens[i];
			struct addr want;
			name_of(calls[c], k.c, &want);
			memset(b, 0xee, sizeof b);
			RL(syscall(calls[c], k.c, b, &n), "%s length %d", c ? "getpeername" : "getsockname", lens[i]);
			say("length %d", (int)n);
			show_written(b, sizeof b, lens[i], &want);
		}
}

SCENARIO(faults, ALL, "bad pointers")
{
	struct conn k = conn();
	socklen_t n = 128;
	struct addr a;
	R(syscall(SYS_getsockname, k.c, NULL, &n));
	R(syscall(SYS_getsockname, k.c, 1L, &n));
	R(syscall(SYS_getsockname, k.c, &a, NULL));
	R(syscall(SYS_getsockname, k.c, &a, 1L));
	R(syscall(SYS_getpeername, k.c, NULL, &n));
	R(syscall(SYS_getpeername, k.c, &a, NULL));
	R(syscall(SYS_getpeername, tcp(), NULL, NULL));
	n = 0;
	R(syscall(SYS_getsockname, k.c, NULL, &n));
	say("length %u", n);
}

SCENARIO(every_state, ALL, "names from fresh to closed")
{
	struct addr a, mine = loop(0);
	int l = server(&a), c = tcp(), s;
	show_names("fresh", c);
	bind(c, &mine.sa, mine.len);
	show_names("bound", c);
	connect(c, &a.sa, a.len);
	show_names("connected", c);
	s = accept(l, NULL, NULL);
	shutdown(c, SHUT_WR);
	show_names("SHUT_WR", c);
	await(s, POLLRDHUP);
	show_names("accepted, peer's SHUT_WR", s);
	close(s);
	await(c, POLLHUP);
	show_names("closed by the peer too", c);
}

SCENARIO(after_peer_close, ALL, "the peer's name stays after it closed")
{
	struct conn k = conn();
	close(k.c);
	wait_bits("accepted", k.s, POLLRDHUP);
	show_names("accepted", k.s);
}

SCENARIO(after_refused, ALL, "names after a refused connect, with and without bind")
{
	struct addr a = closed_port(), mine = loop(0);
	for (int b = 0; b < 2; b++) {
		int c = tcp();
		if (b)
			R(bind(c, &mine.sa, mine.len));
		R(connect(c, &a.sa, a.len));
		show_names("refused", c);
	}
}

SCENARIO(distinct_ports, ALL, "two hundred open connections, two hundred ports")
{
	static unsigned char seen[65536];
	struct addr a = loop(0), me, peer;
	int l = server_at(&a, 256), doubled = 0, agree = 0;
	for (int i = 0; i < 200; i++) {
		int c = client(&a), s = accept(l, NULL, NULL);
		name_of(SYS_getsockname, c, &me), name_of(SYS_getpeername, s, &peer);
		doubled += seen[port_of(&me)]++ > 0;
		agree += port_of(&me) == port_of(&peer);
	}
	R(doubled);
	R(agree);
}

static void connect_many(void *arg)
{
	struct addr me;
	for (int i = 0; i < 50; i++) {
		int c = client(arg);
		name_of(SYS_getsockname, c, &me);
		__atomic_add_fetch(&cf_shared->turn[2], port_of(&me) == 0, __ATOMIC_SEQ_CST);
	}
}

SCENARIO(distinct_concurrent, ALL, "four threads at once: every port is its own")
{
	static unsigned char seen[65536];
	struct addr a = loop(0), peer;
	int l = server_at(&a, 512), doubled = 0;
	struct task *t[4];
	for (int i = 0; i < 4; i++)
		t[i] = start("client", connect_many, &a);
	for (int i = 0; i < 200; i++) {
		peer.len = sizeof peer.ss;
		if (accept(l, &peer.sa, &peer.len) < 0)
			die("accept");
		doubled += seen[port_of(&peer)]++ > 0;
	}
	for (int i = 0; i < 4; i++)
		join(t[i]);
	R(doubled);
	R(cf_shared->turn[2]);
}

SCENARIO(v4_to_dual, INET6, "a v4 client of a dual-stack server is seen v4-mapped")
{
	struct addr a = ip6("::", 0), from = {.len = sizeof from.ss};
	int l = server_at(&a, 5), c = socket(AF_INET, SOCK_STREAM, 0);
	struct addr to = ip4("127.0.0.1", port_of(&a));
	R(connect(c, &to.sa, to.len));
	int s = FD(accept(l, &from.sa, &from.len));
	say("from %s", addr_text(&from.sa, from.len));
	show_names("client", c);
	show_names("accepted", s);
	say("domain %d", get_int(s, SOL_SOCKET, SO_DOMAIN));
}

SCENARIO(v6_to_dual, INET6, "a v6 and a mapped client of one dual-stack server")
{
	struct addr a = ip6("::", 0);
	int l = server_at(&a, 5);
	struct addr to = loop(port_of(&a));
	int c = client(&to);
	show_names("client", c);
	show_names("accepted", accept(l, NULL, NULL));
}

SCENARIO(mapped_to_v4, MAPPED, "a v6 socket reaches a v4 server by a mapped address")
{
	struct addr a = ip4("127.0.0.1", 0);
	int l = socket(AF_INET, SOCK_STREAM, 0);
	R(bind(l, &a.sa, a.len));
	R(listen(l, 5));
	a = local_of(l);
	struct addr to = loop(port_of(&a));
	int c = client(&to);
	show_names("client", c);
	show_names("accepted", accept(l, NULL, NULL));
}

SCENARIO(flow_and_scope, V6, "flow labels and scope ids in addresses")
{
	struct addr a;
	int l = server(&a), c = tcp();
	a.in6.sin6_scope_id = 1;
	R(connect(c, &a.sa, a.len));
	show_names("client", c);
	show_names("accepted", accept(l, NULL, NULL));
	struct addr b = loop(0);
	b.in6.sin6_scope_id = 7;
	int d = tcp();
	R(bind(d, &b.sa, b.len));
	show_names("bound", d);
	b.in6.sin6_scope_id = 0;
	b.in6.sin6_flowinfo = htonl(5);
	d = tcp();
	R(bind(d, &b.sa, b.len));
	show_names("bound", d);
}

SCENARIO(link_local, V6 | ROOT, "link-local addresses carry their scope")
{
	if (unshare(CLONE_NEWNET) < 0 || system("PATH=$PATH:/usr/sbin:/sbin; ip link set lo up && ip addr add fe80::1/64 dev lo nodad") != 0)
		skip("needs ip(8) and a network namespace");
	struct addr a = ip6("fe80::1", 0);
	R(bind(tcp(), &a.sa, a.len));
	a.in6.sin6_scope_id = 1;
	await_route(a);
	int l = tcp();
	R(bind(l, &a.sa, a.len));
	R(listen(l, 5));
	show_names("listening", l);
	a = local_of(l);
	int c = tcp();
	R(connect(c, &a.sa, a.len));
	show_names("client", c);
	show_names("accepted", accept(l, NULL, NULL));
	a.in6.sin6_scope_id = 0;
	R(connect(tcp(), &a.sa, a.len));
}

SCENARIO(inherited, ALL, "a child sees the same names")
{
	struct conn k = conn();
	show_names("parent", k.c);
	fflush(NULL);
	pid_t p = fork();
	if (p == 0) {
		show_names("child", k.c);
		show_names("child's accepted", k.s);
		_exit(0);
	}
	waitpid(p, NULL, 0);
}
