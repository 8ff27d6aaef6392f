/*
 * The program's text, read and written past its protection: through
 * /proc/thread-self/mem, which neither changes a mapping's protection nor needs it
 * to be readable (execute-only text).
 *
 * A process that has changed its user, as daemons do, may not open that file any
 * more (proc(5), PR_SET_DUMPABLE). It reads by process_vm_readv, and writes by
 * mprotect.
 */
#include "loader_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>

enum { PAGE = 4096 };

int zp_text_open(void)
{
	return zp_sys(SYS_open, "/proc/thread-self/mem", O_RDWR | O_CLOEXEC);
}

void zp_text_close(int fd)
{
	if (fd >= 0)
		zp_sys(SYS_close, fd);
}

static long read_here(uint64_t addr, void *to, size_t n)
{
	struct iovec here = { to, n }, there = { (void *)addr, n };

	return zp_sys(SYS_process_vm_readv, zp_sys(SYS_getpid), &here, 1, &there, 1, 0);
}

size_t zp_text_read(int fd, uint64_t addr, void *to, size_t n)
{
	long r = fd >= 0 ? zp_sys(SYS_pread64, fd, to, n, addr) : read_here(addr, to, n);

	return r < 0 ? 0 : r;
}

/* linux/fs.h of 6.11; not on Debian 12. */
struct procmap_query {
	uint64_t size, query_flags, query_addr, start, end, flags, page_size, offset, inode;
	uint32_t dev_major, dev_minor, name_size, build_id_size;
	uint64_t name_addr, build_id_addr;
};
#define PROCMAP_QUERY_ _IOWR('f', 17, struct procmap_query)
enum { QUERY_READABLE = 1, QUERY_WRITABLE = 2, QUERY_EXECUTABLE = 4, QUERY_SHARED = 8 };

static bool query(int fd, uint64_t addr, struct zp_range *r)
{
	char name[8]; /* longer ones are refused */
	struct procmap_query q = { .size = sizeof(q), .query_addr = addr, .name_addr = (uint64_t)name, .name_size = sizeof(name) };
	long e = zp_sys(SYS_ioctl, fd, PROCMAP_QUERY_, &q);

	if (e == -ENAMETOOLONG) { /* it has one: a file, [vdso] */
		q.name_addr = q.name_size = 0;
		e = zp_sys(SYS_ioctl, fd, PROCMAP_QUERY_, &q);
		q.name_size = 1;
	}
	if (e < 0)
		return false;
	*r = (struct zp_range){
		.start = q.start,
		.end = q.end,
		.prot = (q.flags & QUERY_READABLE ? PROT_READ : 0) | (q.flags & QUERY_WRITABLE ? PROT_WRITE : 0) |
			(q.flags & QUERY_EXECUTABLE ? PROT_EXEC : 0),
		.shared = q.flags & QUERY_SHARED,
		.anonymous = q.inode == 0 && q.name_size == 0,
	};
	return true;
}

/* Reads "START-END rwxp OFFSET DEV INODE NAME", a character at a time. */
struct line {
	struct zp_range r;
	int field, column;
	bool named;
};

static void character(struct line *l, char c)
{
	int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : 0;

	if (c == ' ' || (c == '-' && l->field == 0)) {
		if (l->column)
			l->field++;
		l->column = 0;
		return;
	}
	l->column++;
	switch (l->field) {
	case 0:
		l->r.start = l->r.start << 4 | digit;
		break;
	case 1:
		l->r.end = l->r.end << 4 | digit;
		break;
	case 2:
		l->r.prot |= c == 'r' ? PROT_READ : c == 'w' ? PROT_WRITE : c == 'x' ? PROT_EXEC : 0;
		l->r.shared |= c == 's';
		break;
	case 6:
		l->named = true;
	}
}

static bool search(int fd, uint64_t addr, struct zp_range *r)
{
	char room[256];
	struct line l = { 0 };
	long n;

	while ((n = zp_sys(SYS_read, fd, room, sizeof(room))) > 0) {
		for (long i = 0; i < n; i++) {
			if (room[i] != '\n') {
				character(&l, room[i]);
				continue;
			}
			if (addr >= l.r.start && addr < l.r.end) {
				l.r.anonymous = !l.named;
				*r = l.r;
				return true;
			}
			l = (struct line){ 0 };
		}
	}
	return false;
}

bool zp_text_range(uint64_t addr, struct zp_range *r)
{
	int fd = zp_sys(SYS_open, "/proc/thread-self/maps", O_RDONLY | O_CLOEXEC);
	bool found;

	if (fd < 0)
		return false;
	found = query(fd, addr, r) || search(fd, addr, r);
	zp_sys(SYS_close, fd);
	return found;
}

typedef uint16_t two_bytes __attribute__((aligned(1), may_alias));

/* One store, while the page is writable and never not executable. */
static bool store(uint64_t addr, const uint8_t bytes[2], const struct zp_range *r)
{
	const uint64_t page = addr & ~(uint64_t)(PAGE - 1);
	const size_t n = (addr + 2 - page + PAGE - 1) & ~(size_t)(PAGE - 1);

	if (zp_sys(SYS_mprotect, page, n, PROT_READ | PROT_WRITE | PROT_EXEC) < 0)
		return false;
	__atomic_store_n((two_bytes *)addr, (uint16_t)(bytes[0] | bytes[1] << 8), __ATOMIC_SEQ_CST);
	return zp_sys(SYS_mprotect, page, n, r->prot) == 0;
}

/* alone: nobody else executes these bytes now, else the two must change at once,
 * which the kernel's copying does not promise. */
bool zp_text_write(int fd, uint64_t addr, const uint8_t bytes[2], const struct zp_range *r, bool alone)
{
	if (alone && fd >= 0 && zp_sys(SYS_pwrite64, fd, bytes, 2, addr) == 2)
		return true;
	if ((r->anonymous && !alone) || addr + 2 > r->end)
		return false;
	return store(addr, bytes, r);
}
