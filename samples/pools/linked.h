/*
 * Fills payloads as a server's are: hash chains through memory in random order,
 * strings behind their structure, numbers, text; and loses a known share.
 */
#ifndef SAMPLES_LINKED_H
#define SAMPLES_LINKED_H

#include <stdint.h>

/* A payload that the pool gave to an owner, by the owner's number. */
struct given {
    void *payload;
    unsigned int owner;
    unsigned int freed;
};

/* What an owner has lost, in the reader's terms: a head is what to look at first. */
struct loss {
    unsigned long fragments, bytes, heads;
};

enum { LINKED_HEADS = 1 << 16, LINKED_ON_STACK = 4 };

/*
 * Links `count` payloads of at least 16 bytes. Chains begin at `heads`, which has LINKED_HEADS
 * entries; payloads that were freed keep stale pointers. One used payload in 200 is lost: alone,
 * at the end of a chain, in a ring, or in a list linked both ways. `lost` is by owner. The caller
 * keeps `on_stack`, whose owners are in `on_stack_owner`, on its stack and nowhere else.
 * `random_number` gives 64 random bits. Changes the order of `given`.
 */
void link_payloads(struct given *given, unsigned long count, unsigned int owners, void **heads,
                   struct loss *lost, void **on_stack, unsigned int *on_stack_owner,
                   uint64_t (*random_number)(void));

#endif
