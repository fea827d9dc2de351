/*
 * The layouts of tlsf_malloc (two-level segregated fit). TLSF_HEADER is the size
 * of block_header_t, whose last two words, the links of a free fragment, lie in
 * the payload:
 *
 *    32   built without memory debugging: no owner
 *    64   5.2 and later
 *
 * A pool is one control structure, then fragments that overlap by one word:
 * prev_phys_block of a fragment is the last word of the payload before it, and
 * means something only while that one is free. A header with size 0 ends the pool.
 */
#ifndef SAMPLES_TLSF_H
#define SAMPLES_TLSF_H

#if TLSF_HEADER != 32 && TLSF_HEADER != 64
#error "TLSF_HEADER must be 32 or 64"
#endif

#define POOL_OWNERS (TLSF_HEADER == 64)

/* The low bits of `size`. */
#define TLSF_FREE 1UL
#define TLSF_PREVIOUS_FREE 2UL

typedef struct block_header_t {
    struct block_header_t *prev_phys_block;
#if POOL_OWNERS
    struct {
        const char *file;
        const char *func;
        const char *mname;
        unsigned int line;
    } alloc_info;
#endif
    unsigned long size; /* of the payload, in bytes, and the bits */
    struct block_header_t *next_free;
    struct block_header_t *prev_free;
} block_header_t;

#define TLSF_LISTS 32

typedef struct control_t {
    block_header_t block_null;   /* ends every list; list operations write its links, too */
    unsigned long total_size;    /* the whole pool less two headers' overhead */
    unsigned long allocated;     /* payload bytes of used fragments */
    unsigned long real_used;     /* the same with this structure and a header each */
    unsigned long max_used;      /* highest real_used so far */
    unsigned long fragments;     /* free fragments */
    unsigned long max_fragments; /* highest number of them so far */
    unsigned int fl_bitmap;      /* the rows of `blocks` that are not empty */
    unsigned int sl_bitmap[TLSF_LISTS];
    block_header_t *blocks[TLSF_LISTS][TLSF_LISTS]; /* heads of the free lists */
} control_t;

#define POOL_MANAGER "tlsf_malloc"
#define POOL_FLAG "TLSF_MALLOC"
#define POOL_EDITION "tlsf-" POOL_TEXT(TLSF_HEADER)
#define POOL_LOCK_FILE "core: core/mem/tlsf_malloc.c"
#define POOL_LOCK_FUNC "tlsf_shm_lock_init"
#define POOL_HEADER (sizeof(block_header_t) - 2 * sizeof(void *))
#define POOL_TRAILER 0UL
#define POOL_BLOCK sizeof(control_t)

#endif
