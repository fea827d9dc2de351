/*
 * A memory pool laid out byte for byte as Kamailio's q_malloc lays out its own.
 *
 * The code is ours; only the layout is Kamailio's, so that a program which reads
 * Kamailio's pools reads these too. QM_HEADER chooses the layout:
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
 *
 * Not for production: no locking (callers share a lock of their own) and no
 * defence against double free beyond an abort.
 */
#ifndef SAMPLES_QM_H
#define SAMPLES_QM_H

#include <stddef.h>

#ifndef QM_HEADER
#define QM_HEADER 64
#endif

#define QM_CHECK_START 0xf0f0f0f0UL
#define QM_CHECK_END1 0xc0c0c0c0UL
#define QM_CHECK_END2 0xabcdefedUL

#if QM_HEADER == 16
#define QM_OWNERS 0
#define QM_ROUND 16UL     /* payloads are multiples of this */
#define QM_EXACT_LOG2 15U /* up to 2^this, each size has a bucket of its own */
#elif QM_HEADER == 56
#define QM_OWNERS 1
#define QM_ROUND 8UL
#define QM_EXACT_LOG2 14U
#elif QM_HEADER == 64 || QM_HEADER == 128
#define QM_OWNERS 1
#define QM_ROUND 16UL
#define QM_EXACT_LOG2 15U
#else
#error "QM_HEADER must be 16, 56, 64 or 128"
#endif

/* One bucket for each exact size, then one for each power of two: 2099 or 2098. */
#define QM_EXACT ((1UL << QM_EXACT_LOG2) / QM_ROUND)
#define QM_BUCKETS (QM_EXACT + (64U - QM_EXACT_LOG2) + 1U)

/* In front of each payload. u.is_free is 0 while the fragment is used. */
struct qm_frag {
    unsigned long size; /* of the payload, in bytes */
    union {
        struct qm_frag *nxt_free;
        long is_free;
    } u;
#if QM_OWNERS
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
#if QM_OWNERS
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
    int type; /* QM_SHM or QM_PKG */
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
    struct qm_frag_lnk free_hash[QM_BUCKETS];
};

enum { QM_SHM = 0, QM_PKG = 1 };

/* Who asks for memory. The strings must outlive the pool. */
struct qm_owner {
    const char *mname; /* "htable" */
    const char *file;  /* "htable: ht_api.c" */
    const char *func;
    unsigned long line;
};

/*
 * What happened to the number of fragments, counted outside the pool so that a
 * caller's books do not depend on the pool's own counters.
 */
struct qm_events {
    unsigned long splits;
    unsigned long joins;
};

/* Bytes that a fragment needs besides its payload. */
#define QM_OVERHEAD (sizeof(struct qm_frag) + sizeof(struct qm_frag_end))

/* Makes a pool of the `size` bytes at `where`, which must be zero; NULL if too small. */
struct qm_block *qm_init(void *where, unsigned long size, int type);

/* A payload of at least `size` bytes, or NULL when no free fragment is large enough. */
void *qm_alloc(struct qm_block *pool, unsigned long size, const struct qm_owner *owner,
               struct qm_events *events);

/* Frees a payload; with `join`, merges it with free neighbours. Aborts if it is not a used fragment. */
void qm_release(struct qm_block *pool, void *payload, const struct qm_owner *owner, int join,
                struct qm_events *events);

/* The payload's length as the pool granted it, in bytes. */
unsigned long qm_granted(const void *payload);

#endif
