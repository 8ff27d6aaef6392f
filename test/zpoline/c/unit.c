/*
 * The loader's own parts, without a loader. What it does is said by argv[1]:
 *
 *	lengths   reads "ADDRESS LENGTH HEX" lines and compares what zp_decode says
 *	noise     the same on any bytes
 *	live      loader_live.c on code by hand
 *	sites     the table, full
 *	ranges    loader_text.c's reading of /proc, and writing of text
 */
#include "check.h"

#include "loader_internal.h"

#include "loader_text.c" /* to see its two ways of reading mappings by themselves */

#include <fcntl.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>

/* What these parts want of others. */
unsigned char zp_way[ZP_CALLS];
uint32_t zp_xsave_size, zp_xsave_kind;
zp_hook_fn zp_hook;
struct thunk {
	uint64_t ret, flags;
} zp_thunk_of[ZP_THUNKS];

int zp_handle(struct zp_frame *f)
{
	(void)f;
	abort();
}

void zp_child(unsigned long flags)
{
	(void)flags;
	abort();
}

static int lengths(void)
{
	char hex[64];
	unsigned long addr;
	unsigned len, n = 0, wrong = 0;

	while (scanf("%lx %u %63s", &addr, &len, hex) == 3) {
		uint8_t *code = malloc(len); /* to the byte: a sanitizer sees to the end */
		struct zp_insn i;

		for (unsigned b = 0; b < len; b++)
			CHECK(sscanf(hex + 2 * b, "%2hhx", &code[b]) == 1);
		if (!zp_decode(code, len, &i) || i.len != len) {
			if (wrong++ < 20)
				printf("%lx: %s is %u bytes, not %u\n", addr, hex, len, i.len);
		}
		for (unsigned b = 0; b < len; b++)
			CHECK(!zp_decode(code, b, &i) || i.len <= b);
		free(code);
		n++;
	}
	printf("%u instructions, %u wrong\n", n, wrong);
	return wrong != 0;
}

/* Any bytes at all: nothing is read past the end. */
static int noise(void)
{
	uint32_t x = 12345;

	for (int n = 0; n < 2000000; n++) {
		uint8_t code[15];
		struct zp_insn i;

		for (size_t b = 0; b < sizeof(code); b++) {
			x = x * 1664525 + 1013904223;
			code[b] = x >> 24;
		}
		size_t len = 1 + x % 15;
		uint8_t *exact = malloc(len);

		memcpy(exact, code, len);
		if (zp_decode(exact, len, &i))
			CHECK(i.len >= 1 && i.len <= len);
		free(exact);
	}
	return 0;
}

static const uint8_t *text;
static size_t text_size;
enum { TEXT = 0x10000, STACK = 0x7ffff000 };

static size_t read_text(void *of, uint64_t addr, void *to, size_t n)
{
	(void)of;
	if (addr < TEXT || addr >= TEXT + text_size)
		return 0;
	if (n > TEXT + text_size - addr)
		n = TEXT + text_size - addr;
	memcpy(to, text + (addr - TEXT), n);
	return n;
}

static const struct live_case {
	const char *name, *code;
	size_t size;
	bool live;
} live_cases[] = {
#define CASE(name, live, code) { name, code, sizeof(code) - 1, live }
	CASE("ret", false, "\xc3"),
	CASE("cmp, ja, ret, or, ret", false, "\x48\x3d\x00\xf0\xff\xff\x77\x01\xc3\x83\xc8\xff\xc3"),
	CASE("reads the word", true, "\x48\x8b\x44\x24\xf8\xc3"),
	CASE("reads a half of it", true, "\x8b\x44\x24\xfc\xc3"),
	CASE("reads below it", false, "\x48\x8b\x44\x24\xf0\xc3"),
	CASE("reads 16 bytes from below it", true, "\x0f\x28\x44\x24\xf0\xc3"),
	CASE("reads above it", false, "\x48\x8b\x04\x24\xc3"),
	CASE("takes its address", true, "\x48\x8d\x44\x24\xf8\xc3"),
	CASE("indexes from below it", true, "\x48\x8b\x44\xc4\xc0\xc3"),
	CASE("push, pop", false, "\x53\x5b\xc3"),
	CASE("call", false, "\xe8\x00\x00\x00\x00\x48\x8b\x44\x24\xf8"),
	CASE("pop, then where it was", true, "\x5b\x48\x8b\x44\x24\xf0\xc3"),
	CASE("pop, push, then it", true, "\x5b\x53\x48\x8b\x44\x24\xf8\xc3"),
	CASE("sub, then it", true, "\x48\x83\xec\x10\x48\x8b\x44\x24\x08\xc3"),
	CASE("sub, other, add, ret", false, "\x48\x83\xec\x10\x48\x8b\x04\x24\x48\x83\xc4\x10\xc3"),
	CASE("add, ret", false, "\x48\x83\xc4\x18\xc3"),
	CASE("lea to rsp", false, "\x48\x8d\x64\x24\x08\xc3"),
	CASE("lea to rsp, down, and pop of it", true, "\x48\x8d\x64\x24\xf8\x5b\xc3"),
	CASE("by rbp, the word", true, "\x48\x8b\x45\xd8\xc3"), /* rbp is rsp + 32 */
	CASE("by rbp, else", false, "\x48\x8b\x45\xe8\xc9\xc3"),
	CASE("by rbx, the word", true, "\x48\x8b\x03\xc3"), /* rbx is rsp - 4 */
	CASE("loop for ever", false, "\x90\xeb\xfd"),
	CASE("a branch that reads", true, "\x85\xc0\x74\x01\xc3\x48\x8b\x44\x24\xf8\xc3"),
	CASE("a branch back over a read", true, "\x85\xc0\x75\xfc\x48\x33\x44\x24\xf8\x75\xf5\xc3"),
	CASE("jmp *%rax", true, "\xff\xe0"),
	CASE("a jump to nowhere", true, "\xe9\x00\x00\x10\x00"),
	CASE("mov %rax,%rsp", true, "\x48\x89\xc4\xc3"),
	CASE("pop %rsp", true, "\x5c\xc3"),
	CASE("pop %r12", false, "\x41\x5c\xc3"),
	CASE("hlt", false, "\xf4"),
	CASE("the end", true, "\x90"),
	CASE("no instruction", true, "\x06"),
	CASE("syscall, ret", false, "\x0f\x05\xc3"),
	CASE("evex with a scaled displacement", true, "\x62\xf1\xfe\x48\x6f\x44\x24\xff\xc3"),
	CASE("add $8,%r12 is no add to rsp", true, "\x49\x83\xc4\x08\x48\x8b\x44\x24\xf8\xc3"),
};

static int live(void)
{
	struct zp_regs regs = { 0 };
	int wrong = 0;

	regs.r[ZP_RSP] = STACK;
	regs.r[ZP_RBP] = STACK + 32;
	for (size_t i = 0; i < sizeof(live_cases) / sizeof(*live_cases); i++) {
		const struct live_case *c = &live_cases[i];
		uint8_t *copy = malloc(c->size);
		bool is;

		memcpy(copy, c->code, c->size);
		text = copy;
		text_size = c->size;
		regs.r[3] = strstr(c->name, "by rbx") ? STACK - 4 : 0;
		is = zp_live_below(TEXT, &regs, read_text, NULL);
		if (is != c->live) {
			printf("%s: live %d, want %d\n", c->name, is, c->live);
			wrong++;
		}
		free(copy);
	}
	text = (const uint8_t *)"\xc3";
	text_size = 1;
	regs.r[2] = STACK - ZP_RED_ZONE;
	CHECK(zp_live_below(TEXT, &regs, read_text, NULL));
	regs.r[2] = STACK;
	CHECK(!zp_live_below(TEXT, &regs, read_text, NULL));
	return wrong;
}

static int sites(void)
{
	enum { MANY = 3 << ZP_SITE_BITS };
	static bool added[MANY];
	unsigned n = 0;

	for (uint64_t i = 0; i < MANY; i++)
		n += added[i] = zp_site_add(0x7f0000000000 + i * 37 + 2);
	CHECK(n <= 1 << ZP_SITE_BITS && n > (1 << ZP_SITE_BITS) * 9 / 10);
	for (uint64_t i = 0; i < MANY; i++)
		CHECK(zp_site_known(0x7f0000000000 + i * 37 + 2) == added[i]);
	CHECK(!zp_site_known(0x7f0000000000 + 1));
	zp_site_keep(0x1234);
	CHECK(zp_site_kept(0x1234) && !zp_site_kept(0x1236));
	return 0;
}

/* One mapping as loader_text.c sees it. */
static void range(void *at, int prot, bool shared, bool anonymous)
{
	struct zp_range r;
	char room[24];

	for (int way = 0; way < 3; way++) {
		int fd = open("/proc/self/maps", O_RDONLY);

		CHECK(fd >= 0);
		if (way == 1 && !query(fd, (uint64_t)at, &r)) {
			printf("no PROCMAP_QUERY here (Linux 6.11)\n");
			close(fd);
			continue;
		}
		CHECK(way != 0 || zp_text_range((uint64_t)at, &r));
		CHECK(way != 2 || search(fd, (uint64_t)at, &r));
		CHECK(r.prot == prot && r.shared == shared && r.anonymous == anonymous);
		CHECK(r.start <= (uint64_t)at && r.end > (uint64_t)at);
		close(fd);
	}
	CHECK(strcmp(zp_number(room, -4095), "-4095") == 0);
}

static int ranges(void)
{
	int fd = memfd_create("file", 0), mem;
	uint8_t two[2];
	struct zp_range r;

	CHECK(fd >= 0 && ftruncate(fd, 8192) == 0);
	uint8_t *a = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	void *s = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	void *p = mmap(NULL, 4096, PROT_EXEC, MAP_PRIVATE, fd, 0);

	range(a, PROT_READ, false, true);
	range(s, PROT_READ | PROT_WRITE, true, false);
	range(p, PROT_EXEC, false, false);
	CHECK(!zp_text_range(1, &r));
	CHECK((mem = zp_text_open()) >= 0);
	CHECK(zp_text_range((uint64_t)a, &r));
	CHECK(zp_text_write(mem, (uint64_t)a + 100, (const uint8_t[]){ 0xff, 0xd0 }, &r, true));
	CHECK(a[100] == 0xff && a[101] == 0xd0);
	CHECK(!zp_text_write(mem, (uint64_t)a + 102, (const uint8_t[]){ 1, 2 }, &r, false));
	CHECK(zp_text_read(mem, (uint64_t)a + 100, two, 2) == 2 && two[1] == 0xd0);
	CHECK(zp_text_read(-1, (uint64_t)a + 100, two, 2) == 2 && two[0] == 0xff);
	CHECK(zp_text_write(-1, (uint64_t)a + 100, (const uint8_t[]){ 0x0f, 0x05 }, &r, true) && a[100] == 0x0f);
	CHECK(munmap(a, 4096) == 0 && zp_text_read(mem, (uint64_t)a, two, 2) == 0);
	/* A file's page, with others about: by one store. */
	CHECK(zp_text_range((uint64_t)p, &r));
	CHECK(zp_text_write(mem, (uint64_t)p + 200, (const uint8_t[]){ 0xff, 0xd0 }, &r, false));
	range(p, PROT_EXEC, false, false);
	CHECK(zp_text_read(mem, (uint64_t)p + 200, two, 2) == 2 && two[0] == 0xff);
	CHECK(pread(fd, two, 2, 200) == 2 && two[0] == 0);
	zp_text_close(mem);
	return 0;
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";

	if (strcmp(what, "lengths") == 0)
		return lengths();
	if (strcmp(what, "noise") == 0)
		return noise();
	if (strcmp(what, "live") == 0)
		return live();
	if (strcmp(what, "sites") == 0)
		return sites();
	if (strcmp(what, "ranges") == 0)
		return ranges();
	fprintf(stderr, "usage: %s lengths|noise|live|sites|ranges\n", argv[0]);
	return 2;
}
