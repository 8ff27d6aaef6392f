/*
 * What a trapped call costs at the least on this kernel: a supervisor that knows
 * the answer beforehand and makes only the system calls that no broker can do
 * without (find the caller's file, read its arguments, write the result, answer).
 * argv[1] is how often each call is made.
 */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef SO_COOKIE
#define SO_COOKIE 57
#endif
#define SET_FLAGS _IOW('!', 4, __u64) /* SECCOMP_IOCTL_NOTIF_SET_FLAGS */
#define SYNC_WAKE_UP 1UL	      /* SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP, by value */

static int fd;	      /* the program's socket */
static int made = -1; /* what socket(2) gave; closed outside the timing */

static long do_socket(void)
{
	made = syscall(SYS_socket, AF_UNIX, SOCK_STREAM, 0);
	return made;
}

static void close_made(void)
{
	if (made >= 0)
		close(made);
	made = -1;
}

static long do_setsockopt(void)
{
	int one = 1;
	return syscall(SYS_setsockopt, fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
}

static long do_getsockname(void)
{
	struct sockaddr_un a;
	socklen_t n = sizeof a;
	return syscall(SYS_getsockname, fd, &a, &n);
}

static const struct call {
	const char *name;
	int nr;
	long (*call)(void);
} calls[] = {
	{"socket", SYS_socket, do_socket},
	{"setsockopt", SYS_setsockopt, do_setsockopt},
	{"getsockname", SYS_getsockname, do_getsockname},
};

/* The program: traps one call, hands its listener over, makes the call. */
static void program(const struct call *c, int times, int to)
{
	struct sock_filter f[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, c->nr, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog p = {sizeof f / sizeof *f, f};
	char control[CMSG_SPACE(sizeof(int))] = {0}, x = 0;
	struct iovec io = {&x, 1};
	struct msghdr m = {.msg_iov = &io, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
	struct cmsghdr *h = CMSG_FIRSTHDR(&m);

	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	check(fd < 0, "socket");
	check(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs");
	int l = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &p);
	check(l < 0, "seccomp");
	h->cmsg_level = SOL_SOCKET;
	h->cmsg_type = SCM_RIGHTS;
	h->cmsg_len = CMSG_LEN(sizeof l);
	memcpy(CMSG_DATA(h), &l, sizeof l);
	check(sendmsg(to, &m, 0) < 0, "sendmsg");
	close(l);
	measure(c->name, times, nothing, c->call, close_made);
	_exit(0);
}

static void answer(int l, int pidfd, const struct seccomp_notif *n)
{
	struct seccomp_notif_resp r = {.id = n->id};
	char arg[16] = {0}, name[16] = {1};
	socklen_t len = sizeof name;
	unsigned long cookie;
	socklen_t cookie_len = sizeof cookie;

	if (n->data.nr == SYS_socket) {
		int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		struct seccomp_notif_addfd a = {.id = n->id, .flags = SECCOMP_ADDFD_FLAG_SEND, .srcfd = s};
		getsockopt(s, SOL_SOCKET, SO_COOKIE, &cookie, &cookie_len);
		check(ioctl(l, SECCOMP_IOCTL_NOTIF_ADDFD, &a) < 0, "addfd");
		close(s);
		return;
	}
	int copy = syscall(SYS_pidfd_getfd, pidfd, (int)n->data.args[0], 0);
	check(copy < 0, "pidfd_getfd");
	getsockopt(copy, SOL_SOCKET, SO_COOKIE, &cookie, &cookie_len);
	int set = n->data.nr == SYS_setsockopt;
	struct iovec here = {arg, sizeof(int)}, there = {(void *)n->data.args[set ? 3 : 2], sizeof(int)};
	check(process_vm_readv(n->pid, &here, 1, &there, 1, 0) < 0, "process_vm_readv");
	check(ioctl(l, SECCOMP_IOCTL_NOTIF_ID_VALID, &n->id), "id_valid");
	if (set) {
		setsockopt(copy, SOL_SOCKET, SO_KEEPALIVE, arg, sizeof(int));
	} else {
		struct iovec from[2] = {{name, sizeof name}, {&len, sizeof len}};
		struct iovec to[2] = {{(void *)n->data.args[1], sizeof name}, {(void *)n->data.args[2], sizeof len}};
		check(process_vm_writev(n->pid, from, 2, to, 2, 0) < 0, "process_vm_writev");
	}
	check(ioctl(l, SECCOMP_IOCTL_NOTIF_SEND, &r), "send");
	close(copy);
}

static void supervise(int from, int pid)
{
	char control[CMSG_SPACE(sizeof(int))], x;
	struct iovec io = {&x, 1};
	struct msghdr m = {.msg_iov = &io, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
	int l, pidfd = syscall(SYS_pidfd_open, pid, 0);

	check(pidfd < 0 || recvmsg(from, &m, 0) != 1 || !CMSG_FIRSTHDR(&m), "handover");
	memcpy(&l, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof l);
	ioctl(l, SET_FLAGS, SYNC_WAKE_UP); /* older kernels go on without */
	for (;;) {
		struct pollfd p = {l, POLLIN, 0};
		struct seccomp_notif n;
		memset(&n, 0, sizeof n);
		check(poll(&p, 1, -1) < 0, "poll");
		if (p.revents & POLLHUP)
			break;
		if (ioctl(l, SECCOMP_IOCTL_NOTIF_RECV, &n) == 0)
			answer(l, pidfd, &n);
	}
	close(l);
	close(pidfd);
}

int main(int argc, char **argv)
{
	int times = argc > 1 ? atoi(argv[1]) : 0;
	if (times < 100) {
		fprintf(stderr, "usage: %s TIMES (at least 100)\n", argv[0]);
		return 2;
	}
	for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
		int pair[2], status;
		check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), "socketpair");
		int pid = fork();
		check(pid < 0, "fork");
		if (pid == 0)
			program(&calls[i], times, pair[1]);
		supervise(pair[0], pid);
		close(pair[0]);
		close(pair[1]);
		check(waitpid(pid, &status, 0) < 0 || status != 0, "the program");
	}
	return 0;
}
