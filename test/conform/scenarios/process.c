/* process.c - sockets across fork, exec, threads, users and namespaces. */
#include "conform.h"
#include <grp.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <spawn.h>
#include <sys/prctl.h>

extern char **environ;

/* exchange proves that two ends are one connection, both ways. */
static void exchange(const char *what, int a, int b)
{
	char x[4] = "", y[4] = "";
	int ok = send(a, "ping", 4, MSG_NOSIGNAL) == 4 && recv(b, x, 4, MSG_WAITALL) == 4 && !memcmp(x, "ping", 4) &&
		 send(b, "pong", 4, MSG_NOSIGNAL) == 4 && recv(a, y, 4, MSG_WAITALL) == 4 && !memcmp(y, "pong", 4);
	say("%s: %s", what, ok ? "exchanged" : "NOT exchanged");
}

/* run_self executes this program again; fds go as arguments. */
static char **self_args(const char *name, int a, int b)
{
	static char fa[16], fb[16], *args[7];
	snprintf(fa, sizeof fa, "%d", a);
	snprintf(fb, sizeof fb, "%d", b);
	args[0] = cf_argv[0], args[1] = "--exec", args[2] = (char *)name;
	args[3] = fam == V4 ? "v4" : fam == V6 ? "v6" : "mapped", args[4] = fa, args[5] = fb;
	return args;
}
static void exec_self(const char *name, int a, int b) { execv("/proc/self/exe", self_args(name, a, b)); }
static int arg(int i) { return atoi(cf_argv[4 + i]); }

static void wait_for(const char *who, pid_t p)
{
	int st = -1;
	waitpid(p, &st, 0);
	show_status(who, st);
}

static void child_client(void *arg)
{
	struct conn *k = arg;
	R(send(k->c, "from the child", 14, MSG_NOSIGNAL));
	show_names("client", k->c);
}

SCENARIO(fork_shared, ALL, "parent and child share a connection; it ends with the last")
{
	struct conn k = conn();
	char b[16] = "";
	reap(spawn("child", child_client, &k));
	R(recv(k.s, b, 14, MSG_WAITALL));
	say("%s", b);
	exchange("after the child", k.c, k.s);
	R(close(k.c));
	wait_bits("accepted", k.s, POLLRDHUP);
}

static void serve_one(void *arg)
{
	int s = *(int *)arg;
	char b[8];
	R(recv(s, b, 4, MSG_WAITALL));
	R(send(s, b, 4, MSG_NOSIGNAL));
}

SCENARIO(fork_per_connection, ALL, "a server that forks for every connection")
{
	struct addr a;
	int l = server(&a);
	for (int i = 0; i < 5; i++) {
		char b[5] = "";
		int c = client(&a), s = accept(l, NULL, NULL);
		fcntl(c, F_SETFD, FD_CLOEXEC);
		struct task *t = spawn("child", serve_one, &s);
		close(s);
		R(send(c, "abcd", 4, MSG_NOSIGNAL));
		R(recv(c, b, 4, MSG_WAITALL));
		reap(t);
		wait_bits("client", c, POLLRDHUP);
		close(c);
	}
}

static void child_makes_all(void *arg)
{
	(void)arg;
	struct conn k = conn();
	exchange("in the child", k.c, k.s);
}

SCENARIO(fork_fresh, ALL, "a child makes its own server and client")
{
	reap(spawn("child", child_makes_all, NULL));
	struct conn k = conn();
	exchange("in the parent", k.c, k.s);
}

static void connect_inherited(void *arg)
{
	int *fds = arg;
	struct addr a = local_of(fds[0]);
	R(connect(fds[1], &a.sa, a.len));
}

SCENARIO(fork_then_connect, ALL, "a child connects a socket the parent made")
{
	struct addr a;
	int fds[2] = {server(&a), tcp()};
	reap(spawn("child", connect_inherited, fds));
	int s = accept(fds[0], NULL, NULL);
	exchange("parent", fds[1], s);
	show_names("client", fds[1]);
}

EXEC(use, "an executed program uses two inherited sockets")
{
	show_names("exec: client", arg(0));
	say("exec: SO_TYPE %d SO_DOMAIN %d", get_int(arg(0), SOL_SOCKET, SO_TYPE), get_int(arg(0), SOL_SOCKET, SO_DOMAIN));
	exchange("exec", arg(0), arg(1));
}

SCENARIO(exec_inherited, ALL, "exec with inherited sockets")
{
	struct conn k = conn();
	fcntl(k.s, F_SETFD, 0);
	pid_t p = fork();
	if (p == 0)
		exec_self("use", k.c, k.s), _exit(9);
	wait_for("exec", p);
	exchange("parent", k.c, k.s);
}

EXEC(listen, "an executed program accepts on an inherited socket")
{
	int l = arg(0);
	say("exec: SO_ACCEPTCONN %d", get_int(l, SOL_SOCKET, SO_ACCEPTCONN));
	struct addr a = local_of(l);
	int c = client(&a), s = accept(l, NULL, NULL);
	exchange("exec", c, s);
}

SCENARIO(exec_listener, ALL, "exec with an inherited listening socket, as systemd does")
{
	struct addr a;
	int l = server(&a);
	pid_t p = fork();
	if (p == 0)
		exec_self("listen", l, 0), _exit(9);
	wait_for("exec", p);
	exec_self("listen", l, 0);
}

EXEC(gone, "what an executed program sees of a close-on-exec socket")
{
	R(fcntl(arg(0), F_GETFD));
}

SCENARIO(exec_cloexec, ALL, "close-on-exec: gone in the program, EOF at the peer")
{
	struct addr a;
	int l = server(&a), c = socket(AF, SOCK_STREAM | SOCK_CLOEXEC, 0);
	connect(c, &a.sa, a.len);
	int s = accept4(l, NULL, NULL, SOCK_CLOEXEC);
	pid_t p = fork();
	if (p == 0)
		exec_self("gone", c, 0), _exit(9);
	wait_for("exec", p);
	exchange("parent", c, s);
	R(close(c));
	wait_bits("accepted", s, POLLRDHUP);
}

SCENARIO(dups, ALL, "dup, dup2, dup3, F_DUPFD, F_DUPFD_CLOEXEC")
{
	struct conn k = conn();
	int d[5] = {FD(dup(k.c)), FD(dup2(k.c, 50)), FD(dup3(k.c, 51, O_CLOEXEC)), FD(fcntl(k.c, F_DUPFD, 60)),
		    FD(fcntl(k.c, F_DUPFD_CLOEXEC, 61))};
	for (int i = 0; i < 5; i++) {
		say("F_GETFD %d", fcntl(d[i], F_GETFD));
		exchange("dup", d[i], k.s);
	}
	R(dup3(k.c, k.c, 0));
	R(dup2(k.c, k.c) == k.c);
	show_names("dup", d[3]);
}

SCENARIO(dup2_over, ALL, "dup2 over an open socket closes it")
{
	struct conn k = conn(), q = conn();
	R(dup2(k.c, q.c) == q.c);
	wait_bits("its peer", q.s, POLLRDHUP);
	exchange("dup", q.c, k.s);
}

SCENARIO(dup2_before_connect, ALL, "dup2 onto a low descriptor, then connect there")
{
	struct addr a;
	int l = server(&a), c = tcp();
	R(dup2(c, 0));
	R(close(c));
	R(connect(0, &a.sa, a.len));
	int s = accept(l, NULL, NULL);
	exchange("fd 0", 0, s);
}

SCENARIO(inetd, ALL, "a socket as stdin and stdout of cat")
{
	struct conn k = conn();
	char b[16] = "";
	fcntl(k.c, F_SETFD, FD_CLOEXEC);
	pid_t p = fork();
	if (p == 0) {
		dup2(k.s, 0), dup2(k.s, 1);
		execlp("cat", "cat", NULL);
		_exit(9);
	}
	R(close(k.s));
	R(send(k.c, "through cat", 11, MSG_NOSIGNAL));
	R(recv(k.c, b, 11, MSG_WAITALL));
	say("%s", b);
	R(shutdown(k.c, SHUT_WR));
	wait_bits("client", k.c, POLLRDHUP);
	R(recv(k.c, b, 1, 0));
	wait_for("cat", p);
}

SCENARIO(posix_spawn, ALL, "posix_spawn hands a socket over as stdin and stdout")
{
	struct conn k = conn();
	posix_spawn_file_actions_t fa;
	char b[16] = "", *argv[] = {"head", "-c", "5", NULL};
	pid_t p;
	fcntl(k.c, F_SETFD, FD_CLOEXEC);
	posix_spawn_file_actions_init(&fa);
	posix_spawn_file_actions_adddup2(&fa, k.s, 0);
	posix_spawn_file_actions_adddup2(&fa, k.s, 1);
	R(posix_spawnp(&p, "head", &fa, NULL, argv, environ));
	R(close(k.s));
	R(send(k.c, "hello", 5, MSG_NOSIGNAL));
	R(recv(k.c, b, 5, MSG_WAITALL));
	say("%s", b);
	wait_for("head", p);
	wait_bits("client", k.c, POLLRDHUP);
}

SCENARIO(vfork, ALL, "vfork and exec with inherited sockets")
{
	struct conn k = conn();
	fcntl(k.s, F_SETFD, 0);
	char **args = self_args("use", k.c, k.s);
	pid_t p = vfork();
	if (p == 0) {
		execv("/proc/self/exe", args);
		_exit(9);
	}
	wait_for("exec", p);
	exchange("parent", k.c, k.s);
}

static void send_fd(int via, int fd)
{
	union {
		char buf[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} u = {0};
	struct iovec v = {"x", 1};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = u.buf, .msg_controllen = sizeof u.buf};
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	c->cmsg_level = SOL_SOCKET, c->cmsg_type = SCM_RIGHTS, c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &fd, sizeof fd);
	R(sendmsg(via, &m, 0));
}

static int recv_fd(int via)
{
	union {
		char buf[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} u = {0};
	char x;
	int fd = -1;
	struct iovec v = {&x, 1};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = u.buf, .msg_controllen = sizeof u.buf};
	R(recvmsg(via, &m, MSG_CMSG_CLOEXEC));
	if (CMSG_FIRSTHDR(&m))
		memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof fd);
	return fd;
}

EXEC(rights, "an executed program gets sockets by SCM_RIGHTS")
{
	int via = arg(0), l = recv_fd(via), c = recv_fd(via), f = recv_fd(via);
	struct addr a = local_of(l);
	say("exec: SO_ACCEPTCONN %d", get_int(l, SOL_SOCKET, SO_ACCEPTCONN));
	R(send(c, "passed", 6, MSG_NOSIGNAL));
	show_names("exec: connected", c);
	R(connect(f, &a.sa, a.len));
	int s = accept(l, NULL, NULL);
	exchange("exec: fresh one connected", f, s);
}

SCENARIO(scm_rights, ALL, "listening, connected and fresh sockets to another program")
{
	struct conn k = conn();
	int p[2], f = tcp();
	char b[8] = "";
	socketpair(AF_UNIX, SOCK_STREAM, 0, p);
	fcntl(k.l, F_SETFD, FD_CLOEXEC), fcntl(k.c, F_SETFD, FD_CLOEXEC), fcntl(f, F_SETFD, FD_CLOEXEC);
	fcntl(p[0], F_SETFD, FD_CLOEXEC);
	send_fd(p[0], k.l), send_fd(p[0], k.c), send_fd(p[0], f);
	close(k.l), close(k.c), close(f);
	pid_t pid = fork();
	if (pid == 0)
		exec_self("rights", p[1], 0), _exit(9);
	wait_for("exec", pid);
	close(p[1]);
	R(recv(k.s, b, 6, MSG_WAITALL));
	say("%s", b);
	wait_bits("accepted", k.s, POLLRDHUP);
}

SCENARIO(scm_rights_in_flight, ALL, "a socket that lives only in a message keeps its connection")
{
	struct conn k = conn();
	int p[2];
	socketpair(AF_UNIX, SOCK_STREAM, 0, p);
	send_fd(p[0], k.c);
	R(close(k.c));
	show_bits("accepted", k.s);
	int c = recv_fd(p[1]);
	exchange("passed", c, k.s);
}

static void accept_here(void *arg) { ((struct conn *)arg)->s = FD(accept(((struct conn *)arg)->l, NULL, NULL)); }
static void connect_here(void *arg)
{
	struct conn *k = arg;
	R(connect(k->c, &k->a.sa, k->a.len));
}

SCENARIO(threads, ALL, "socket, connect, accept and close each in another thread")
{
	struct conn k = {.c = tcp()};
	k.l = server(&k.a);
	struct task *t = start("accept", accept_here, &k), *u = start("connect", connect_here, &k);
	join(t);
	join(u);
	exchange("main", k.c, k.s);
}

static void *after_leader(void *arg)
{
	struct task *leader = arg;
	char path[64], text[256] = "";
	/* The main thread is a zombie now, and still the process. */
	snprintf(path, sizeof path, "/proc/self/task/%d/stat", leader->tid);
	UNTIL(({
		int fd = open(path, O_RDONLY);
		ssize_t n = read(fd, text, sizeof text - 1);
		close(fd);
		n > 0 && strstr(text, ") Z");
	}));
	struct conn k = conn();
	exchange("second thread", k.c, k.s);
	show_names("client", k.c);
	exit(0);
}

SCENARIO(leader_gone, ALL, "the main thread has exited, another goes on")
{
	static struct task leader;
	pthread_t t;
	leader.tid = getpid();
	pthread_create(&t, NULL, after_leader, &leader);
	pthread_exit(NULL);
}

static void *exec_from_thread(void *arg)
{
	struct conn *k = arg;
	fcntl(k->s, F_SETFD, 0);
	exec_self("use", k->c, k->s);
	return NULL;
}

SCENARIO(exec_in_thread, ALL, "a thread that is not the leader executes a program")
{
	static struct conn k;
	pthread_t t;
	k = conn();
	pthread_create(&t, NULL, exec_from_thread, &k);
	pause();
}

static void daemonise(void *arg)
{
	int *fds = arg; /* a pipe to tell the address */
	if (fork() > 0)
		_exit(0);
	setsid();
	if (fork() > 0)
		_exit(0);
	if (chdir("/") < 0)
		_exit(1);
	alarm(LIMIT_S);
	for (int i = 0; i < 3; i++)
		close(i), open("/dev/null", O_RDWR);
	struct addr a;
	int l = server(&a);
	if (write(fds[1], &a, sizeof a) != sizeof a)
		_exit(1);
	int s = accept(l, NULL, NULL);
	char b[4];
	if (recv(s, b, 4, MSG_WAITALL) == 4 && !memcmp(b, "ping", 4))
		send(s, "pong", 4, MSG_NOSIGNAL);
	_exit(0);
}

SCENARIO(daemon, ALL, "a daemon serves after its parents are gone")
{
	int fds[2];
	struct addr a;
	char b[8] = "";
	if (pipe(fds) < 0)
		die("pipe");
	reap(spawn("parent", daemonise, fds));
	R(read(fds[0], &a, sizeof a) == sizeof a);
	int c = client(&a);
	R(send(c, "ping", 4, MSG_NOSIGNAL));
	R(recv(c, b, 4, MSG_WAITALL));
	wait_bits("client", c, POLLRDHUP);
}

static void drop_privileges(void *arg)
{
	struct conn *k = arg;
	struct addr b;
	int c0 = client(&k->a), f = tcp();
	if (setgroups(0, NULL) || setgid(65534) || setuid(65534))
		die("setuid");
	say("dumpable %d", prctl(PR_GET_DUMPABLE));
	int s = FD(accept(k->l, NULL, NULL));
	exchange("listener from before", c0, s);
	R(connect(f, &k->a.sa, k->a.len));
	s = FD(accept(k->l, NULL, NULL));
	exchange("socket from before", f, s);
	int l = server(&b), c = client(&b);
	s = FD(accept(l, NULL, NULL));
	exchange("made after", c, s);
	show_names("made after", c);
	R(setsockopt(c, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int)));
}

SCENARIO(setuid, ALL | ROOT, "a server that drops root after listen, as nginx and sshd do")
{
	struct conn k;
	k.l = server(&k.a);
	reap(spawn("user", drop_privileges, &k));
}

static void not_dumpable(void *arg)
{
	(void)arg;
	if (setgid(65534) || setuid(65534))
		die("setuid");
	R(prctl(PR_SET_DUMPABLE, 0));
	child_makes_all(NULL);
}

SCENARIO(not_dumpable, ALL | ROOT, "PR_SET_DUMPABLE 0, as ssh-agent and sshd do") { reap(spawn("user", not_dumpable, NULL)); }

static void in_chroot(void *arg)
{
	if (chroot(arg) < 0 || chdir("/") < 0)
		die("chroot");
	child_makes_all(NULL);
}

SCENARIO(chroot, ALL | ROOT, "in an empty chroot")
{
	char dir[] = "/tmp/conform-root-XXXXXX";
	if (!mkdtemp(dir))
		die("mkdtemp");
	reap(spawn("chrooted", in_chroot, dir));
	rmdir(dir);
}

static void in_pidns(void *arg)
{
	struct conn *k = arg;
	R(getpid());
	R(send(k->c, "x", 1, MSG_NOSIGNAL));
	child_makes_all(NULL);
	int c = client(&k->a);
	char b[1];
	R(recv(c, b, 1, MSG_WAITALL));
}

static void pidns(int flags)
{
	struct conn k = conn();
	if (unshare(flags) < 0)
		skip("cannot make the namespace");
	struct task *t = spawn("inside", in_pidns, &k);
	char b[1];
	R(recv(k.s, b, 1, MSG_WAITALL));
	int s = FD(accept(k.l, NULL, NULL));
	R(send(s, "y", 1, MSG_NOSIGNAL));
	reap(t);
}

SCENARIO(pid_namespace, ALL | ROOT, "in a pid namespace of its own") { pidns(CLONE_NEWPID); }
SCENARIO(mount_namespace, ALL | ROOT, "in mount, ipc and uts namespaces of its own")
{
	pidns(CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS);
}

static void in_netns(void *arg)
{
	struct conn *k = arg;
	if (unshare(CLONE_NEWNET) < 0 || system("PATH=$PATH:/usr/sbin:/sbin; ip link set lo up") != 0)
		skip("needs ip(8) and a network namespace");
	await_route(k->a);
	R(connect(tcp(), &k->a.sa, k->a.len));
	exchange("connection from outside", k->c, k->s);
	int l = tcp();
	R(bind(l, &k->a.sa, k->a.len));
	R(listen(l, 5));
	int c = client(&k->a), s = FD(accept(l, NULL, NULL));
	exchange("inside", c, s);
	turn_give(0);
	turn_wait(1, 1);
	nonblock(l, 1);
	R(accept(l, NULL, NULL));
}

SCENARIO(net_namespace, ALL | ROOT, "a network namespace of its own: same port, other world")
{
	struct conn k = conn();
	struct task *t = spawn("inside", in_netns, &k);
	turn_wait(0, 1);
	int c = client(&k.a), s = FD(accept(k.l, NULL, NULL));
	exchange("outside", c, s);
	turn_give(1);
	reap(t);
}

SCENARIO(net_namespace_later, ALL | ROOT, "a socket stays in the namespace where it was made")
{
	struct addr a;
	int l = server(&a), c = tcp();
	if (unshare(CLONE_NEWNET) < 0)
		skip("cannot make a network namespace");
	R(connect(tcp(), &a.sa, a.len));
	R(connect(c, &a.sa, a.len));
	int s = FD(accept(l, NULL, NULL));
	exchange("from before", c, s);
	show_names("client", c);
}

static int shared_fds[3];
static int in_shared_files(void *arg)
{
	(void)arg;
	struct addr a;
	shared_fds[0] = server(&a);
	shared_fds[1] = client(&a);
	shared_fds[2] = accept(shared_fds[0], NULL, NULL);
	_exit(0);
}

SCENARIO(clone_files, ALL, "a process made by clone(CLONE_FILES|CLONE_VM) opens for both")
{
	static char stack[1 << 16] __attribute__((aligned(16)));
	pid_t p = clone(in_shared_files, stack + sizeof stack, CLONE_FILES | CLONE_VM | SIGCHLD, NULL);
	wait_for("clone", p);
	exchange("parent", shared_fds[1], shared_fds[2]);
	R(close(shared_fds[1]));
	wait_bits("accepted", shared_fds[2], POLLRDHUP);
}

static void install(struct sock_filter *f, unsigned short n)
{
	struct sock_fprog p = {n, f};
	R(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	R(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &p));
}

SCENARIO(own_filter, ALL, "a program that installs a seccomp filter of its own")
{
	struct sock_filter allow[] = {BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
	install(allow, 1);
	child_makes_all(NULL);
	struct sock_filter deny[] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
				     BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_socket, 0, 1),
				     BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EXDEV),
				     BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
	struct addr a;
	int l = server(&a), c = client(&a);
	install(deny, 4);
	R(socket(AF, SOCK_STREAM, 0));
	int s = FD(accept(l, NULL, NULL));
	exchange("from before", c, s);
}

static void connect_once(void *arg)
{
	int c = client(arg);
	char b[1];
	R(recv(c, b, 1, MSG_WAITALL));
}

SCENARIO(many_children, ALL, "thirty children connect at once")
{
	struct addr a;
	struct task *t[30];
	int l = server(&a), ok = 0;
	for (int i = 0; i < 30; i++)
		t[i] = spawn("child", connect_once, &a);
	for (int i = 0; i < 30; i++) {
		int s = accept(l, NULL, NULL);
		ok += s >= 0 && send(s, "x", 1, MSG_NOSIGNAL) == 1;
	}
	R(ok);
	for (int i = 0; i < 30; i++)
		reap(t[i]);
}
