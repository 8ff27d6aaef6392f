/* What the tests need done by a program that is neither Go nor a shell. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int is(const char *a, const char *b) { return strcmp(a, b) == 0; }

static void say(const char *what, long r) { printf("%s %ld %d\n", what, r < 0 ? -1L : 0L, r < 0 ? errno : 0); }

static long int80(long nr, long a, long b, long c)
{
	long r;
	__asm__ volatile("int $0x80" : "=a"(r) : "a"(nr), "b"(a), "c"(b), "d"(c) : "memory", "r8", "r9", "r10", "r11");
	return r;
}

static int calls(void)
{
	int v = 0;
	socklen_t len = sizeof(v);
	int s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	say("inet", s);
	say("unix", socket(AF_UNIX, SOCK_STREAM, 0));
	say("dgram", socket(AF_INET, SOCK_DGRAM, 0));
	say("nodelay", getsockopt(s, IPPROTO_TCP, TCP_NODELAY, &v, &len));
	say("type", getsockopt(s, SOL_SOCKET, SO_TYPE, &v, &len));
	say("listen", listen(s, 1));
	say("io_uring", syscall(425, 1, NULL));
	say("x32", syscall(0x40000000 | 39));
	return 0;
}

/* socket(2) by the i386 ABI. */
static int i386(void)
{
	long r = int80(359, AF_INET, SOCK_STREAM, 0);

	errno = -r;
	say("i386", r);
	return 0;
}

/* A kernel without seccomp(2): every call of it gives the errno. */
static int old_kernel(int e, char **cmd)
{
	struct sock_filter f[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_seccomp, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | e),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog p = { 4, f };
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &p) != 0)
		return 99;
	execv(cmd[0], cmd);
	return 98;
}

static void on_signal(int signo)
{
	char s[] = "got 00\n";
	s[4] += signo / 10, s[5] += signo % 10;
	(void)!write(1, s, 7);
	if (signo == SIGTERM)
		_exit(7);
}

static _Noreturn void serve(void)
{
	for (int s = 1; s < 32; s++)
		if (s != SIGTSTP && s != SIGCONT)
			signal(s, on_signal);
	printf("pid %d ppid %d\n", getpid(), getppid());
	for (;;)
		pause();
}

static void with_signals(char **cmd)
{
	sigset_t m;
	signal(SIGPIPE, SIG_IGN), signal(SIGUSR2, SIG_IGN), signal(SIGRTMAX, SIG_IGN);
	sigemptyset(&m), sigaddset(&m, SIGUSR1), sigaddset(&m, SIGCHLD), sigaddset(&m, SIGRTMIN);
	sigprocmask(SIG_BLOCK, &m, NULL);
	execv(cmd[0], cmd);
}

/* A shell with one job in the foreground; tells of its stops and its end. */
static int job(char **cmd)
{
	int ws;
	pid_t pid = fork();

	if (pid == 0) {
		setpgid(0, 0);
		signal(SIGTTOU, SIG_IGN);
		tcsetpgrp(0, getpid());
		signal(SIGTTOU, SIG_DFL);
		printf("pid %d ppid %d\n", getpid(), getppid());
		execv(cmd[0], cmd);
		_exit(94);
	}
	while (waitpid(pid, &ws, WUNTRACED) == pid) {
		if (WIFSTOPPED(ws))
			printf("stopped %d\n", WSTOPSIG(ws));
		else if (WIFSIGNALED(ws))
			printf("signal %d\n", WTERMSIG(ws));
		else
			printf("exit %d\n", WEXITSTATUS(ws));
	}
	return 0;
}

int main(int argc, char **argv, char **envp)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc < 2)
		return 97;
	if (is(argv[1], "calls"))
		return calls();
	if (is(argv[1], "i386"))
		return i386();
	if (is(argv[1], "alarm")) {
		alarm(1);
		execv(argv[2], argv + 2);
	}
	if (is(argv[1], "argv0"))
		return puts(argv[0]) < 0;
	if (is(argv[1], "job"))
		return job(argv + 2);
	if (is(argv[1], "serve"))
		serve();
	if (is(argv[1], "wait"))
		return printf("%d %d\n", wait(NULL), errno) < 0;
	if (is(argv[1], "raise"))
		return raise(atoi(argv[2]));
	if (is(argv[1], "env")) {
		for (; *envp; envp++)
			puts(*envp);
		return 0;
	}
	if (is(argv[1], "nofile")) {
		struct rlimit l;
		getrlimit(RLIMIT_NOFILE, &l);
		return printf("%lu %lu\n", l.rlim_cur, l.rlim_max) < 0;
	}
	if (is(argv[1], "old"))
		return old_kernel(atoi(argv[2]), argv + 3);
	if (is(argv[1], "signals"))
		with_signals(argv + 2);
	if (is(argv[1], "oddenv"))
		execve(argv[2], argv + 2, (char *[]){ "A=1", "novalue", "A=2", "POEMQ_BROKER=/x", NULL });
	if (is(argv[1], "closed")) {
		close(0);
		execv(argv[2], argv + 2);
	}
	if (is(argv[1], "chroot")) {
		if (chroot(argv[2]) != 0 || chdir("/") != 0)
			return 96;
		execv(argv[3], argv + 3);
	}
	return 95;
}
