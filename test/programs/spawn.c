/*
 * Children made by vfork and posix_spawn use sockets: their own, one that they
 * inherit, and one that the parent goes on using afterwards.
 *
 *   spawn PORT           the parent; talks to an echo server
 *   spawn PORT own WHO   a child: its own connection
 *   spawn FD inherited WHO   a child: speaks on the fd it inherited
 */
#include <arpa/inet.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static int dial(const char *port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(atoi(port)) };
	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	if (fd < 0 || connect(fd, (void *)&a, sizeof a))
		die("connect");
	return fd;
}

/* Says a word and checks that it comes back. */
static void echo(int fd, const char *who, const char *word)
{
	char buf[100];
	size_t len = strlen(word), got = 0;
	if (write(fd, word, len) != (ssize_t)len)
		die("write");
	while (got < len) {
		ssize_t n = read(fd, buf + got, len - got);
		if (n <= 0)
			die("read");
		got += n;
	}
	if (memcmp(buf, word, len))
		die("wrong echo");
	printf("%s: %s\n", who, word);
	fflush(stdout);
}

static void reap(pid_t pid)
{
	int status;
	if (waitpid(pid, &status, 0) != pid || status != 0) {
		fprintf(stderr, "child ended with status %#x\n", status);
		exit(1);
	}
}

static pid_t by_vfork(char *const argv[])
{
	pid_t pid = vfork();
	if (pid < 0)
		die("vfork");
	if (pid == 0) {
		execv(argv[0], argv);
		_exit(127);
	}
	return pid;
}

static pid_t by_spawn(char *const argv[])
{
	pid_t pid;
	if (posix_spawn(&pid, argv[0], NULL, NULL, argv, environ))
		die("posix_spawn");
	return pid;
}

/* A socket made while the parent is suspended and the memory is shared. */
static void inside_vfork(char *port)
{
	static volatile int fd;
	pid_t pid = vfork();
	if (pid < 0)
		die("vfork");
	if (pid == 0) {
		struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(atoi(port)) };
		a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		fd = socket(AF_INET, SOCK_STREAM, 0);
		char c = 'v';
		if (fd < 0 || connect(fd, (void *)&a, sizeof a) || write(fd, &c, 1) != 1 || read(fd, &c, 1) != 1 || c != 'v')
			_exit(1);
		_exit(0);
	}
	reap(pid);
	puts("inside vfork: right");
	fflush(stdout);
}

int main(int argc, char **argv)
{
	if (argc == 4) {
		int own = !strcmp(argv[2], "own");
		echo(own ? dial(argv[1]) : atoi(argv[1]), argv[3], argv[2]);
		return 0;
	}
	if (argc != 2)
		return 2;
	inside_vfork(argv[1]);
	int fd = dial(argv[1]);
	char number[16];
	snprintf(number, sizeof number, "%d", fd);
	pid_t (*const ways[])(char *const[]) = { by_vfork, by_spawn };
	char *names[] = { "vfork", "posix_spawn" };
	for (int i = 0; i < 2; i++) {
		echo(fd, "parent", "before");
		reap(ways[i]((char *[]){ argv[0], argv[1], "own", names[i], NULL }));
		reap(ways[i]((char *[]){ argv[0], number, "inherited", names[i], NULL }));
		echo(fd, "parent", "after");
	}
	return 0;
}
