/*
 * execve: a program that makes an environment of its own for another (env -i,
 * login, many daemons) shall not lose us by that, as it would not lose a seccomp
 * filter. What is missing is added: LD_PRELOAD with our library, LIBZPHOOK, and
 * all that begins with POEMQ_. Values that are there stay.
 */
#include "loader_internal.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>

enum { MOST_KEPT = 48, MOST_ENV = 3072, MOST_PRELOAD = 8192, MOST_NAME = 64 };

static char *kept[MOST_KEPT]; /* NAME=VALUE */
static int nkept;
static char our_path[1024];

static const char preload[] = "LD_PRELOAD=";

static bool is_ours(const char *e)
{
	return strncmp(e, "LIBZPHOOK=", 10) == 0 || strncmp(e, "POEMQ_", 6) == 0;
}

/* Programs write over their environment (setproctitle): copies. Uses libc. */
void zp_carry_init(char **env)
{
	Dl_info self;
	size_t size = 0;
	char *room;

	if (dladdr((void *)zp_carry_init, &self) && self.dli_fname && strlen(self.dli_fname) < sizeof(our_path))
		strcpy(our_path, self.dli_fname);
	for (char **e = env; e && *e; e++)
		if (is_ours(*e))
			size += strlen(*e) + 1;
	if (size == 0 || !*our_path)
		return;
	room = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (room == MAP_FAILED)
		return;
	for (char **e = env; *e && nkept < MOST_KEPT; e++) {
		if (!is_ours(*e) || !strchr(*e, '='))
			continue;
		kept[nkept++] = room;
		room = stpcpy(room, *e) + 1;
	}
}

/* From here on no libc: this is a system call, perhaps of a child of vfork. */

/* Copies n octets of the program's memory, which may be unreadable. Where
 * process_vm_readv(2) is not allowed, as by Docker's default seccomp profile,
 * through a pipe; n is at most PIPE_BUF, for which it has room. */
static bool peek(void *to, const void *from, size_t n)
{
	struct iovec here = { to, n }, there = { (void *)from, n };
	long r = zp_sys(SYS_process_vm_readv, zp_sys(SYS_getpid), &here, 1, &there, 1, 0);
	int p[2];

	if (r != -EPERM && r != -ENOSYS)
		return r == (long)n;
	if (zp_sys(SYS_pipe2, p, O_CLOEXEC) < 0)
		return false;
	r = zp_sys(SYS_write, p[1], from, n);
	if (r == (long)n)
		r = zp_sys(SYS_read, p[0], to, n);
	zp_sys(SYS_close, p[0]);
	zp_sys(SYS_close, p[1]);
	return r == (long)n;
}

/* Copies a string of the program's; its length, or -1 if it cannot be read. What
 * does not fit is left out. */
static long fetch(char *to, size_t n, const char *from)
{
	size_t done = 0;

	while (done < n - 1) {
		size_t part = 4096 - ((uintptr_t)(from + done) & 4095);

		if (part > n - 1 - done)
			part = n - 1 - done;
		if (!peek(to + done, from + done, part))
			return -1;
		for (size_t i = 0; i < part; i++)
			if (!to[done + i])
				return done + i;
		done += part;
	}
	to[done] = 0;
	return done;
}

static bool fetch_word(const void *from, char **to)
{
	return peek(to, from, sizeof(*to));
}

/* Whether both name the same variable. */
static bool same_name(const char *a, const char *b)
{
	while (*a == *b && *a && *a != '=')
		a++, b++;
	return *a == '=' && *b == '=';
}

static bool contains(const char *text, const char *part)
{
	for (; *text; text++) {
		size_t i = 0;

		while (part[i] && text[i] == part[i])
			i++;
		if (!part[i])
			return true;
	}
	return false;
}

static char *append(char *to, const char *text)
{
	while (*text)
		*to++ = *text++;
	*to = 0;
	return to;
}

/* An environment under construction; on a stack of zp_stack's. */
struct building {
	char *env[MOST_ENV + MOST_KEPT + 2];
	int n;
	uint64_t seen; /* of kept, by bits */
	bool preloaded, changed;
	char given[MOST_PRELOAD], ours[MOST_PRELOAD + sizeof(our_path)];
};

/* One variable of the program's. */
static bool add(struct building *b, char *e)
{
	char name[MOST_NAME];

	if (b->n == MOST_ENV || fetch(name, sizeof(name), e) < 0)
		return false;
	for (int i = 0; i < nkept; i++)
		if (same_name(kept[i], name))
			b->seen |= 1UL << i;
	if (same_name(preload, name)) {
		if (fetch(b->given, sizeof(b->given), e) == sizeof(b->given) - 1)
			return false; /* too long to be added to */
		b->preloaded = true;
		if (!contains(b->given, our_path)) {
			char *end = append(append(b->ours, preload), our_path);

			if (b->given[sizeof(preload) - 1])
				append(append(end, ":"), b->given + sizeof(preload) - 1);
			b->changed = true;
			e = b->ours;
		}
	}
	b->env[b->n++] = e;
	return true;
}

/* Makes the call; with the program's own environment where ours cannot be. */
static long exec(struct zp_frame *f)
{
	const int at = f->nr == SYS_execve ? 2 : 3;
	const long given = f->a[at];
	struct building b;
	char *e;
	bool good = true;

	b.n = 0;
	b.seen = 0;
	b.preloaded = b.changed = false;
	for (char **env = (char **)given; given && good && (good = fetch_word(env, &e)) && e; env++)
		good = add(&b, e);
	if (good && !b.preloaded) {
		append(append(b.ours, preload), our_path);
		b.env[b.n++] = b.ours;
		b.changed = true;
	}
	for (int i = 0; i < nkept && good; i++) {
		if (b.seen & 1UL << i)
			continue;
		b.env[b.n++] = kept[i];
		b.changed = true;
	}
	b.env[b.n] = NULL;
	return zp_sys(f->nr, f->a[0], f->a[1], at == 2 && good && b.changed ? (long)b.env : f->a[2],
		      at == 3 && good && b.changed ? (long)b.env : f->a[3], f->a[4]);
}

int zp_exec(struct zp_frame *f)
{
	struct zp_stack *s;

	if (!*our_path || !(s = zp_stack_take()))
		return ZP_NATIVE;
	f->nr = zp_on_stack(exec, f, zp_stack_top(s));
	zp_stack_give(s);
	return ZP_RESULT;
}
