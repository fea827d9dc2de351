/*
 * A memory pool laid out byte for byte as one of Kamailio's managers lays out its own.
 *
 * The code is ours; only the layout is Kamailio's, so that a program which reads
 * Kamailio's pools reads these too. Manager and layout are chosen while compiling:
 *
 *   -DQM_HEADER=16|56|64|128   q_malloc     (qm.h, qm.c)
 *   -DFM_HEADER=48|72|80       f_malloc     (fm.h, fm.c)
 *   -DTLSF_HEADER=32|64        tlsf_malloc  (tlsf.h, tlsf.c)
 *
 * Not for production: no locking (callers share a lock of their own) and no
 * defence against double free beyond an abort.
 */
#ifndef SAMPLES_POOL_H
#define SAMPLES_POOL_H

#define POOL_TEXT_(x) #x
#define POOL_TEXT(x) POOL_TEXT_(x)

#if defined QM_HEADER
#include "qm.h"
#elif defined FM_HEADER
#include "fm.h"
#elif defined TLSF_HEADER
#include "tlsf.h"
#else
#error "define QM_HEADER, FM_HEADER or TLSF_HEADER"
#endif

/*
 * Each manager's header defines, besides its structures:
 *
 *   POOL_MANAGER     its name, "q_malloc"
 *   POOL_FLAG        its word among the program's build flags, "Q_MALLOC"
 *   POOL_EDITION     manager and layout in a program's version, "56", "fm-72"
 *   POOL_LOCK_FILE   where it allocates the lock of shared memory
 *   POOL_LOCK_FUNC
 *   POOL_OWNERS      whether fragments record who allocated them
 *   POOL_HEADER      bytes in front of a payload that belong to its fragment alone
 *   POOL_TRAILER     and behind it
 *   POOL_BLOCK       bytes of the pool's own block
 */

struct pool; /* begins with the manager's own block */

enum pool_kind { POOL_SHM = 0, POOL_PKG = 1 };

/* Who asks for memory. The strings must outlive the pool. */
struct owner {
    const char *mname; /* "htable" */
    const char *file;  /* "htable: ht_api.c" */
    const char *func;
    unsigned long line;
};

/*
 * What happened to the number of fragments, counted outside the pool so that a
 * caller's books do not depend on the pool's own counters.
 */
struct events {
    unsigned long splits;
    unsigned long joins;
};

/* Makes a pool of the `size` bytes at `where`, which must be zero; NULL if too small. */
struct pool *pool_init(void *where, unsigned long size, enum pool_kind kind);

/* A payload of at least `size` bytes, or NULL when no free fragment is large enough. */
void *pool_alloc(struct pool *pool, unsigned long size, const struct owner *owner,
                 struct events *events);

/*
 * Frees a payload; with `join`, merges it with its free neighbours as far as the
 * manager does that (TLSF does it always). Aborts if it is not a used fragment.
 */
void pool_release(struct pool *pool, void *payload, const struct owner *owner, int join,
                  struct events *events);

/* The payload's length as the pool granted it, in bytes. */
unsigned long pool_granted(const void *payload);

/* What the pool's block gives as its size, in bytes. */
unsigned long pool_size(const struct pool *pool);

/* What the manager counts as `real_used` for so many fragments, `used` of them with `bytes` of payload. */
unsigned long pool_real_used(unsigned long bytes, unsigned long used, unsigned long all);

#endif
