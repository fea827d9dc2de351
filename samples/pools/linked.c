#define _GNU_SOURCE
#include "linked.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "pool.h"

/* What a module keeps for each entry; its text follows the structure. */
struct item {
    struct item *next, *prev;
    char *text;
    uint32_t length, hash;
    uint64_t expires;
};

/* Small payloads have only the pointers. */
enum { SMALL_ITEM = 2 * sizeof(struct item *) };

static const char WORDS[] = "sip:alice@example.org;transport=udp;lr Call-ID: 5f1d8c0a7b3e@198.51.100.7 "
                            "User-Agent: softphone 4.2 Via: SIP/2.0/UDP 203.0.113.9:5060;branch=z9hG4bK";

static void fill(void *payload, unsigned long random)
{
    unsigned long room = pool_granted(payload), at;
    struct item *item = payload;

    if (room < sizeof *item) {
        memset((char *)payload + SMALL_ITEM, 'x', room - SMALL_ITEM);
        return;
    }
    item->text = (char *)(item + 1);
    item->length = (uint32_t)((room - sizeof *item) / 2);
    item->hash = (uint32_t)random;
    item->expires = 1700000000 + random % 100000;
    for (at = 0; at < item->length; at++)
        item->text[at] = WORDS[(random + at) % (sizeof WORDS - 1)];
    for (at = (sizeof *item + item->length + 7) & ~7UL; at + 8 <= room; at += 8)
        *(uint64_t *)((char *)payload + at) = random % 4096 + at;
}

/* Puts the payloads of each owner together, in random order. */
static void shuffle_by_owner(struct given *given, unsigned long count, unsigned int owners,
                             uint64_t (*random_number)(void))
{
    unsigned long bytes = count * sizeof *given, *start = calloc(owners + 1, sizeof *start);
    struct given *sorted = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_ANONYMOUS | MAP_PRIVATE, -1, 0);

    if (start == NULL || sorted == MAP_FAILED) {
        perror("linked");
        exit(2);
    }
    for (unsigned long i = count - 1; i > 0; i--) {
        unsigned long other = random_number() % (i + 1);
        struct given swapped = given[i];

        given[i] = given[other];
        given[other] = swapped;
    }
    for (unsigned long i = 0; i < count; i++)
        start[given[i].owner + 1]++;
    for (unsigned int i = 0; i < owners; i++)
        start[i + 1] += start[i];
    for (unsigned long i = 0; i < count; i++)
        sorted[start[given[i].owner]++] = given[i];
    memcpy(given, sorted, bytes);
    munmap(sorted, bytes); /* nothing of it stays: it would hold every payload */
    free(start);
}

static void link_two(struct item *first, struct item *second)
{
    first->next = second;
    second->prev = first;
}

enum shape { ALONE, CHAIN, RING, BOTH_WAYS, SHAPES };

static const unsigned int LENGTH_OF[SHAPES] = {1, 4, 5, 3};

static void lose(const struct given *given, enum shape shape, struct item *alive, struct loss *lost)
{
    unsigned int length = LENGTH_OF[shape];

    for (unsigned int i = 0; i < length; i++) {
        struct item *item = given[i].payload;

        if (i + 1 < length)
            item->next = given[i + 1].payload;
        else
            item->next = shape == RING ? given[0].payload : alive;
        item->prev = shape == BOTH_WAYS && i > 0 ? given[i - 1].payload : alive;
        lost->bytes += pool_granted(item);
    }
    lost->fragments += length;
    lost->heads++;
}

void link_payloads(struct given *given, unsigned long count, unsigned int owners, void **heads,
                   struct loss *lost, void **on_stack, unsigned int *on_stack_owner,
                   uint64_t (*random_number)(void))
{
    unsigned long used = 0, chain = 0, longest, head = 0, seen = 0, gone = 0, held = 0;
    struct item *last = NULL, *stale = NULL;
    enum shape shape = ALONE;

    shuffle_by_owner(given, count, owners, random_number);
    for (unsigned long i = 0; i < count; i++) {
        fill(given[i].payload, random_number());
        if (!given[i].freed)
            given[used++] = given[i];
        else
            ((struct item *)given[i].payload)->next = stale;
        stale = given[i].payload;
    }
    longest = used / (LINKED_HEADS - owners) + 4;
    for (unsigned long i = 0; i < used; i++) {
        unsigned int owner = given[i].owner, length = LENGTH_OF[shape];
        struct item *item = given[i].payload;

        seen++;
        if (i == 0 || given[i - 1].owner != owner || chain == longest) {
            last = NULL;
            chain = 0;
        }
        if (last != NULL && seen / 200 >= gone + length && i + length <= used &&
            given[i + length - 1].owner == owner) {
            if (shape == ALONE && held < LINKED_ON_STACK) {
                item->next = item->prev = last;
                on_stack_owner[held] = owner;
                on_stack[held++] = item;
            } else {
                lose(&given[i], shape, last, &lost[owner]);
            }
            gone += length;
            seen += length - 1;
            i += length - 1;
            shape = (shape + 1) % SHAPES;
            continue;
        }
        item->next = item->prev = NULL;
        if (last == NULL)
            heads[head++] = item;
        else
            link_two(last, item);
        last = item;
        chain++;
    }
}
