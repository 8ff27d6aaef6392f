/*
 * Connections, of which each call has one to itself from its question to its
 * answer. A signal handler, or another thread, that makes a call meanwhile takes
 * the next. The table is wiped in the child of a fork(2) (MADV_WIPEONFORK),
 * which then makes its own; a child that shares its parent's memory (vfork(2))
 * is known by its pid, and gets a connection for the one call.
 */
#include "hook.h"

#include <errno.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>

enum { SLOTS = 128 };

#ifndef MADV_WIPEONFORK
#define MADV_WIPEONFORK 18
#endif

static struct table {
	int pid; /* whose it is; 0 when it has just been made or wiped */
	struct pq_slot slots[SLOTS];
} *table;

static void *map(size_t size)
{
	long p = pq_sys(SYS_mmap, 0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return p < 0 && p > -4096 ? 0 : (void *)p;
}

int pq_slots_init(void)
{
	struct pq_slot *s;
	int pid = pq_sys(SYS_getpid, 0);

	table = map(sizeof(*table));
	if (!table || pq_sys(SYS_madvise, table, sizeof(*table), MADV_WIPEONFORK) != 0) {
		pq_say("hook", 0, "no memory that is wiped on fork (MADV_WIPEONFORK)", "Linux 4.14 or newer is needed");
		return -1;
	}
	/* The broker learns of the process now, so that it serves on while we run.
	   Without one, the first socket says so. */
	s = pq_take(pid, pid, 0);
	pq_connect(s, pid);
	pq_give(s);
	return 0;
}

/*
 * A call of this thread that a signal handler jumped out of is never ended: its
 * frame is where ours is, or above the top of the stack. (A stack for signal
 * handlers may be anywhere, so nothing is said there.)
 */
static int abandoned(const struct pq_slot *s, int tid, uintptr_t frame)
{
	stack_t ss;

	if (__atomic_load_n(&s->owner, __ATOMIC_RELAXED) != tid || s->frame > frame)
		return 0;
	return pq_sys(SYS_sigaltstack, 0, &ss) == 0 && !(ss.ss_flags & SS_ONSTACK);
}

static struct pq_slot *temporary(int tid)
{
	struct pq_slot *s = map(sizeof(*s));

	if (s) {
		s->temporary = 1;
		s->owner = tid;
	}
	return s;
}

struct pq_slot *pq_take(int pid, int tid, uintptr_t frame)
{
	int of = __atomic_load_n(&table->pid, __ATOMIC_RELAXED);

	if (of == 0 && __atomic_compare_exchange_n(&table->pid, &of, pid, 0, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
		of = pid;
	if (of != pid && (pq_sys(SYS_kill, of, 0) != -ESRCH ||
			  !__atomic_compare_exchange_n(&table->pid, &of, pid, 0, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED)))
		return temporary(tid); /* else it was a child's of vfork, which has ended */
	for (int i = 0; i < SLOTS; i++) {
		struct pq_slot *s = &table->slots[i];
		int nobody = 0;

		if (__atomic_compare_exchange_n(&s->owner, &nobody, tid, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)) {
			s->frame = frame;
			return s;
		}
		if (abandoned(s, tid, frame)) {
			pq_disconnect(s); /* the answer may be under way */
			s->frame = frame;
			return s;
		}
	}
	return temporary(tid);
}

void pq_give(struct pq_slot *s)
{
	if (s->temporary) {
		pq_disconnect(s);
		pq_sys(SYS_munmap, s, sizeof(*s));
		return;
	}
	__atomic_store_n(&s->owner, 0, __ATOMIC_RELEASE);
}
