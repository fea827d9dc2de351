/*
 * The layouts of q_malloc. QM_HEADER chooses:
 *
 *    16   built without memory debugging: no owner, no check words
 *    56   5.2 to 5.6
 *    64   5.8 and later
 *   128   with backtraces in the header (development builds)
 *
 * A pool is one block at its start, then fragments without gaps up to its end:
 *
 *   block | header payload trailer | header payload trailer | ... | end
 *         ^ first_frag                                     ^ last_frag_end
 */
#ifndef SAMPLES_QM_H
#define SAMPLES_QM_H

#define QM_CHECK_START 0xf0f0f0f0UL
#define QM_CHECK_END1 0xc0c0c0c0UL
#define QM_CHECK_END2 0xabcdefedUL

#if QM_HEADER == 16
#define POOL_OWNERS 0
#define POOL_ROUND 16UL
#define POOL_EXACT_LOG2 15U
#elif QM_HEADER == 56
#define POOL_OWNERS 1
#define POOL_ROUND 8UL
#define POOL_EXACT_LOG2 14U
#elif QM_HEADER == 64 || QM_HEADER == 128
#define POOL_OWNERS 1
#define POOL_ROUND 16UL
#define POOL_EXACT_LOG2 15U
#else
#error "QM_HEADER must be 16, 56, 64 or 128"
#endif

#include "buckets.h"

/* In front of each payload. u.is_free is 0 while the fragment is used. */
struct qm_frag {
    unsigned long size; /* of the payload, in bytes */
    union {
        struct qm_frag *nxt_free;
        long is_free;
    } u;
#if POOL_OWNERS
    const char *file;
    const char *func;
    const char *mname;
    unsigned long line;
#if QM_HEADER == 128
    void *backtrace[9];
#endif
    unsigned long check;
#if QM_HEADER == 64
    unsigned long reserved1;
#endif
#endif
};

/* Behind each payload. prev_free is stale while the fragment is used. */
struct qm_frag_end {
#if POOL_OWNERS
    unsigned long check1;
    unsigned long check2;
    unsigned long reserved1;
    unsigned long reserved2;
#endif
    unsigned long size; /* the same as the header's */
    struct qm_frag *prev_free;
};

/* A bucket of the free hash: a circular list through `head`, in rising size. */
struct qm_frag_lnk {
    struct qm_frag head;
    struct qm_frag_end tail;
    unsigned long no; /* fragments in the list */
#if QM_HEADER != 56
    unsigned long reserved1;
#endif
};

struct qm_block {
#if QM_HEADER == 56
    int type; /* POOL_SHM or POOL_PKG */
#else
    long type;
#endif
    unsigned long size;          /* whole pool, this block included */
    unsigned long used;          /* payload bytes of used fragments */
    unsigned long real_used;     /* size less the payload bytes of free fragments */
    unsigned long max_real_used; /* highest real_used so far */
    unsigned long ffrags;        /* free fragments */
    struct qm_frag *first_frag;
    struct qm_frag_end *last_frag_end;
    struct qm_frag_lnk free_hash[POOL_BUCKETS];
};

/* Bytes that a fragment needs besides its payload. */
#define QM_OVERHEAD (sizeof(struct qm_frag) + sizeof(struct qm_frag_end))

#define POOL_MANAGER "q_malloc"
#define POOL_FLAG "Q_MALLOC"
#define POOL_EDITION POOL_TEXT(QM_HEADER)
#define POOL_LOCK_FILE "core: core/mem/q_malloc.c"
#define POOL_LOCK_FUNC "qm_shm_lock_init"
#define POOL_HEADER sizeof(struct qm_frag)
#define POOL_TRAILER sizeof(struct qm_frag_end)
#define POOL_BLOCK sizeof(struct qm_block)

#endif
