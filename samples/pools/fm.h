/*
 * The layouts of f_malloc. FM_HEADER chooses:
 *
 *    48   built without memory debugging: no owner
 *    72   5.2 to 5.7
 *    80   5.8 and later
 *
 * A pool is one block at its start, then fragments without gaps up to `last_frag`,
 * a header of its own with size 0 that ends the pool. There are no trailers.
 *
 *   block | header payload | header payload | ... | last header
 *         ^ first_frag                            ^ last_frag
 *
 * With FM_UNCHECKED no check word is ever set.
 */
#ifndef SAMPLES_FM_H
#define SAMPLES_FM_H

#define FM_CHECK 0xf0f0f0f0U
#define FM_CHECK_LAST 0xc0c0c0c0U

#if FM_HEADER == 72
#define POOL_OWNERS 1
#define POOL_ROUND 8UL
#define POOL_EXACT_LOG2 14U
#elif FM_HEADER == 80 || FM_HEADER == 48
#define POOL_OWNERS (FM_HEADER == 80)
#define POOL_ROUND 16UL
#define POOL_EXACT_LOG2 15U
#else
#error "FM_HEADER must be 48, 72 or 80"
#endif

#include "buckets.h"

/* In front of each payload. The links are null while the fragment is used. */
struct fm_frag {
    unsigned long size; /* of the payload, in bytes */
#if FM_HEADER == 72
    struct fm_frag *next_free;
    struct fm_frag *prev_free;
    int is_free;
#else
    unsigned long is_free;
    struct fm_frag *next_free;
    struct fm_frag *prev_free;
#endif
#if POOL_OWNERS
    const char *file;
    const char *func;
    const char *mname;
    unsigned long line;
#endif
#if FM_HEADER == 72
    unsigned int check;
#else
    unsigned long reserved1;
    unsigned long check;
#endif
};

/* A bucket of the free hash: a list in rising size that ends with a null pointer. */
struct fm_frag_lnk {
    struct fm_frag *first;
    unsigned long no; /* fragments in the list */
};

#define FM_BITMAP_WORDS 33

struct fm_block {
#if FM_HEADER == 72
    int type; /* POOL_SHM or POOL_PKG */
#else
    long type;
#endif
    unsigned long size;          /* whole pool, this block included */
    unsigned long used;          /* payload bytes of used fragments */
    unsigned long real_used;     /* the same with this block and all headers */
    unsigned long max_real_used; /* highest real_used so far */
    unsigned long ffrags;        /* free fragments */
#if FM_HEADER != 72
    unsigned long reserved1;
#endif
    struct fm_frag *first_frag;
    struct fm_frag *last_frag;
    unsigned long free_bitmap[FM_BITMAP_WORDS]; /* the buckets that are not empty */
    struct fm_frag_lnk free_hash[POOL_BUCKETS];
};

#define POOL_MANAGER "f_malloc"
#define POOL_FLAG "F_MALLOC"
#define POOL_EDITION "fm-" POOL_TEXT(FM_HEADER)
#define POOL_LOCK_FILE "core: core/mem/f_malloc.c"
#define POOL_LOCK_FUNC "fm_shm_lock_init"
#define POOL_HEADER sizeof(struct fm_frag)
#define POOL_TRAILER 0UL
#define POOL_BLOCK sizeof(struct fm_block)

#endif
