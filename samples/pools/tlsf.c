#include "pool.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

LENGTH(block_header_t, TLSF_HEADER);
AT(block_header_t, prev_phys_block, 0);
#if POOL_OWNERS
AT(block_header_t, alloc_info, 8);
AT(block_header_t, alloc_info.line, 32);
#endif
AT(block_header_t, size, TLSF_HEADER - 24);
AT(block_header_t, next_free, TLSF_HEADER - 16);
AT(block_header_t, prev_free, TLSF_HEADER - 8);
AT(control_t, total_size, TLSF_HEADER);
AT(control_t, max_fragments, TLSF_HEADER + 40);
AT(control_t, fl_bitmap, TLSF_HEADER + 48);
AT(control_t, sl_bitmap, TLSF_HEADER + 52);
AT(control_t, blocks, TLSF_HEADER + 184);
LENGTH(control_t, TLSF_HEADER + 8376);

#define SHARED sizeof(void *)          /* prev_phys_block, in the payload before */
#define OVERHEAD (POOL_HEADER - SHARED) /* bytes between two payloads */
#define SMALLEST (sizeof(block_header_t) - SHARED)
#define FLAGS (TLSF_FREE | TLSF_PREVIOUS_FREE)

static unsigned long size_of(const block_header_t *header)
{
    return header->size & ~FLAGS;
}

static void resize(block_header_t *header, unsigned long size)
{
    header->size = size | (header->size & FLAGS);
}

static block_header_t *after(block_header_t *header)
{
    return (block_header_t *)((char *)&header->next_free + size_of(header) - SHARED);
}

static block_header_t *header_of(const void *payload)
{
    return (block_header_t *)((char *)payload - offsetof(block_header_t, next_free));
}

/* Tells the fragment behind `header` whether this one is free. */
static void mark(block_header_t *header, int is_free)
{
    block_header_t *next = after(header);

    if (is_free) {
        header->size |= TLSF_FREE;
        next->size |= TLSF_PREVIOUS_FREE;
        next->prev_phys_block = header;
    } else {
        header->size &= ~TLSF_FREE;
        next->size &= ~TLSF_PREVIOUS_FREE;
    }
}

static void sign(block_header_t *header, const struct owner *owner, const char *func)
{
#if POOL_OWNERS
    header->alloc_info.file = owner->file;
    header->alloc_info.func = func;
    header->alloc_info.mname = owner->mname;
    header->alloc_info.line = (unsigned int)owner->line;
    /* Nobody writes the padding: what an earlier user left stays there. */
    memset(&header->alloc_info.line + 1, 0xee, 4);
#else
    (void)header;
    (void)owner;
    (void)func;
#endif
}

/* ---- the free lists: 32 of 8 bytes each up to 256, then 32 for each power of two ---- */

struct list {
    unsigned row;
    unsigned column;
};

static struct list list_of(unsigned long size)
{
    unsigned log2;

    if (size < 256)
        return (struct list){0, (unsigned)(size / 8)};
    log2 = 63U - (unsigned)__builtin_clzl(size);
    return (struct list){log2 - 7, (unsigned)(size >> (log2 - 5)) ^ TLSF_LISTS};
}

static void list_add(control_t *control, block_header_t *header)
{
    struct list list = list_of(size_of(header));
    block_header_t **head = &control->blocks[list.row][list.column];

    header->next_free = *head;
    header->prev_free = &control->block_null;
    (*head)->prev_free = header; /* perhaps block_null's */
    *head = header;
    control->fl_bitmap |= 1U << list.row;
    control->sl_bitmap[list.row] |= 1U << list.column;
    control->fragments++;
    if (control->fragments > control->max_fragments)
        control->max_fragments = control->fragments;
}

static void list_remove(control_t *control, block_header_t *header)
{
    struct list list = list_of(size_of(header));
    block_header_t **head = &control->blocks[list.row][list.column];

    header->next_free->prev_free = header->prev_free;
    header->prev_free->next_free = header->next_free;
    if (*head == header) {
        *head = header->next_free;
        if (*head == &control->block_null)
            control->sl_bitmap[list.row] &= ~(1U << list.column);
        if (control->sl_bitmap[list.row] == 0)
            control->fl_bitmap &= ~(1U << list.row);
    }
    control->fragments--;
}

/* A fragment of a list whose every fragment is large enough; NULL if there is none. */
static block_header_t *find(control_t *control, unsigned long size)
{
    struct list list;
    unsigned columns, rows;

    if (size >= 256) /* up to the next list's smallest size */
        size += (1UL << (58U - (unsigned)__builtin_clzl(size))) - 1;
    list = list_of(size);
    columns = control->sl_bitmap[list.row] & ~0U << list.column;
    if (columns == 0) {
        rows = list.row + 1 < TLSF_LISTS ? control->fl_bitmap & ~0U << (list.row + 1) : 0;
        if (rows == 0)
            return NULL;
        list.row = (unsigned)__builtin_ctz(rows);
        columns = control->sl_bitmap[list.row];
    }
    return control->blocks[list.row][__builtin_ctz(columns)];
}

/* ---- the pool ---------------------------------------------------------------- */

struct pool *pool_init(void *where, unsigned long size, enum pool_kind kind)
{
    control_t *control = where;
    block_header_t *first;

    (void)kind; /* the control structure does not say whose memory it is */
    size &= ~7UL;
    if ((uintptr_t)where % 8 != 0 || size < sizeof *control + 2 * OVERHEAD + SMALLEST)
        return NULL;
    control->block_null.next_free = control->block_null.prev_free = &control->block_null;
    control->total_size = size - 2 * OVERHEAD;
    control->real_used = control->max_used = sizeof *control;
    for (unsigned row = 0; row < TLSF_LISTS; row++)
        for (unsigned column = 0; column < TLSF_LISTS; column++)
            control->blocks[row][column] = &control->block_null;
    first = (block_header_t *)((char *)(control + 1) - SHARED);
    first->size = size - sizeof *control - 2 * OVERHEAD;
    list_add(control, first);
    mark(first, 1);
    return where;
}

void *pool_alloc(struct pool *pool, unsigned long size, const struct owner *owner,
                 struct events *events)
{
    control_t *control = (control_t *)pool;
    block_header_t *header;

    if (size > control->total_size)
        return NULL;
    size = (size + 7) & ~7UL;
    if (size < SMALLEST)
        size = SMALLEST;
    header = find(control, size);
    if (header == NULL)
        return NULL;
    list_remove(control, header);
    if (size_of(header) >= size + OVERHEAD + SMALLEST) {
        unsigned long rest = size_of(header) - size - OVERHEAD;
        block_header_t *tail;

        resize(header, size);
        tail = after(header);
        tail->size = rest;
        sign(tail, owner, "block_trim_free");
        list_add(control, tail);
        mark(tail, 1);
        events->splits++;
    }
    mark(header, 0);
    sign(header, owner, owner->func);
    control->allocated += size_of(header);
    control->real_used += size_of(header) + SMALLEST;
    if (control->real_used > control->max_used)
        control->max_used = control->real_used;
    return &header->next_free;
}

void pool_release(struct pool *pool, void *payload, const struct owner *owner, int join,
                  struct events *events)
{
    control_t *control = (control_t *)pool;
    block_header_t *header = header_of(payload), *next = after(header);

    (void)join;
    if ((header->size & TLSF_FREE) != 0) {
        fprintf(stderr, "tlsf: %p, freed at %s(%lu), is not a used fragment\n", payload,
                owner->func, owner->line);
        abort();
    }
    control->allocated -= size_of(header);
    control->real_used -= size_of(header) + SMALLEST;
    sign(header, owner, owner->func);
    if ((header->size & TLSF_PREVIOUS_FREE) != 0) {
        block_header_t *previous = header->prev_phys_block;

        list_remove(control, previous);
        resize(previous, size_of(previous) + OVERHEAD + size_of(header));
        header = previous;
        events->joins++;
    }
    if ((next->size & TLSF_FREE) != 0) {
        list_remove(control, next);
        resize(header, size_of(header) + OVERHEAD + size_of(next));
        events->joins++;
    }
    list_add(control, header);
    mark(header, 1);
}

unsigned long pool_granted(const void *payload)
{
    return size_of(header_of(payload));
}

unsigned long pool_size(const struct pool *pool)
{
    return ((const control_t *)pool)->total_size;
}

unsigned long pool_real_used(unsigned long bytes, unsigned long used, unsigned long all)
{
    (void)all;
    return sizeof(control_t) + bytes + used * SMALLEST;
}
