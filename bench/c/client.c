/* The clients. */
#include "load.h"

static pthread_barrier_t start; /* the main thread and all streams */

struct stream {
	struct ask ask;
	int fd, up, bad;
	uint64_t bytes;
};

uint32_t address_of(const char *text)
{
	struct in_addr a;
	if (inet_pton(AF_INET, text, &a) != 1)
		die(text);
	return ntohl(a.s_addr);
}

int dial(uint32_t address, int port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(address), .sin_port = htons(port)};
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	const char *control = getenv("LOAD_CONGESTION");
	if (fd < 0)
		die("socket");
	if (control && setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, control, strlen(control)))
		die(control);
	if (connect(fd, (struct sockaddr *)&a, sizeof a))
		die("connect");
	return fd;
}

static void no_delay(int fd)
{
	int one = 1;
	if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one))
		die("TCP_NODELAY");
}

static void *run_stream(void *arg)
{
	struct stream *s = arg;
	char *buffer = malloc(MOST), end;
	if (!buffer)
		die("malloc");
	pthread_barrier_wait(&start);
	write_all(s->fd, &s->ask, sizeof s->ask);
	if (s->up) {
		s->bytes = pour(s->fd, s->ask.offset, s->ask.size, now() + s->ask.ns);
		if (shutdown(s->fd, SHUT_WR))
			die("shutdown");
		s->bad = read_all(s->fd, &end, 1); /* the end comes when all has arrived */
	} else {
		s->bytes = drain(s->fd, buffer, s->ask.offset, s->ask.full, &s->bad);
	}
	free(buffer);
	return NULL;
}

/* Compares what the server has counted with what the streams have. */
static void compare(uint32_t address, int port, const struct stream *s, int n)
{
	struct ask a = s->ask;
	struct total t;
	uint64_t bytes = 0, bad = 0;
	int fd = dial(address, port);
	a.op = TOTAL;
	a.size = n;
	write_all(fd, &a, sizeof a);
	if (!read_all(fd, &t, sizeof t))
		die("total");
	close(fd);
	for (int i = 0; i < n; i++) {
		bytes += s[i].bytes;
		bad += s[i].bad;
	}
	if (bytes != t.bytes || bad || t.bad) {
		fprintf(stderr, "load: %lu bytes here, %lu there; wrong streams: %lu here, %lu there\n", bytes, t.bytes, bad, t.bad);
		exit(1);
	}
	printf("bytes %lu\n", bytes);
}

void bulk(int argc, char **argv)
{
	uint32_t address = address_of(argv[0]);
	int port = atoi(argv[1]), up = strcmp(argv[2], "up") == 0, n = atoi(argv[3]);
	struct stream *s = calloc(n, sizeof *s);
	pthread_t *threads = calloc(n, sizeof *threads);
	uint64_t id = now() ^ (uint64_t)getpid() << 40;
	if (n < 1 || !s || !threads)
		die("streams");
	pthread_barrier_init(&start, NULL, n + 1);
	for (int i = 0; i < n; i++) {
		s[i].up = up;
		s[i].ask = (struct ask){.op = up ? SINK : SOURCE, .size = atoi(argv[5]), .run = id,
					.ns = atof(argv[4]) * 1e9, .offset = i * 4099, .full = argc > 6};
		memcpy(s[i].ask.magic, MAGIC, sizeof s[i].ask.magic);
		s[i].fd = dial(address, port);
		if ((errno = pthread_create(&threads[i], NULL, run_stream, &s[i])))
			die("pthread_create");
	}
	uint64_t cpu = cpu_used(), t = now();
	pthread_barrier_wait(&start);
	for (int i = 0; i < n; i++)
		pthread_join(threads[i], NULL);
	printf("ns %lu\ncpu %lu\n", now() - t, cpu_used() - cpu);
	for (int i = 0; i < n; i++)
		close(s[i].fd);
	compare(address, port, s, n);
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return (x > y) - (x < y);
}

/* times collects durations. */
struct times {
	uint64_t *ns;
	size_t n, room;
};

static void add(struct times *t, uint64_t ns)
{
	if (t->n == t->room) {
		t->room = t->room ? 2 * t->room : 1 << 16;
		t->ns = realloc(t->ns, t->room * sizeof *t->ns);
		if (!t->ns)
			die("realloc");
	}
	t->ns[t->n++] = ns;
}

static void tell(const char *name, struct times *t)
{
	static const struct {
		const char *name;
		double part;
	} parts[] = {{"p50", 0.5}, {"p99", 0.99}, {"p999", 0.999}};
	if (t->n == 0) {
		errno = 0;
		die("nothing measured");
	}
	double sum = 0;
	for (size_t i = 0; i < t->n; i++)
		sum += t->ns[i];
	printf("%s_mean %.0f\n", name, sum / t->n);
	qsort(t->ns, t->n, sizeof *t->ns, by_value);
	for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
		printf("%s_%s %lu\n", name, parts[i].name, t->ns[(size_t)((t->n - 1) * parts[i].part)]);
}

void ping(int argc, char **argv)
{
	(void)argc;
	static unsigned char out[MOST], in[MOST];
	uint32_t size = atoi(argv[2]);
	uint64_t length = atof(argv[3]) * 1e9;
	struct ask a = {.op = ECHO, .size = size};
	struct times t = {0};
	if (size < sizeof(uint64_t) || size > MOST)
		die("size");
	memcpy(a.magic, MAGIC, sizeof a.magic);
	memcpy(out, pattern, size);
	int fd = dial(address_of(argv[0]), atoi(argv[1]));
	no_delay(fd);
	write_all(fd, &a, sizeof a);
	if (!read_all(fd, in, sizeof a) || memcmp(in, &a, sizeof a))
		die("echo");
	uint64_t begin = now(), warm = begin + length / 10, cpu = 0, last = begin, serial = 0;
	while (last < begin + length || t.n == 0) {
		memcpy(out, &serial, sizeof serial);
		serial++;
		write_all(fd, out, size);
		if (!read_all(fd, in, size) || memcmp(in, out, size))
			die("echo");
		uint64_t at = now();
		if (last >= warm)
			add(&t, at - last);
		else
			cpu = cpu_used();
		last = at;
	}
	printf("cpu %lu\nn %lu\n", cpu_used() - cpu, t.n);
	tell("rtt", &t);
	close(fd);
}

void connects(int argc, char **argv)
{
	struct times connected = {0}, whole = {0};
	struct ask a = {.op = ECHO, .size = sizeof a}, back;
	uint32_t address = address_of(argv[0]);
	int port = atoi(argv[1]), spread = argc > 3;
	uint64_t length = atof(argv[2]) * 1e9, begin = now(), warm = begin + length / 10, n = 0;
	memcpy(a.magic, MAGIC, sizeof a.magic);
	for (uint64_t t = begin; t < begin + length || whole.n == 0; n++) {
		int fd = dial(address, port);
		uint64_t up = now();
		a.run = n;
		write_all(fd, &a, sizeof a);
		if (!read_all(fd, &back, sizeof back) || memcmp(&a, &back, sizeof a))
			die("echo");
		close(fd);
		uint64_t end = now();
		if (t >= warm) {
			add(&connected, up - t);
			add(&whole, end - t);
		}
		address += spread;
		t = end;
	}
	printf("n %lu\nused %lu\n", whole.n, n); /* measured; all */
	tell("connect", &connected);
	tell("whole", &whole);
}

/* Opens connections, says so, and holds them until it is killed. */
void hold(int argc, char **argv)
{
	uint32_t address = address_of(argv[0]);
	int port = atoi(argv[1]), n = atoi(argv[2]), spread = argc > 3;
	struct ask a = {.op = ECHO, .size = sizeof a}, back;
	uint64_t t = now();
	memcpy(a.magic, MAGIC, sizeof a.magic);
	for (int i = 0; i < n; i++) {
		int fd = dial(address + (spread ? i : 0), port);
		a.run = i;
		write_all(fd, &a, sizeof a);
		if (!read_all(fd, &back, sizeof back) || memcmp(&a, &back, sizeof a))
			die("echo");
	}
	printf("held %d\nns %lu\n", n, now() - t);
	fflush(stdout);
	for (;;)
		pause();
}
