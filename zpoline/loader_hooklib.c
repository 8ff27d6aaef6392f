/* The hook library. It has a namespace of its own, and thereby a libc of its own,
 * whose system calls are the kernel's: a hook never comes to itself. */
#include "loader_internal.h"

#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/syscall.h>

zp_hook_fn zp_hook = zp_sys6;

/* Where the code of the hook's namespace is. */
enum { MOST_SPANS = 64 };
static struct span {
	uint64_t start, end;
} spans[MOST_SPANS];
static int nspans;

bool zp_of_hook(uint64_t ret)
{
	for (int i = 0; i < nspans; i++)
		if (ret > spans[i].start && ret <= spans[i].end)
			return true;
	return false;
}

static const char *add_spans(const struct link_map *m)
{
	const ElfW(Ehdr) *e = (const void *)m->l_addr;
	const ElfW(Phdr) *p;

	/* The dynamic linker is shared with the program. */
	if (m->l_addr == getauxval(AT_BASE) || memcmp(e->e_ident, ELFMAG, SELFMAG) != 0)
		return NULL;
	p = (const void *)(m->l_addr + e->e_phoff);
	for (int i = 0; i < e->e_phnum; i++) {
		if (p[i].p_type != PT_LOAD || !(p[i].p_flags & PF_X))
			continue;
		if (nspans == MOST_SPANS)
			return "it comes with more libraries than there is room for";
		spans[nspans].start = m->l_addr + p[i].p_vaddr;
		spans[nspans].end = spans[nspans].start + p[i].p_memsz;
		nspans++;
	}
	return NULL;
}

/* Which calls come to the hook: those it says, or all that may. */
static void want(void *library)
{
	const struct zp_hook_wants *w = dlsym(library, "__hook_wants");

	for (int nr = 0; nr < ZP_CALLS; nr++) {
		if (zp_way[nr] != ZP_WAY_KERNEL || nr == SYS_exit || nr == SYS_exit_group)
			continue;
		if (!w || (w->size == sizeof(*w) && w->nr[nr]))
			zp_way[nr] = ZP_WAY_HOOK;
	}
	if (w && w->flags & ZP_HOOK_NO_VECTORS)
		zp_xsave_size = 0;
}

const char *zp_load_hook(const char *path)
{
	int (*init)(long, void *);
	struct link_map *m;
	void *library = dlmopen(LM_ID_NEWLM, path, RTLD_NOW | RTLD_LOCAL);
	const char *wrong;

	if (!library)
		return dlerror();
	if (dlinfo(library, RTLD_DI_LINKMAP, &m) != 0)
		return dlerror();
	while (m->l_prev)
		m = m->l_prev;
	for (; m; m = m->l_next)
		if ((wrong = add_spans(m)))
			return wrong;
	*(void **)&init = dlsym(library, "__hook_init");
	if (!init)
		return "it has no __hook_init: it is no hook library of zpoline's kind";
	if (init(0, &zp_hook) != 0)
		return "its __hook_init failed";
	want(library);
	return NULL;
}
