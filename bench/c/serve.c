/* The servers. */
#include "load.h"

/* run has the sums of one run's streams. */
struct run {
	struct run *next;
	uint64_t id, bytes, bad;
	uint32_t finished; /* streams */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards runs */
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static struct run *runs;

/* With the lock held. */
static struct run *run_of(uint64_t id)
{
	struct run *r = runs;
	while (r && r->id != id)
		r = r->next;
	if (!r) {
		r = calloc(1, sizeof *r);
		if (!r)
			die("calloc");
		r->id = id;
		r->next = runs;
		runs = r;
	}
	return r;
}

static void count(uint64_t id, uint64_t bytes, int bad)
{
	pthread_mutex_lock(&lock);
	struct run *r = run_of(id);
	r->bytes += bytes;
	r->bad += bad;
	r->finished++;
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
}

static void echo(int fd, char *buffer, uint32_t size)
{
	while (read_all(fd, buffer, size))
		write_all(fd, buffer, size);
}

/* Answers when the run's last stream has ended. */
static void tell_total(int fd, const struct ask *a)
{
	pthread_mutex_lock(&lock);
	struct run *r = run_of(a->run);
	while (r->finished < a->size)
		pthread_cond_wait(&changed, &lock);
	struct total t = {r->bytes, r->bad};
	pthread_mutex_unlock(&lock);
	write_all(fd, &t, sizeof t);
}

static void *connection(void *arg)
{
	int fd = (intptr_t)arg, bad = 0;
	struct ask a;
	char *buffer = malloc(MOST);
	if (!buffer)
		die("malloc");
	if (!read_all(fd, &a, sizeof a))
		goto done;
	if (memcmp(a.magic, MAGIC, sizeof a.magic) || a.size > MOST) {
		errno = 0;
		die("the first message");
	}
	switch (a.op) {
	case SINK: {
		uint64_t bytes = drain(fd, buffer, a.offset, a.full, &bad);
		count(a.run, bytes, bad);
		break;
	}
	case SOURCE: {
		uint64_t bytes = pour(fd, a.offset, a.size, now() + a.ns);
		if (shutdown(fd, SHUT_WR))
			die("shutdown");
		read_all(fd, buffer, 1); /* the client's end of file */
		count(a.run, bytes, 0);
		break;
	}
	case ECHO:
		write_all(fd, &a, sizeof a);
		echo(fd, buffer, a.size);
		break;
	case TOTAL:
		tell_total(fd, &a);
		break;
	}
done:
	close(fd);
	free(buffer);
	return NULL;
}

/* Listens on a port that the kernel chooses, and says which. */
static int listening(void)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_ANY)};
	socklen_t n = sizeof a;
	int l = socket(AF_INET, SOCK_STREAM, 0);
	if (l < 0 || bind(l, (struct sockaddr *)&a, sizeof a) || listen(l, 4096) ||
	    getsockname(l, (struct sockaddr *)&a, &n))
		die("listen");
	printf("port %d\n", ntohs(a.sin_port));
	fflush(stdout);
	return l;
}

static int next(int l)
{
	int one = 1, fd = accept(l, NULL, NULL);
	if (fd < 0)
		die("accept");
	if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one))
		die("TCP_NODELAY");
	return fd;
}

void serve(void)
{
	pthread_attr_t small;
	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, 1 << 16);
	pthread_attr_setdetachstate(&small, PTHREAD_CREATE_DETACHED);
	for (int l = listening();;) {
		pthread_t t;
		if ((errno = pthread_create(&t, &small, connection, (void *)(intptr_t)next(l))))
			die("pthread_create");
	}
}

void serve_one(void)
{
	static char buffer[MOST];
	for (int l = listening();;) {
		int fd = accept(l, NULL, NULL);
		if (fd < 0)
			die("accept");
		echo(fd, buffer, sizeof(struct ask));
		close(fd);
	}
}

/* Each connection is used once, and then held until the process ends. */
void serve_hold(void)
{
	struct ask a;
	for (int l = listening();;) {
		int fd = next(l);
		if (read_all(fd, &a, sizeof a))
			write_all(fd, &a, sizeof a);
	}
}
