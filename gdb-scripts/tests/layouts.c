/* Pools of f_malloc and TLSF in the layouts that no distribution package here has, made at once and never changed.
 *   -DHEADER=72|80|48   f_malloc's fragments; 48 without owners
 *   -DHEADER=64|32      TLSF's block_header_t; 32 without owners
 * -DNO_CHECK leaves the check words of f_malloc unset. Every third fragment is free, sizes are 64 + 8 * (i % 5).
 * Stops itself with SIGTRAP once the pools stand: run it under gdb. */
#include <signal.h>
#include <stdint.h>
#include <string.h>

enum { FRAGMENTS = 301, ROOM = 1 << 17 };

struct sr_api {
	const char *mname;
	void *mem_pool, *mem_block, *functions[20];
} _pkg_root, _shm_root;
void *pt;
int *process_count, process_no;

#if HEADER == 72 || HEADER == 80 || HEADER == 48
struct fm_frag {
	unsigned long size;
#if HEADER == 72
	struct fm_frag *next_free, *prev_free;
	int is_free;
#else
	unsigned long is_free;
	struct fm_frag *next_free, *prev_free;
#endif
#if HEADER != 48
	const char *file, *func, *mname;
	unsigned long line;
#endif
#if HEADER == 72
	unsigned int check;
#else
	unsigned long reserved1, check;
#endif
};
struct fm_block {
	long type;
	unsigned long size, used, real_used, max_real_used, ffrags;
#if HEADER != 72
	unsigned long reserved1;
#endif
	struct fm_frag *first_frag, *last_frag;
	unsigned long free_bitmap[33];
	void *free_hash[2098][2];
};
_Static_assert(sizeof(struct fm_frag) == HEADER, "sizeof(struct fm_frag)");
static const char manager[] = "f_malloc";
static _Alignas(16) char room[2][ROOM];

static void *make(int kind)
{
	struct fm_block *block = (void *)room[kind];
	struct fm_frag *frag = (void *)(room[kind] + sizeof *block);
	block->type = kind;
	block->first_frag = frag;
	for (int i = 0; i <= FRAGMENTS; i++) {
		frag->size = i == FRAGMENTS ? 0 : 64 + 8 * (i % 5);
		frag->is_free = i < FRAGMENTS && i % 3 == 1;
#if HEADER != 48
		frag->file = "core: made.c", frag->func = i % 2 ? "odd" : "even", frag->mname = "core", frag->line = 7;
#endif
#ifndef NO_CHECK
		frag->check = i == FRAGMENTS ? 0xc0c0c0c0 : 0xf0f0f0f0;
#endif
		block->last_frag = frag;
		if (frag->is_free)
			block->ffrags++;
		else
			block->used += frag->size;
		frag = (void *)((char *)(frag + 1) + frag->size);
	}
	block->real_used = sizeof *block + (FRAGMENTS + 1) * sizeof *frag + block->used;
	block->size = (char *)frag - room[kind];
	return block;
}
#else
typedef struct block_header_t {
	struct block_header_t *prev_phys_block;
#if HEADER == 64
	struct {
		const char *file, *func, *mname;
		unsigned int line;
	} alloc_info;
#endif
	unsigned long size;
	struct block_header_t *next_free, *prev_free;
} block_header_t;
typedef struct control_t {
	block_header_t block_null;
	unsigned long total_size, allocated, real_used, max_used, fragments, max_fragments;
	unsigned int fl_bitmap, sl_bitmap[32];
	block_header_t *blocks[32][32];
} control_t;
_Static_assert(sizeof(block_header_t) == HEADER, "sizeof(block_header_t)");
static const char manager[] = "tlsf_malloc";
static _Alignas(16) char room[2][ROOM];

static void *make(int kind)
{
	control_t *control = (void *)room[kind];
	block_header_t *before = 0, *header = (void *)(room[kind] + sizeof *control - 8);
	int before_free = 0;
	for (int i = 0; i <= FRAGMENTS; i++) {
		unsigned long size = i == FRAGMENTS ? 0 : 64 + 8 * (i % 5);
		int free = size && i % 3 == 1;
		if (before_free)
			header->prev_phys_block = before;
		header->size = size | free | before_free << 1;
#if HEADER == 64
		header->alloc_info.file = "core: made.c", header->alloc_info.func = i % 2 ? "odd" : "even";
		header->alloc_info.mname = "core", header->alloc_info.line = 7;
		memset(&header->alloc_info.line + 1, 0xee, 4);
#endif
		if (free)
			control->fragments++;
		else if (size) {
			control->allocated += size;
			control->real_used += sizeof *header - 8;
		}
		before = header, before_free = free;
		if (size)
			header = (void *)((char *)&header->next_free + size - 8);
	}
	control->real_used += control->allocated + sizeof *control;
	control->total_size = (char *)&header->next_free - room[kind] - 2 * (sizeof *header - 24);
	return control;
}
#endif

int main(void)
{
	_pkg_root.mname = _shm_root.mname = manager;
	_pkg_root.mem_block = make(1);
	_shm_root.mem_block = make(0);
	raise(SIGTRAP);
	return (int)(intptr_t)pt + (process_count != 0) + process_no;
}
