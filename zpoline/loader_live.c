/*
 * Whether the word below the stack pointer is in use after a system call.
 *
 * `call *%rax` writes its return address there, where `syscall` writes nothing; a
 * function without calls may keep something in it (psABI 3.2.2, the red zone). So
 * before an instruction is rewritten, all ways on from it are followed until that
 * word is overwritten, or is below the stack pointer of somebody's return. A way
 * that reads it, takes its address, or cannot be followed makes the answer yes.
 * No is therefore certain but for one thing: a pointer to it that was stored in
 * memory before.
 */
#include "loader_internal.h"

enum { MOST_STEPS = 256, MOST_WAYS = 24, WORD = 8 };

struct way {
	uint64_t at;
	int64_t delta; /* of the stack pointer since the call */
};

struct walk {
	const struct zp_regs *regs;
	struct way ways[MOST_WAYS]; /* to be followed */
	struct way seen[MOST_STEPS];
	int nways, nseen;
};

static uint64_t sp(const struct walk *w)
{
	return w->regs->r[ZP_RSP];
}

static bool overlaps(const struct walk *w, uint64_t addr, uint64_t n)
{
	return addr < sp(w) && addr + n > sp(w) - WORD;
}

/* A memory operand that may be the word. */
static bool touches(const struct walk *w, const struct zp_insn *i, int64_t delta)
{
	uint64_t addr;

	if (!i->memory || i->base < 0)
		return false;
	if (i->base == 0 || i->base == 1 || i->base == 11) /* the call changed them */
		return false;
	addr = (i->base == ZP_RSP ? sp(w) + delta : w->regs->r[i->base]) + i->disp;
	if (i->index >= 0 || i->scaled) /* an array on the stack, of unknown extent */
		return (i->base == ZP_RSP || i->base == ZP_RBP) && addr < sp(w) && addr + 4096 > sp(w);
	return overlaps(w, addr, i->width);
}

static bool is_nop(const struct zp_insn *i)
{
	return i->map == 2 && (i->op == 0x1f || i->op == 0x1e || i->op == 0x0d || i->op == 0x18);
}

/* xchg and mov with a register in the opcode. */
static bool opcode_names_rsp(const struct zp_insn *i)
{
	return i->map == 1 && ((i->op >= 0x90 && i->op < 0x98) || (i->op >= 0xb8 && i->op < 0xc0)) && i->opreg == ZP_RSP;
}

/* Whether an instruction may set the stack pointer in a way not known here. */
static bool sets_rsp(const struct zp_insn *i)
{
	const bool byte_sized = i->map == 1 && !(i->op & 1) && i->op != 0x8e && i->op != 0x8c && i->op != 0x8d;

	if (opcode_names_rsp(i))
		return true;
	if (!i->modrm || i->vector || i->map > 2 || byte_sized)
		return false;
	if (i->map == 2) /* only those with general registers */
		return i->op >= 0x40 && i->op < 0x50 && i->reg == ZP_RSP;
	switch (i->op) {
	case 0x39: /* cmp */
	case 0x3b:
	case 0x85: /* test */
		return false;
	case 0x89: /* mov to the operand */
		return i->mod == 3 && i->rm == ZP_RSP;
	case 0x81: /* groups: the other field is no register */
	case 0x83:
	case 0xc1:
	case 0xc7:
	case 0xd1:
	case 0xd3:
	case 0xf7:
	case 0xff:
	case 0x8f:
		return i->mod == 3 && i->rm == ZP_RSP;
	}
	if (i->op >= 0xd8 && i->op <= 0xdf)
		return false;
	return i->reg == ZP_RSP || (i->mod == 3 && i->rm == ZP_RSP);
}

enum outcome { GO_ON, DEAD, LIVE };

static enum outcome push(int64_t *delta)
{
	if (*delta == 0)
		return DEAD; /* overwritten */
	*delta -= WORD;
	return GO_ON;
}

static enum outcome pop(int64_t *delta)
{
	if (*delta == -WORD)
		return LIVE; /* read */
	*delta += WORD;
	return GO_ON;
}

/* leave: the stack pointer is what the frame pointer was, and that is popped. */
static enum outcome leave(const struct walk *w, int64_t *delta)
{
	*delta = (int64_t)(w->regs->r[ZP_RBP] - sp(w));
	if (*delta < -4096 || *delta > 1 << 20)
		return LIVE;
	return pop(delta);
}

/* What one instruction does to the stack pointer. */
static enum outcome stack(const struct walk *w, const struct zp_insn *i, int64_t *delta)
{
	const unsigned op = i->op, kind = i->reg & 7;

	if (i->map == 1) {
		if ((op >= 0x50 && op < 0x58) || op == 0x68 || op == 0x6a || op == 0x9c || (op == 0xff && kind == 6))
			return push(delta);
		if (op == 0x5c && i->opreg == ZP_RSP)
			return LIVE;
		if ((op >= 0x58 && op < 0x60) || op == 0x9d || op == 0x8f)
			return pop(delta);
		if (op == 0xc9)
			return leave(w, delta);
		if ((op == 0x81 || op == 0x83) && i->mod == 3 && i->rm == ZP_RSP && (kind == 0 || kind == 5 || kind == 7)) {
			*delta += kind == 0 ? i->imm : kind == 5 ? -i->imm : 0;
			return GO_ON;
		}
		if (op == 0x8d && i->reg == ZP_RSP && i->base == ZP_RSP && i->index < 0) {
			*delta += i->disp;
			return GO_ON;
		}
	}
	return sets_rsp(i) ? LIVE : GO_ON;
}

static enum outcome step(struct walk *w, struct way *at, const struct zp_insn *i)
{
	const bool moves = i->map == 1 && i->op == 0x8d && i->reg == ZP_RSP; /* lea to rsp reads nothing */
	const uint64_t next = at->at + i->len;
	enum outcome o;

	if (!is_nop(i) && !moves && touches(w, i, at->delta))
		return LIVE;
	o = stack(w, i, &at->delta);
	if (o != GO_ON)
		return o;
	at->at = next;
	switch (i->flow) {
	case ZP_NEXT:
		return GO_ON;
	case ZP_CALL: /* what is below the stack pointer is the callee's */
		return at->delta >= 0 ? DEAD : GO_ON;
	case ZP_RET:
		return at->delta >= 0 ? DEAD : LIVE;
	case ZP_STOP:
		return DEAD;
	case ZP_JUMP:
		at->at = next + i->rel;
		return GO_ON;
	case ZP_BRANCH:
		if (w->nways == MOST_WAYS)
			return LIVE;
		w->ways[w->nways++] = (struct way){ next + i->rel, at->delta };
		return GO_ON;
	case ZP_UNKNOWN:
		break;
	}
	return LIVE;
}

/* DEAD also for where it has been before, with the same stack pointer. */
static enum outcome look(struct walk *w, const struct way *at)
{
	for (int s = 0; s < w->nseen; s++)
		if (w->seen[s].at == at->at)
			return w->seen[s].delta == at->delta ? DEAD : LIVE;
	if (w->nseen == MOST_STEPS)
		return LIVE;
	w->seen[w->nseen++] = *at;
	return GO_ON;
}

static enum outcome follow(struct walk *w, struct way at, zp_reader read, void *of)
{
	for (;;) {
		uint8_t code[15];
		struct zp_insn i;
		enum outcome o = look(w, &at);

		if (o != GO_ON)
			return o;
		if (!zp_decode(code, read(of, at.at, code, sizeof(code)), &i))
			return LIVE;
		o = step(w, &at, &i);
		if (o != GO_ON)
			return o;
	}
}

/* An argument that points into the red zone: the kernel would read the return
 * address, or write over it. */
static bool argument_below(const struct zp_regs *regs)
{
	static const unsigned char arguments[] = { 7, 6, 2, 10, 8, 9 }; /* rdi, rsi, rdx, r10, r8, r9 */

	for (size_t i = 0; i < sizeof(arguments); i++) {
		uint64_t v = regs->r[arguments[i]];

		if (v < regs->r[ZP_RSP] && v >= regs->r[ZP_RSP] - ZP_RED_ZONE)
			return true;
	}
	return false;
}

bool zp_live_below(uint64_t ret, const struct zp_regs *regs, zp_reader read, void *of)
{
	static struct walk w; /* too large for a signal stack; who asks has the lock of loader_rewrite.c */

	if (argument_below(regs))
		return true;
	w.regs = regs;
	w.nseen = 0;
	w.nways = 1;
	w.ways[0] = (struct way){ ret, 0 };
	while (w.nways) {
		struct way at = w.ways[--w.nways];

		if (follow(&w, at, read, of) == LIVE)
			return true;
	}
	return false;
}
