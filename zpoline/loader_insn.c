/* One x86-64 instruction: how long it is, where it goes on, what it addresses.
 * Enough for loader_live.c, which takes what is not known here for dangerous.
 * After Intel SDM 2, chapter 2 and appendix A. */
#include "loader_internal.h"

struct reader {
	const uint8_t *p, *end;
	bool bad;
	unsigned rex; /* of REX, VEX or EVEX: W 8, R 4, X 2, B 1 */
	bool operand16, address32, vex, evex;
};

static uint8_t byte(struct reader *r)
{
	if (r->p >= r->end) {
		r->bad = true;
		return 0;
	}
	return *r->p++;
}

static int64_t number(struct reader *r, int n)
{
	uint64_t v = 0;

	for (int i = 0; i < n; i++)
		v |= (uint64_t)byte(r) << (8 * i);
	if (n == 1)
		return (int8_t)v;
	if (n == 2)
		return (int16_t)v;
	return n == 4 ? (int32_t)v : (int64_t)v;
}

static bool in(unsigned v, unsigned low, unsigned high)
{
	return v >= low && v <= high;
}

/* The opcode with all that stands before it. */
static void opcode(struct reader *r, struct zp_insn *out)
{
	uint8_t b = byte(r);

	for (;; b = byte(r)) {
		if (b == 0x66)
			r->operand16 = true;
		else if (b == 0x67)
			r->address32 = true;
		else if (b != 0xf0 && b != 0xf2 && b != 0xf3 && b != 0x2e && b != 0x36 && b != 0x3e && b != 0x26 && b != 0x64 && b != 0x65)
			break;
	}
	if (in(b, 0x40, 0x4f)) {
		r->rex = b & 15;
		b = byte(r);
	}
	out->map = 1;
	if (b == 0xc5) {
		r->vex = true;
		r->rex = byte(r) & 0x80 ? 0 : 4;
		out->map = 2;
		b = byte(r);
	} else if (b == 0xc4 || b == 0x62) {
		uint8_t x = byte(r), y = byte(r);

		r->vex = true;
		r->evex = b == 0x62;
		r->rex = (~x >> 5 & 7) | (y & 0x80 ? 8 : 0);
		out->map = (x & (r->evex ? 7 : 31)) + 1;
		if (r->evex)
			byte(r);
		b = byte(r);
	} else if (b == 0x0f) {
		b = byte(r);
		out->map = 2;
		if (b == 0x38 || b == 0x3a) {
			out->map = b == 0x38 ? 3 : 4;
			b = byte(r);
		}
	}
	out->op = b;
	out->opreg = (b & 7) | (r->rex & 1 ? 8 : 0);
}

static bool has_modrm_1(unsigned op)
{
	if (op < 0x40)
		return (op & 7) < 4;
	return op == 0x63 || op == 0x69 || op == 0x6b || in(op, 0x80, 0x8f) || op == 0xc0 || op == 0xc1 || op == 0xc6 || op == 0xc7 ||
	       in(op, 0xd0, 0xd3) || in(op, 0xd8, 0xdf) || op == 0xf6 || op == 0xf7 || op == 0xfe || op == 0xff;
}

static bool has_modrm_2(unsigned op)
{
	return !(in(op, 0x05, 0x0b) || op == 0x0e || in(op, 0x30, 0x37) || op == 0x77 || in(op, 0x80, 0x8f) || in(op, 0xa0, 0xa2) ||
		 in(op, 0xa8, 0xaa) || in(op, 0xc8, 0xcf) || op == 0xff);
}

static void modrm(struct reader *r, struct zp_insn *out)
{
	uint8_t m = byte(r);
	unsigned low = m & 7;

	out->modrm = true;
	out->mod = m >> 6;
	out->reg = (m >> 3 & 7) | (r->rex & 4 ? 8 : 0);
	out->rm = low | (r->rex & 1 ? 8 : 0);
	out->base = out->index = -1;
	if (out->mod == 3)
		return;
	out->memory = true;
	out->base = out->rm;
	if (low == 4) {
		uint8_t s = byte(r);

		low = s & 7;
		out->base = low | (r->rex & 1 ? 8 : 0);
		out->index = (s >> 3 & 7) | (r->rex & 2 ? 8 : 0);
		if (out->index == ZP_RSP)
			out->index = -1;
		if (low == 5 && out->mod == 0)
			out->base = -1;
	} else if (low == 5 && out->mod == 0) {
		out->base = -2;
	}
	if (out->mod == 1)
		out->disp = number(r, 1);
	else if (out->mod == 2 || (out->mod == 0 && low == 5))
		out->disp = number(r, 4);
}

/* Bytes of the immediate, or of a jump's distance. */
static int immediate_1(const struct reader *r, const struct zp_insn *i)
{
	const int z = r->operand16 ? 2 : 4;
	const unsigned op = i->op;

	if (op < 0x40)
		return (op & 7) == 4 ? 1 : (op & 7) == 5 ? z : 0;
	if (in(op, 0xa0, 0xa3))
		return r->address32 ? 4 : 8;
	if (in(op, 0xb8, 0xbf))
		return r->rex & 8 ? 8 : z;
	if (op == 0x68 || op == 0x69 || op == 0x81 || op == 0xa9 || op == 0xc7 || (op == 0xf7 && (i->reg & 7) < 2))
		return z;
	if (op == 0xe8 || op == 0xe9)
		return 4;
	if (op == 0xc2)
		return 2;
	if (op == 0x6a || op == 0x6b || in(op, 0x70, 0x80) || op == 0x83 || op == 0xa8 || in(op, 0xb0, 0xb7) || op == 0xc0 || op == 0xc1 ||
	    op == 0xc6 || op == 0xcd || in(op, 0xe0, 0xe7) || op == 0xeb || (op == 0xf6 && (i->reg & 7) < 2))
		return 1;
	return 0;
}

static int immediate_2(const struct zp_insn *i)
{
	const unsigned op = i->op;

	if (in(op, 0x80, 0x8f))
		return 4;
	return in(op, 0x70, 0x73) || op == 0xa4 || op == 0xac || op == 0xba || op == 0xc2 || in(op, 0xc4, 0xc6);
}

static enum zp_flow flow_1(const struct zp_insn *i)
{
	const unsigned op = i->op;

	if (in(op, 0x70, 0x7f) || in(op, 0xe0, 0xe3))
		return ZP_BRANCH;
	if ((op < 0x40 && (op & 7) > 5) || in(op, 0x60, 0x62) || op == 0x82 || op == 0x9a || op == 0xc8 || op == 0xca || op == 0xcb ||
	    in(op, 0xce, 0xcf) || in(op, 0xd4, 0xd6) || op == 0xea || op == 0xf1 || (op == 0x8f && i->reg & 7))
		return ZP_UNKNOWN;
	if (op == 0xff) {
		const unsigned kind = i->reg & 7;

		return kind == 2 ? ZP_CALL : in(kind, 3, 5) || kind == 7 ? ZP_UNKNOWN : ZP_NEXT;
	}
	switch (op) {
	case 0xe8:
		return ZP_CALL;
	case 0xe9:
	case 0xeb:
		return ZP_JUMP;
	case 0xc2:
	case 0xc3:
		return ZP_RET;
	case 0xcc:
	case 0xf4:
		return ZP_STOP;
	}
	return ZP_NEXT;
}

static enum zp_flow flow_2(unsigned op)
{
	if (in(op, 0x80, 0x8f))
		return ZP_BRANCH;
	if (op == 0x0b || op == 0xb9 || op == 0xff)
		return ZP_STOP;
	if (op == 0xa0 || op == 0xa1 || op == 0xa8 || op == 0xa9 || op == 0x07 || op == 0x35 || op == 0x37 || op == 0x04 || op == 0x0a ||
	    op == 0x0e || op == 0x0f || op == 0xaa)
		return ZP_UNKNOWN;
	return ZP_NEXT;
}

/* The most that an operand in memory may cover. */
static unsigned width(const struct reader *r, const struct zp_insn *i)
{
	if (i->map == 1)
		return in(i->op, 0xd8, 0xdf) ? 108 : 8;
	if (i->map == 2 && !r->vex) {
		if (in(i->op, 0x40, 0x4f) || in(i->op, 0x90, 0xc1) || i->op == 0xc3)
			return i->op == 0xae ? 4096 : 8; /* ae: fxsave, xsave */
		return i->op == 0xc7 ? 4096 : 16;
	}
	return r->evex ? 64 : r->vex ? 32 : 16;
}

/* false: longer than n, or no instruction. */
bool zp_decode(const uint8_t *code, size_t n, struct zp_insn *out)
{
	struct reader r = { .p = code, .end = code + (n < 15 ? n : 15) };
	int imm;

	*out = (struct zp_insn){ .base = -1, .index = -1 };
	opcode(&r, out);
	if (out->map > 4 && !r.evex)
		return false;
	if (out->map == 1 ? has_modrm_1(out->op) : out->map == 2 ? has_modrm_2(out->op) : true)
		modrm(&r, out);
	imm = out->map == 1 ? immediate_1(&r, out) : out->map == 2 ? immediate_2(out) : out->map == 4;
	out->imm = imm ? number(&r, imm) : 0;
	out->flow = out->map == 1 ? flow_1(out) : out->map == 2 && !r.vex ? flow_2(out->op) : ZP_NEXT;
	if (out->flow == ZP_JUMP || out->flow == ZP_BRANCH)
		out->rel = out->imm;
	out->width = width(&r, out);
	out->scaled = r.evex && out->mod == 1;
	out->vector = r.vex;
	out->len = r.p - code;
	return !r.bad;
}
