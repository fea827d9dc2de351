#include "pool.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "check.h"

LENGTH(struct fm_frag, FM_HEADER);
AT(struct fm_frag, size, 0);
#if FM_HEADER == 72
AT(struct fm_frag, next_free, 8);
AT(struct fm_frag, prev_free, 16);
AT(struct fm_frag, is_free, 24);
#else
AT(struct fm_frag, is_free, 8);
AT(struct fm_frag, next_free, 16);
AT(struct fm_frag, prev_free, 24);
#endif
#if POOL_OWNERS
AT(struct fm_frag, file, 32);
AT(struct fm_frag, func, 40);
AT(struct fm_frag, mname, 48);
AT(struct fm_frag, line, 56);
#endif
LENGTH(struct fm_frag_lnk, 16);
AT(struct fm_block, size, 8);
AT(struct fm_block, ffrags, 40);
#if FM_HEADER == 72
AT(struct fm_frag, check, 64);
AT(struct fm_block, first_frag, 48);
AT(struct fm_block, free_bitmap, 64);
AT(struct fm_block, free_hash, 328);
LENGTH(struct fm_block, 33912);
#else
AT(struct fm_frag, check, FM_HEADER - 8);
AT(struct fm_block, first_frag, 56);
AT(struct fm_block, free_bitmap, 72);
AT(struct fm_block, free_hash, 336);
LENGTH(struct fm_block, 33904);
#endif

static struct fm_frag *after(struct fm_frag *frag)
{
    return (struct fm_frag *)((char *)(frag + 1) + frag->size);
}

static void stamp(struct fm_frag *frag, unsigned long size)
{
    frag->size = size;
#ifndef FM_UNCHECKED
    frag->check = FM_CHECK;
#endif
}

static void sign(struct fm_frag *frag, const struct owner *owner, const char *func)
{
#if POOL_OWNERS
    frag->file = owner->file;
    frag->func = func;
    frag->mname = owner->mname;
    frag->line = owner->line;
#else
    (void)frag;
    (void)owner;
    (void)func;
#endif
}

/* Adds a fragment to its bucket's list, in front of the first that is not smaller. */
static void list_add(struct fm_block *block, struct fm_frag *frag)
{
    unsigned long index = bucket_of(frag->size);
    struct fm_frag_lnk *bucket = &block->free_hash[index];
    struct fm_frag **link = &bucket->first;

    frag->prev_free = NULL;
    while (*link != NULL && (*link)->size < frag->size) {
        frag->prev_free = *link;
        link = &(*link)->next_free;
    }
    frag->next_free = *link;
    if (frag->next_free != NULL)
        frag->next_free->prev_free = frag;
    *link = frag;
    frag->is_free = 1;
    bucket->no++;
    block->free_bitmap[index / 64] |= 1UL << index % 64;
    block->ffrags++;
}

static void list_remove(struct fm_block *block, struct fm_frag *frag)
{
    unsigned long index = bucket_of(frag->size);
    struct fm_frag_lnk *bucket = &block->free_hash[index];

    if (frag->prev_free != NULL)
        frag->prev_free->next_free = frag->next_free;
    else
        bucket->first = frag->next_free;
    if (frag->next_free != NULL)
        frag->next_free->prev_free = frag->prev_free;
    frag->next_free = frag->prev_free = NULL;
    frag->is_free = 0;
    if (--bucket->no == 0)
        block->free_bitmap[index / 64] &= ~(1UL << index % 64);
    block->ffrags--;
}

struct pool *pool_init(void *where, unsigned long size, enum pool_kind kind)
{
    struct fm_block *block = where;

    size &= ~(POOL_ROUND - 1);
    if ((uintptr_t)where % POOL_ROUND != 0 ||
        size < sizeof *block + 2 * sizeof(struct fm_frag) + POOL_ROUND)
        return NULL;
    block->type = kind;
    block->size = size;
    block->real_used = block->max_real_used = sizeof *block + 2 * sizeof(struct fm_frag);
    block->first_frag = (struct fm_frag *)(block + 1);
    block->last_frag = (struct fm_frag *)((char *)block + size) - 1;
#ifndef FM_UNCHECKED
    block->last_frag->check = FM_CHECK_LAST;
#endif
    stamp(block->first_frag, size - block->real_used);
    list_add(block, block->first_frag);
    return where;
}

/* The first bucket from `index` on that is not empty; POOL_BUCKETS if there is none. */
static unsigned long filled_bucket(const struct fm_block *block, unsigned long index)
{
    unsigned long word = index / 64, bits;

    if (index >= POOL_BUCKETS)
        return POOL_BUCKETS;
    bits = block->free_bitmap[word] & ~0UL << index % 64;
    while (bits == 0 && ++word < FM_BITMAP_WORDS)
        bits = block->free_bitmap[word];
    return bits == 0 ? POOL_BUCKETS : word * 64 + (unsigned)__builtin_ctzl(bits);
}

static struct fm_frag *find(const struct fm_block *block, unsigned long size)
{
    unsigned long index = filled_bucket(block, bucket_of(size));

    for (; index < POOL_BUCKETS; index = filled_bucket(block, index + 1))
        for (struct fm_frag *frag = block->free_hash[index].first; frag != NULL;
             frag = frag->next_free)
            if (frag->size >= size)
                return frag;
    return NULL;
}

void *pool_alloc(struct pool *pool, unsigned long size, const struct owner *owner,
                 struct events *events)
{
    struct fm_block *block = (struct fm_block *)pool;
    struct fm_frag *frag;

    if (size > block->size)
        return NULL;
    size = round_up(size == 0 ? 1 : size);
    frag = find(block, size);
    if (frag == NULL)
        return NULL;
    list_remove(block, frag);
    if (frag->size - size >= sizeof *frag + POOL_ROUND) {
        unsigned long rest = frag->size - size - sizeof *frag;
        struct fm_frag *tail;

        stamp(frag, size);
        tail = after(frag);
        stamp(tail, rest);
        sign(tail, owner, "frag. from fm_split_frag");
        list_add(block, tail);
        block->real_used += sizeof *tail;
        events->splits++;
    }
    sign(frag, owner, owner->func);
    block->used += frag->size;
    block->real_used += frag->size;
    if (block->real_used > block->max_real_used)
        block->max_real_used = block->real_used;
    return frag + 1;
}

void pool_release(struct pool *pool, void *payload, const struct owner *owner, int join,
                  struct events *events)
{
    struct fm_block *block = (struct fm_block *)pool;
    struct fm_frag *frag = (struct fm_frag *)payload - 1;

    if (frag < block->first_frag || frag >= block->last_frag || frag->is_free != 0
#ifndef FM_UNCHECKED
        || frag->check != FM_CHECK
#endif
    ) {
        fprintf(stderr, "fm: %p, freed at %s(%lu), is not a used fragment\n", payload, owner->func,
                owner->line);
        abort();
    }
    block->used -= frag->size;
    block->real_used -= frag->size;
    sign(frag, owner, owner->func);
    if (join) { /* without trailers only the next one can be found; its header stays in the memory */
        struct fm_frag *next = after(frag);

        if (next < block->last_frag && next->is_free != 0) {
            list_remove(block, next);
            frag->size += sizeof *next + next->size;
            block->real_used -= sizeof *next;
            events->joins++;
        }
    }
    list_add(block, frag);
}

unsigned long pool_granted(const void *payload)
{
    return ((const struct fm_frag *)payload - 1)->size;
}

unsigned long pool_size(const struct pool *pool)
{
    return ((const struct fm_block *)pool)->size;
}

unsigned long pool_real_used(unsigned long bytes, unsigned long used, unsigned long all)
{
    (void)used;
    return sizeof(struct fm_block) + (all + 1) * sizeof(struct fm_frag) + bytes;
}
