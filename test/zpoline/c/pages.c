/* Hand-made pages of code. For each it prints a name, and "rewritten" or "kept"
 * for the instruction after it has run; the results themselves are checked here. */
#define _GNU_SOURCE
#include "check.h"

#include <pthread.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>

enum { PAGE = 4096, GETSID = 124 };

typedef long (*code_fn)(long);

/* mov $124, %eax; syscall; ret */
static const uint8_t plain[] = { 0xb8, GETSID, 0, 0, 0, 0x0f, 0x05, 0xc3 };
enum { PLAIN_SYSCALL = 5 };

static uint8_t *pages(int n, int flags, int fd)
{
	uint8_t *p = mmap(NULL, n * PAGE, PROT_READ | PROT_WRITE, flags, fd, 0);

	CHECK(p != MAP_FAILED);
	memset(p, 0xcc, n * PAGE);
	return p;
}

static void report(const char *name, const uint8_t *at)
{
	int rewritten = at[0] == 0xff && at[1] == 0xd0;

	CHECK(rewritten || (at[0] == 0x0f && at[1] == 0x05));
	printf("%s %s\n", name, rewritten ? "rewritten" : "kept");
	fflush(stdout);
}

/* Runs plain, laid so that the instruction is at that place. */
static void run_plain(const char *name, uint8_t *p, int syscall_at, int npages, int prot)
{
	uint8_t *code = p + syscall_at - PLAIN_SYSCALL;

	memcpy(code, plain, sizeof(plain));
	CHECK(mprotect(p, npages * PAGE, prot) == 0);
	/* It is not at once if another thread has the loader's lock just then. */
	for (int i = 0; i < 100; i++) {
		CHECK(((code_fn)code)(0) == SESSION);
		if (i > 3)
			usleep(100);
	}
	CHECK(mprotect(p, npages * PAGE, PROT_READ | PROT_EXEC) == 0);
	report(name, code + PLAIN_SYSCALL);
	for (int i = 0; i < 3; i++)
		CHECK(((code_fn)code)(0) == SESSION);
}

static const int private = MAP_PRIVATE | MAP_ANONYMOUS;

/* 0f 05 in an immediate: mov $0x050f050f, %eax; ret */
static void immediate(void)
{
	static const uint8_t code[] = { 0xb8, 0x0f, 0x05, 0x0f, 0x05, 0xc3 };
	uint8_t *p = pages(1, private, -1);

	memcpy(p, code, sizeof(code));
	memcpy(p + 64, plain, sizeof(plain));
	CHECK(mprotect(p, PAGE, PROT_READ | PROT_EXEC) == 0);
	for (int i = 0; i < 3; i++) {
		CHECK(((code_fn)p)(0) == 0x050f050f);
		CHECK(((code_fn)(p + 64))(0) == SESSION);
	}
	CHECK(memcmp(p, code, sizeof(code)) == 0);
	report("immediate", p + 1);
}

/* Code that keeps its argument just below the stack pointer over a call:
 * mov %rdi,-8(%rsp); mov $124,%eax; syscall; mov -8(%rsp),%rax; ret */
static void red_zone(void)
{
	static const uint8_t code[] = { 0x48, 0x89, 0x7c, 0x24, 0xf8, 0xb8, GETSID, 0, 0, 0, 0x0f, 0x05, 0x48, 0x8b, 0x44, 0x24, 0xf8, 0xc3 };
	uint8_t *p = pages(1, private, -1);

	memcpy(p, code, sizeof(code));
	CHECK(mprotect(p, PAGE, PROT_READ | PROT_EXEC) == 0);
	for (long i = 0; i < 5; i++)
		CHECK(((code_fn)p)(i + 7777) == i + 7777);
	report("red-zone", p + 10);
}

/* The kernel writes there: lea -24(%rsp),%rdi; mov $79,%eax (getcwd); mov $24,%esi;
 * syscall; ret */
static void red_zone_argument(void)
{
	static const uint8_t code[] = { 0x48, 0x8d, 0x7c, 0x24, 0xe8, 0xb8, 79, 0, 0, 0, 0xbe, 24, 0, 0, 0, 0x0f, 0x05, 0xc3 };
	uint8_t *p = pages(1, private, -1);

	CHECK(chdir("/") == 0);
	memcpy(p, code, sizeof(code));
	CHECK(mprotect(p, PAGE, PROT_READ | PROT_EXEC) == 0);
	for (int i = 0; i < 3; i++)
		CHECK(((code_fn)p)(0) == 2);
	report("red-zone-argument", p + 15);
}

/* A second mapping of the same memory must not see a change. */
static void shared(void)
{
	int fd = memfd_create("code", 0);
	uint8_t *p;

	CHECK(fd >= 0 && ftruncate(fd, PAGE) == 0);
	p = pages(1, MAP_SHARED, fd);
	run_plain("shared", p, 100, 1, PROT_READ | PROT_EXEC);
	p = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, fd, 0);
	CHECK(p != MAP_FAILED && memcmp(p + 100, "\x0f\x05", 2) == 0);
}

static void file(const char *name, int prot)
{
	int fd = memfd_create("code", 0);
	uint8_t page[PAGE], *p;

	memset(page, 0xcc, sizeof(page));
	memcpy(page + 128, plain, sizeof(plain));
	CHECK(fd >= 0 && write(fd, page, PAGE) == PAGE);
	p = mmap(NULL, PAGE, prot, MAP_PRIVATE, fd, 0);
	CHECK(p != MAP_FAILED);
	for (int i = 0; i < 3; i++)
		CHECK(((code_fn)(p + 128))(0) == SESSION);
	CHECK(mprotect(p, PAGE, PROT_READ | PROT_EXEC) == 0);
	report(name, p + 128 + PLAIN_SYSCALL);
	CHECK(pread(fd, page, PAGE, 0) == PAGE && memcmp(page + 128, plain, sizeof(plain)) == 0);
}

/* Code that a JIT writes anew at the same place. */
static void again(void)
{
	uint8_t *p = pages(1, private, -1);

	for (int i = 0; i < 3; i++) {
		CHECK(mprotect(p, PAGE, PROT_READ | PROT_WRITE) == 0);
		memset(p, 0xcc, PAGE);
		run_plain("jit", p, 200, 1, PROT_READ | PROT_EXEC);
	}
}

static void *nothing(void *unused)
{
	pause();
	return unused;
}

int main(void)
{
	const int rx = PROT_READ | PROT_EXEC;
	pthread_t t;

	run_plain("plain", pages(1, private, -1), 64, 1, rx);
	run_plain("writable", pages(1, private, -1), 64, 1, rx | PROT_WRITE);
	run_plain("execute-only", pages(1, private, -1), 64, 1, PROT_EXEC);
	run_plain("two-lines", pages(1, private, -1), 127, 1, rx);
	run_plain("two-pages", pages(2, private, -1), PAGE - 1, 2, rx);
	immediate();
	red_zone();
	red_zone_argument();
	shared();
	file("file", rx);
	file("file-execute-only", PROT_EXEC);
	again();
	if (getuid() == 0) { /* as daemons do: some of /proc is closed to it then */
		CHECK(setresgid(65534, 65534, 65534) == 0 && setresuid(65534, 65534, 65534) == 0);
		run_plain("other-user", pages(1, private, -1), 64, 1, rx);
		file("other-user-file", rx);
	}
	CHECK(pthread_create(&t, NULL, nothing, NULL) == 0);
	run_plain("threads-anonymous", pages(1, private, -1), 64, 1, rx);
	file("threads-file", rx);
	run_plain("threads-two-lines", pages(1, private, -1), 127, 1, rx);
	return 0;
}
