/*
 * Whether and when a system call instruction becomes `call *%rax`. It does at its
 * first execution, if that is safe; else it stays as it is, and the kernel
 * dispatches it each time, which is slow and right.
 *
 * It is not safe
 *   - where the word below the stack pointer, which the call would overwrite, may
 *     be in use (loader_live.c);
 *   - in memory that is shared: others have not got a loader;
 *   - if other threads run and the two bytes lie in two cache lines, or in
 *     anonymous memory, whose protection a JIT may be changing just now.
 *
 * Page 0 must be readable where the processor has no protection keys, and then
 * reading through a null pointer does not fault. A program that handles SIGSEGV
 * may live by that fault (a JVM does, and Go). So there rewriting begins late,
 * after the time when programs set up their signals, and not in those.
 */
#include "loader_internal.h"

#include <sys/syscall.h>

enum { LATE = 1000 }; /* dispatched calls */

int zp_rewriting;
bool zp_rewrite_always;

static int lock;     /* the right to add to zp_sites and to write text */
static long counted; /* calls dispatched before rewriting began */

static const uint8_t syscall_bytes[2] = { 0x0f, 0x05 };
static const uint8_t call_bytes[2] = { 0xff, 0xd0 };

/* Nobody waits: who does not get the lock is dispatched once more. */
static bool try_lock(void)
{
	return __atomic_exchange_n(&lock, 1, __ATOMIC_ACQUIRE) == 0;
}

static void unlock(void)
{
	__atomic_store_n(&lock, 0, __ATOMIC_RELEASE);
}

/* The thread that had the lock is not in this child. */
void zp_rewrite_forked(void)
{
	unlock();
}

static size_t read_text(void *fd, uint64_t addr, void *to, size_t n)
{
	return zp_text_read(*(int *)fd, addr, to, n);
}

static bool lines_differ(uint64_t addr)
{
	return addr / 64 != (addr + 1) / 64;
}

enum verdict { REWRITTEN, NOT_EVER };

static enum verdict rewrite(int fd, uint64_t ret, const struct zp_regs *regs)
{
	const bool alone = !__atomic_load_n(&zp_threads, __ATOMIC_RELAXED);
	const uint64_t at = ret - 2;
	struct zp_range r;
	uint8_t now[2];

	if (zp_text_read(fd, at, now, 2) != 2)
		return NOT_EVER;
	if (now[0] == call_bytes[0] && now[1] == call_bytes[1])
		return REWRITTEN; /* by another thread */
	if (now[0] != syscall_bytes[0] || now[1] != syscall_bytes[1])
		return NOT_EVER;
	if (!alone && lines_differ(at))
		return NOT_EVER;
	if (!zp_text_range(at, &r) || r.shared || ret > r.end)
		return NOT_EVER;
	if (!alone && r.anonymous)
		return NOT_EVER;
	if (zp_live_below(ret, regs, read_text, &fd))
		return NOT_EVER;
	if (!zp_site_add(ret))
		return NOT_EVER;
	return zp_text_write(fd, at, call_bytes, &r, alone) ? REWRITTEN : NOT_EVER;
}

/* Opens page 0 at the first call that needs it. */
static bool begin(void)
{
	if (zp_rewriting == ZP_REWRITE_LATER) {
		if (++counted < LATE)
			return false;
		zp_rewriting = zp_page_open() == 0 ? ZP_REWRITE_NOW : ZP_REWRITE_NEVER;
		if (zp_rewriting == ZP_REWRITE_NOW)
			zp_fault_catch();
	}
	return zp_rewriting == ZP_REWRITE_NOW;
}

void zp_see(uint64_t ret, const struct zp_regs *regs)
{
	int fd;

	if (zp_rewriting == ZP_REWRITE_NEVER || zp_site_kept(ret) || !try_lock())
		return;
	if (begin()) {
		fd = zp_text_open();
		if (rewrite(fd, ret, regs) == NOT_EVER)
			zp_site_keep(ret);
		zp_text_close(fd);
	}
	unlock();
}

static bool undo(int fd)
{
	for (size_t i = 0; i < sizeof(zp_sites) / sizeof(*zp_sites); i++) {
		uint64_t at = zp_sites[i] - 2;
		uint8_t now[2];

		if (zp_sites[i] == 0 || zp_text_read(fd, at, now, 2) != 2 || now[0] != call_bytes[0] || now[1] != call_bytes[1])
			continue; /* unmapped since */
		struct zp_range r;

		if (!zp_text_range(at, &r) || !zp_text_write(fd, at, syscall_bytes, &r, true))
			return false;
	}
	return true;
}

/* Where rewriting has begun and there are more threads than one it is too late: one
 * might be on its way through page 0. */
void zp_wants_faults(void)
{
	enum { PATIENCE = 100000 };
	int fd, tries = 0;

	if (zp_rewriting == ZP_REWRITE_NEVER || zp_rewrite_always || zp_page_unreadable())
		return;
	/* Who has it blocks all signals and is done in less than a millisecond, but
	 * for a child of vfork that was killed with it. */
	while (!try_lock()) {
		if (++tries > PATIENCE)
			return;
		zp_sys(SYS_sched_yield);
	}
	if (zp_rewriting == ZP_REWRITE_LATER) {
		zp_rewriting = ZP_REWRITE_NEVER;
		zp_page_unmap();
	} else if (!zp_threads) {
		fd = zp_text_open();
		if (undo(fd)) {
			zp_rewriting = ZP_REWRITE_NEVER;
			zp_page_unmap();
		}
		zp_text_close(fd);
	}
	unlock();
}
