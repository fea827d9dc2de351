/*
 * The free hash that q_malloc and f_malloc have in common: one bucket for each
 * exact size up to 2^POOL_EXACT_LOG2, then one for each power of two.
 * Defined before: POOL_ROUND (payloads are multiples of it) and POOL_EXACT_LOG2.
 */
#ifndef SAMPLES_BUCKETS_H
#define SAMPLES_BUCKETS_H

#define POOL_EXACT ((1UL << POOL_EXACT_LOG2) / POOL_ROUND)
#define POOL_BUCKETS (POOL_EXACT + (64U - POOL_EXACT_LOG2) + 1U) /* 2099 or 2098 */

static inline unsigned long round_up(unsigned long n)
{
    return (n + POOL_ROUND - 1) & ~(POOL_ROUND - 1);
}

static inline unsigned long bucket_of(unsigned long size)
{
    if (size <= 1UL << POOL_EXACT_LOG2)
        return size / POOL_ROUND;
    return POOL_EXACT + (63U - (unsigned)__builtin_clzl(size)) - POOL_EXACT_LOG2 + 1U;
}

#endif
