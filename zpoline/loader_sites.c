/* The instructions that were rewritten, by the address after each. One thread at
 * a time adds (loader_rewrite.c has the lock); anyone looks, without one.
 * loader_entry.S looks at the first place itself. */
#include "loader_internal.h"

enum { PLACES = 1 << ZP_SITE_BITS, TRIES = 32, KEPT = 1024 };

uint64_t zp_sites[PLACES];

/* Instructions that must stay as they are; a small memory, which forgets. */
static uint64_t kept[KEPT];

static uint32_t place(uint64_t ret)
{
	return (uint32_t)ret * ZP_HASH >> (32 - ZP_SITE_BITS);
}

bool zp_site_known(uint64_t ret)
{
	for (int i = 0; i < TRIES; i++)
		if (__atomic_load_n(&zp_sites[(place(ret) + i) % PLACES], __ATOMIC_ACQUIRE) == ret)
			return true;
	return false;
}

bool zp_site_add(uint64_t ret)
{
	for (int i = 0; i < TRIES; i++) {
		uint64_t *p = &zp_sites[(place(ret) + i) % PLACES];

		if (*p == 0 || *p == ret) {
			__atomic_store_n(p, ret, __ATOMIC_RELEASE);
			return true;
		}
	}
	return false;
}

bool zp_site_kept(uint64_t ret)
{
	return __atomic_load_n(&kept[place(ret) % KEPT], __ATOMIC_RELAXED) == ret;
}

void zp_site_keep(uint64_t ret)
{
	__atomic_store_n(&kept[place(ret) % KEPT], ret, __ATOMIC_RELAXED);
}
