/*
 * The page at address 0. `call *%rax` goes to the address that is the call's
 * number; from there it slides to a jump to zp_entry_call at the page's end.
 *
 * Each two bytes of the slide are `eb 48`, a jump of 72 bytes, and read from the
 * second byte on `48 eb 48`, the same jump with a prefix that means nothing: so it
 * does not matter where it is entered. Two slides, for nearly all numbers are
 * below 512 and the way from there shall be short. The jumps at their ends, of 13
 * bytes, are no place to enter: 592 to 604 and 4080 to 4092 are no calls.
 */
#include "loader_internal.h"

#include <cpuid.h>
#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>

enum { PAGE = 4096, HOP = 0x48, RUNWAY = HOP + 8, NEAR_END = ZP_CALLS + RUNWAY, FAR_END = PAGE - 16 };

static bool mapped;

/* A slide from..to, the end of it nops, and the jump to zp_entry_call. */
static void slide(uint8_t *page, int from, int to)
{
	const uint64_t entry = (uint64_t)zp_entry_call;
	int i = from;

	for (; i < to - RUNWAY; i += 2) {
		page[i] = 0xeb;
		page[i + 1] = HOP;
	}
	for (; i < to; i++)
		page[i] = 0x90;
	page[i++] = 0x49; /* movabs $entry, %r11 */
	page[i++] = 0xbb;
	for (int b = 0; b < 8; b++)
		page[i++] = entry >> (8 * b);
	page[i++] = 0x41; /* jmp *%r11 */
	page[i++] = 0xff;
	page[i++] = 0xe3;
}

long zp_page_map(void)
{
	uint8_t *page = NULL;
	long r;

	if (mapped)
		return 0;
	r = zp_sys(SYS_mmap, page, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	if (r != 0)
		return r > 0 ? -EINVAL : r;
	__asm__("" : "+r"(page)); /* null is an address here */
	slide(page, 0, NEAR_END);
	slide(page, NEAR_END + 16, FAR_END);
	zp_sys(SYS_mprotect, 0, PAGE, PROT_NONE);
	mapped = true;
	return 0;
}

long zp_page_open(void)
{
	return mapped ? zp_sys(SYS_mprotect, 0, PAGE, PROT_EXEC) : -EFAULT;
}

void zp_page_unmap(void)
{
	if (mapped)
		zp_sys(SYS_munmap, 0, PAGE);
	mapped = false;
}

/* With protection keys the kernel makes PROT_EXEC alone mean execute-only
 * (pkeys(7)). */
bool zp_page_unreadable(void)
{
	unsigned a, b, c, d;

	return __get_cpuid_count(7, 0, &a, &b, &c, &d) && c & 1u << 4; /* OSPKE */
}
