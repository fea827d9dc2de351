#include "pool.h"

#if QM_HEADER == 128
#include <execinfo.h>
#endif
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "check.h"

LENGTH(struct qm_frag, QM_HEADER);
AT(struct qm_frag, size, 0);
AT(struct qm_frag, u, 8);
#if POOL_OWNERS
AT(struct qm_frag, file, 16);
AT(struct qm_frag, func, 24);
AT(struct qm_frag, mname, 32);
AT(struct qm_frag, line, 40);
AT(struct qm_frag, check, QM_HEADER == 128 ? 120 : 48);
LENGTH(struct qm_frag_end, 48);
AT(struct qm_frag_end, size, 32);
AT(struct qm_frag_end, prev_free, 40);
#else
LENGTH(struct qm_frag_end, 16);
AT(struct qm_frag_end, prev_free, 8);
#endif
AT(struct qm_block, size, 8);
AT(struct qm_block, ffrags, 40);
AT(struct qm_block, first_frag, 48);
AT(struct qm_block, last_frag_end, 56);
AT(struct qm_block, free_hash, 64);
#if QM_HEADER == 16
LENGTH(struct qm_frag_lnk, 48);
LENGTH(struct qm_block, 100768);
#elif QM_HEADER == 56
LENGTH(struct qm_frag_lnk, 112);
LENGTH(struct qm_block, 235152);
#elif QM_HEADER == 64
LENGTH(struct qm_frag_lnk, 128);
LENGTH(struct qm_block, 268608);
#else
LENGTH(struct qm_frag_lnk, 192);
LENGTH(struct qm_block, 402880);
#endif

static struct qm_frag_end *trailer_of(struct qm_frag *frag)
{
    return (struct qm_frag_end *)((char *)(frag + 1) + frag->size);
}

static struct qm_frag *after(struct qm_frag *frag)
{
    return (struct qm_frag *)(trailer_of(frag) + 1);
}

static void stamp(struct qm_frag *frag, unsigned long size)
{
    struct qm_frag_end *trailer;

    frag->size = size;
    trailer = trailer_of(frag);
    trailer->size = size;
#if POOL_OWNERS
    frag->check = QM_CHECK_START;
    trailer->check1 = QM_CHECK_END1;
    trailer->check2 = QM_CHECK_END2;
#endif
}

#if QM_HEADER == 128
/* The calls that led to `caller`, innermost first; a null one ends them. */
static void record_calls(struct qm_frag *frag, void *caller)
{
    enum { OWN = 4, KEPT = sizeof frag->backtrace / sizeof frag->backtrace[0] };
    void *calls[OWN + KEPT];
    int found = caller != NULL ? backtrace(calls, OWN + KEPT) : 0, first = 0;

    for (int i = 0; i < KEPT; i++)
        frag->backtrace[i] = NULL;
    frag->backtrace[0] = caller;
    while (first < found && calls[first] != caller)
        first++; /* this file's own frames */
    for (int i = 0; i < KEPT && first + i < found; i++)
        frag->backtrace[i] = calls[first + i];
}
#endif

static void sign(struct qm_frag *frag, const struct owner *owner, const char *func, void *caller)
{
#if POOL_OWNERS
    frag->file = owner->file;
    frag->func = func;
    frag->mname = owner->mname;
    frag->line = owner->line;
#if QM_HEADER == 128
    record_calls(frag, caller);
#endif
#else
    (void)frag;
    (void)owner;
    (void)func;
#endif
    (void)caller;
}

/* Adds a fragment to its bucket's list, in front of the first that is not smaller. */
static void list_add(struct qm_block *block, struct qm_frag *frag)
{
    struct qm_frag_lnk *bucket = &block->free_hash[bucket_of(frag->size)];
    struct qm_frag *next = bucket->head.u.nxt_free;
    struct qm_frag_end *next_trailer, *trailer = trailer_of(frag);

    while (next != &bucket->head && next->size < frag->size)
        next = next->u.nxt_free;
    next_trailer = next == &bucket->head ? &bucket->tail : trailer_of(next);
    trailer->prev_free = next_trailer->prev_free;
    frag->u.nxt_free = next;
    trailer->prev_free->u.nxt_free = frag;
    next_trailer->prev_free = frag;
    bucket->no++;
    block->ffrags++;
}

static void list_remove(struct qm_block *block, struct qm_frag *frag)
{
    struct qm_frag_lnk *bucket = &block->free_hash[bucket_of(frag->size)];
    struct qm_frag *next = frag->u.nxt_free;
    struct qm_frag_end *trailer = trailer_of(frag);

    (next == &bucket->head ? &bucket->tail : trailer_of(next))->prev_free = trailer->prev_free;
    trailer->prev_free->u.nxt_free = next;
    frag->u.is_free = 0; /* trailer->prev_free stays as it is, as in q_malloc */
    bucket->no--;
    block->ffrags--;
}

struct pool *pool_init(void *where, unsigned long size, enum pool_kind kind)
{
    struct qm_block *block = where;
    struct qm_frag *frag;

    size &= ~(POOL_ROUND - 1);
    if ((uintptr_t)where % POOL_ROUND != 0 || size < sizeof *block + QM_OVERHEAD + POOL_ROUND)
        return NULL;
    block->type = kind;
    block->size = size;
    block->used = 0;
    block->real_used = block->max_real_used = sizeof *block + QM_OVERHEAD;
    block->ffrags = 0;
    block->first_frag = (struct qm_frag *)(block + 1);
    block->last_frag_end = (struct qm_frag_end *)((char *)block + size) - 1;
    for (unsigned long i = 0; i < POOL_BUCKETS; i++) {
        struct qm_frag_lnk *bucket = &block->free_hash[i];

        bucket->head.u.nxt_free = &bucket->head;
        bucket->tail.prev_free = &bucket->head;
    }
    frag = block->first_frag;
    stamp(frag, size - sizeof *block - QM_OVERHEAD);
    list_add(block, frag);
    return where;
}

static struct qm_frag *find(struct qm_block *block, unsigned long size)
{
    for (unsigned long i = bucket_of(size); i < POOL_BUCKETS; i++) {
        struct qm_frag_lnk *bucket = &block->free_hash[i];
        struct qm_frag *frag = bucket->head.u.nxt_free;

        for (; frag != &bucket->head; frag = frag->u.nxt_free)
            if (frag->size >= size)
                return frag;
    }
    return NULL;
}

void *pool_alloc(struct pool *pool, unsigned long size, const struct owner *owner,
                 struct events *events)
{
    struct qm_block *block = (struct qm_block *)pool;
    void *caller = __builtin_return_address(0);
    struct qm_frag *frag;

    if (size > block->size)
        return NULL;
    size = round_up(size == 0 ? 1 : size);
    frag = find(block, size);
    if (frag == NULL)
        return NULL;
    list_remove(block, frag);
    if (frag->size - size >= QM_OVERHEAD + POOL_ROUND) {
        unsigned long rest = frag->size - size - QM_OVERHEAD;
        struct qm_frag *tail;

        stamp(frag, size);
        tail = after(frag);
        stamp(tail, rest);
        sign(tail, owner, "fragm. from qm_malloc", NULL);
        list_add(block, tail);
        block->real_used += QM_OVERHEAD;
        events->splits++;
    }
    sign(frag, owner, owner->func, caller);
    block->used += frag->size;
    block->real_used += frag->size;
    if (block->real_used > block->max_real_used)
        block->max_real_used = block->real_used;
    return frag + 1;
}

/* Merges `second`, which directly follows `first`, into it. Neither is in a list. */
static void merge(struct qm_block *block, struct qm_frag *first, struct qm_frag *second,
                  struct events *events)
{
    stamp(first, first->size + QM_OVERHEAD + second->size);
    block->real_used -= QM_OVERHEAD;
    events->joins++;
}

void pool_release(struct pool *pool, void *payload, const struct owner *owner, int join,
                  struct events *events)
{
    struct qm_block *block = (struct qm_block *)pool;
    struct qm_frag *frag = (struct qm_frag *)payload - 1;
    struct qm_frag *pool_end = (struct qm_frag *)(block->last_frag_end + 1);

    if (frag < block->first_frag || frag >= pool_end || frag->u.is_free != 0
#if POOL_OWNERS
        || frag->check != QM_CHECK_START
#endif
    ) {
        fprintf(stderr, "qm: %p, freed at %s(%lu), is not a used fragment\n", payload, owner->func,
                owner->line);
        abort();
    }
    block->used -= frag->size;
    block->real_used -= frag->size;
    sign(frag, owner, owner->func, __builtin_return_address(0));
    if (join) {
        struct qm_frag *next = after(frag);

        if (next < pool_end && next->u.is_free != 0) {
            list_remove(block, next);
            merge(block, frag, next, events);
        }
        if (frag > block->first_frag) {
            struct qm_frag_end *end = (struct qm_frag_end *)frag - 1;
            struct qm_frag *previous = (struct qm_frag *)((char *)end - end->size) - 1;

            if (previous->u.is_free != 0) {
                list_remove(block, previous);
                merge(block, previous, frag, events);
                frag = previous;
            }
        }
    }
    list_add(block, frag);
}

unsigned long pool_granted(const void *payload)
{
    return ((const struct qm_frag *)payload - 1)->size;
}

unsigned long pool_size(const struct pool *pool)
{
    return ((const struct qm_block *)pool)->size;
}

unsigned long pool_real_used(unsigned long bytes, unsigned long used, unsigned long all)
{
    (void)used;
    return sizeof(struct qm_block) + bytes + all * QM_OVERHEAD;
}
