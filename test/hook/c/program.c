/*
 * Makes sockets in the ways that a hook library could get wrong, and prints for
 * each whether it is carried (an AF_UNIX one, in the kernel's table), the
 * kernel's own, or an errno. Words are arguments, done in turn.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* Memory that cannot be used; not near 0, where the loader has a page. */
static void *nowhere(void)
{
	return mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

/* A carried one is listed among the kernel's AF_UNIX sockets. */
static const char *kind(int fd)
{
	if (fd < 0)
		return strerrorname_np(errno);
	struct stat st;
	char line[256], inode[32];
	FILE *f = fopen("/proc/self/net/unix", "r");
	fstat(fd, &st);
	snprintf(inode, sizeof inode, " %lu", (unsigned long)st.st_ino);
	int carried = 0;
	while (f && fgets(line, sizeof line, f))
		carried = carried || strstr(line, inode);
	if (f)
		fclose(f);
	return f ? carried ? "carried" : "native" : "no /proc";
}

static int tcp(void) { return socket(AF_INET, SOCK_STREAM, 0); }

static void tell(const char *what)
{
	int fd = tcp();
	printf("%s: %s\n", what, kind(fd));
	fflush(stdout);
	if (fd >= 0)
		close(fd);
}

static int in_child(int (*f)(void))
{
	int status = -1;
	pid_t p = fork();
	if (p == 0)
		_exit(f());
	waitpid(p, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 99;
}

static int carried(void)
{
	int fd = tcp();
	return strcmp(kind(fd), "carried") != 0;
}

static char confinement[] = "/tmp/poemq-hook-XXXXXX";

/* After which neither the path nor the permission leads to the broker. */
static int confined(void)
{
	int proc = open("/proc/self/net/unix", O_RDONLY);
	char text[1 << 16], inode[32];
	struct stat st;
	if (proc < 0 || chroot(confinement) || chdir("/") || setgid(65534) || setuid(65534))
		return 1;
	int fd = tcp();
	if (fd < 0 || fstat(fd, &st))
		return 2;
	snprintf(inode, sizeof inode, " %lu\n", (unsigned long)st.st_ino);
	for (ssize_t n; (n = read(proc, text, sizeof text - 1)) > 0;) {
		text[n] = 0;
		if (strstr(text, inode))
			return 0;
	}
	return 3;
}

static int shared_stack_result;

/* A child that shares the parent's memory, as vfork's does. */
static int shares(void *arg)
{
	int fd = syscall(SYS_socket, AF_INET, SOCK_STREAM, 0);
	(void)arg;
	shared_stack_result = fd < 0 ? -errno : fd;
	return carried();
}

static void *thread(void *arg)
{
	for (int i = 0; i < 50; i++) {
		int fd = tcp();
		if (fd < 0)
			*(int *)arg = errno;
		close(fd);
	}
	return NULL;
}

static void crowd(int n)
{
	pthread_t t[1000];
	int error = 0, made = 0;
	pthread_attr_t small;

	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, 64 << 10);
	while (made < n && pthread_create(&t[made], &small, thread, &error) == 0)
		made++;
	for (int i = 0; i < made; i++)
		pthread_join(t[i], NULL);
	printf("%d threads: %s\n", made, error ? strerrorname_np(error) : "well");
}

static void bomb(int n)
{
	int bad = 0;
	for (int i = 0; i < n; i++) {
		pid_t p = fork();
		if (p == 0)
			_exit(tcp() < 0);
		if (p < 0)
			bad++;
	}
	for (int st; wait(&st) > 0;)
		bad += st != 0;
	printf("%d children: %d bad\n", n, bad);
}

static void nothing(int s) { (void)s; }

/* A handler makes a call while the thread it interrupted waits in one. */
static void nested(int s)
{
	(void)s;
	struct sockaddr_storage a;
	socklen_t n = sizeof a;
	int fd = tcp();
	getsockname(fd, (struct sockaddr *)&a, &n);
	if (write(1, fd >= 0 ? "nested: well\n" : "nested: bad\n", fd >= 0 ? 13 : 12) < 0)
		_exit(9);
	close(fd);
}

static void in_handler(void)
{
	struct sigaction act = { .sa_handler = nested };
	int l = tcp();

	listen(l, 1);
	sigaction(SIGALRM, &act, NULL);
	ualarm(50000, 0);
	int r = accept(l, NULL, NULL);
	printf("accept: %s\n", r < 0 ? strerrorname_np(errno) : "a connection");
	signal(SIGALRM, nothing);
	close(l);
}

/* From here on process_vm_writev(2) is EPERM, as under some containers' profiles. */
static void no_writev(void)
{
	struct sock_filter f[] = {
		{ BPF_LD | BPF_W | BPF_ABS, 0, 0, 0 },
		{ BPF_JMP | BPF_JEQ | BPF_K, 0, 1, SYS_process_vm_writev },
		{ BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ERRNO | EPERM },
		{ BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW },
	};
	struct sock_fprog p = { sizeof f / sizeof *f, f };
	struct sockaddr_in a;
	socklen_t n = sizeof a;
	int fd = tcp();

	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &p))
		perror("seccomp");
	printf("name: %s\n", getsockname(fd, (struct sockaddr *)&a, &n) ? strerrorname_np(errno) : a.sin_family == AF_INET && n == sizeof a ? "well" : "bad");
	printf("fault: %s\n", getsockname(fd, nowhere(), &n) ? strerrorname_np(errno) : "0");
}

static int listening = -1, ends[2] = { -1, -1 };

/* A connection of the program with itself, over which a byte went. */
static const char *make_pair(void)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t n = sizeof at;
	int l = tcp(), c = tcp(), a = -1;
	char b;

	if (bind(l, (struct sockaddr *)&at, n) || listen(l, 1) || getsockname(l, (struct sockaddr *)&at, &n) ||
	    connect(c, (struct sockaddr *)&at, n) || (a = accept(l, NULL, NULL)) < 0 || write(c, "x", 1) != 1 || read(a, &b, 1) != 1)
		return strerrorname_np(errno);
	close(l);
	ends[0] = c;
	ends[1] = a;
	return "well";
}

/* A read or write of one byte. */
static void carry(const char *what, ssize_t n)
{
	if (n < 0)
		printf("%s: %s\n", what, strerrorname_np(errno));
	else
		printf("%s: %zd\n", what, n);
}

static const char *connect_to(int port)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };

	return connect(tcp(), (struct sockaddr *)&at, sizeof at) ? strerrorname_np(errno) : "0";
}

int main(int argc, char **argv)
{
	char byte;

	setvbuf(stdout, NULL, _IOLBF, 0);
	signal(SIGPIPE, SIG_IGN);
	for (int i = 1; i < argc; i++) {
		const char *w = argv[i];
		if (!strcmp(w, "socket"))
			tell("socket");
		else if (!strcmp(w, "wait")) /* for a line */
			while (getchar() != '\n')
				;
		else if (!strcmp(w, "nowritev"))
			no_writev();
		else if (!strcmp(w, "listen"))
			printf("listen: %d\n", listen(listening = tcp(), 1));
		else if (!strcmp(w, "accept"))
			printf("accept: %s\n", accept(listening, NULL, NULL) < 0 ? strerrorname_np(errno) : "a connection");
		else if (!strcmp(w, "pair"))
			printf("pair: %s\n", make_pair());
		else if (!strcmp(w, "write"))
			carry(w, write(ends[0], "x", 1));
		else if (!strcmp(w, "ended")) /* waits until its connection has */
			printf("ended: %d\n", poll(&(struct pollfd){ .fd = ends[0] }, 1, -1));
		else if (!strcmp(w, "accepted")) /* a read of the other end */
			carry(w, read(ends[1], &byte, 1));
		else if (!strcmp(w, "connect"))
			printf("connect: %s\n", connect_to(atoi(argv[++i])));
		else if (!strcmp(w, "library")) { /* that makes system calls by itself */
			void *l = dlopen(argv[++i], RTLD_NOW);
			int (*own)(void) = NULL;

			if (l)
				*(void **)&own = dlsym(l, "own_tcp");
			printf("library: %s\n", own ? kind(own()) : dlerror());
			if (l)
				dlclose(l);
		} else if (!strcmp(w, "closeall"))
			syscall(SYS_close_range, 3, ~0u, 0);
		else if (!strcmp(w, "reopen")) /* files of its own where ours were */
			for (int fd = 3; fd < 4096; fd++)
				dup2(0, fd);
		else if (!strcmp(w, "fork"))
			printf("fork: %s\n", in_child(carried) ? "bad" : "carried");
		else if (!strcmp(w, "confined"))
			printf("confined: %d\n", mkdtemp(confinement) ? in_child(confined) : 9), rmdir(confinement);
		else if (!strcmp(w, "vfork")) {
			static char stack[256 << 10];
			int st = -1;
			pid_t p = clone(shares, stack + sizeof stack, CLONE_VM | CLONE_VFORK | SIGCHLD, NULL);
			waitpid(p, &st, 0);
			printf("vfork: %s\n", st == 0 && shared_stack_result >= 0 ? "carried" : "bad");
		} else if (!strcmp(w, "bomb"))
			bomb(500);
		else if (!strcmp(w, "crowd"))
			crowd(1000);
		else if (!strcmp(w, "handler"))
			in_handler();
		else if (!strcmp(w, "exec")) {
			argv[i] = argv[0];
			execv("/proc/self/exe", argv + i);
		} else if (!strcmp(w, "foreign")) { /* a file that is no socket, and none at all */
			int v = 1, p[2];
			if (pipe(p))
				return 9;
			printf("pipe: %s\n", setsockopt(p[0], SOL_SOCKET, SO_REUSEADDR, &v, sizeof v) ? strerrorname_np(errno) : "0");
			printf("closed: %s\n", setsockopt(999, SOL_SOCKET, SO_REUSEADDR, &v, sizeof v) ? strerrorname_np(errno) : "0");
			int fd = tcp();
			printf("fault: %s\n", setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, nowhere(), 4) ? strerrorname_np(errno) : "0");
			printf("fault: %s\n", getsockname(fd, nowhere(), (socklen_t *)&v) ? strerrorname_np(errno) : "0");
		}
	}
	return 0;
}
