/*
 * The yardstick for walking a q_malloc pool in a core: plain C.
 *
 *   walk_qm CORE BLOCK        BLOCK is the pool's block, a virtual address
 *   walk_qm CORE find         looks for the shared pool's block in the core's segments
 *   walk_qm CORE ... read     reads pieces of 256 KiB instead of using the mapping
 *
 * Over the mapping most time goes into page faults and cache misses; reading a
 * piece that stays in the cache takes about half of that.
 * Walks all fragments (64-byte headers, Kamailio 5.8 and later), sums fragments
 * and bytes for each (file, func, line), and prints the totals and the twenty
 * largest as "fragments bytes 0xfile 0xfunc line". It checks what a careful C
 * programmer would: every access is inside the mapped bytes, every step goes
 * forward. It reads no strings and no symbols and survives no damage: it stops
 * and says where. Exit 0 only if the walk met the pool's end exactly.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define HEADER 64U
#define TRAILER 48U
#define BLOCK_BYTES 268608U /* counters and free hash of a 64-byte build */
#define SLOTS 16384U        /* owners at most 3/4 of it */
#define PIECE (256U << 10)

/* A fragment's header and trailer, and the block's counters, as they lie in memory. */
struct header {
    uint64_t size, next_free, file, func, mname, line, check, reserved;
};
struct trailer {
    uint64_t check1, check2, reserved1, reserved2, size, prev_free;
};
struct block {
    uint64_t type, size, used, real_used, max_real_used, free_fragments, first, last_end;
};

struct owner {
    uint64_t file, func, line, fragments, bytes; /* fragments 0: the slot is free */
};

static struct owner owners[SLOTS];
static unsigned owner_count;

__attribute__((noreturn)) static void fail(const char *what, uint64_t at)
{
    fprintf(stderr, "walk_qm: %s at %#llx\n", what, (unsigned long long)at);
    exit(1);
}

static void add(const struct header *fragment)
{
    uint64_t mixed = (fragment->file ^ fragment->func << 20 ^ fragment->line << 44) * 0x9e3779b97f4a7c15U;
    unsigned slot = (unsigned)(mixed >> 40) % SLOTS;
    struct owner *owner;

    for (;; slot = (slot + 1) % SLOTS) {
        owner = &owners[slot];
        if (owner->fragments == 0) {
            if (++owner_count > SLOTS / 4 * 3)
                fail("more owners than the table holds", fragment->file);
            owner->file = fragment->file;
            owner->func = fragment->func;
            owner->line = fragment->line;
            break;
        }
        if (owner->file == fragment->file && owner->func == fragment->func && owner->line == fragment->line)
            break;
    }
    owner->fragments++;
    owner->bytes += fragment->size;
}

static int by_bytes(const void *a, const void *b)
{
    const struct owner *left = a, *right = b;

    return (left->bytes < right->bytes) - (left->bytes > right->bytes);
}

/* Whether the shared pool's block of a 64-byte build may lie here; `room` bytes of the segment follow. */
static int looks_like_block(const unsigned char *at, uint64_t address, uint64_t room)
{
    const struct block *block = (const void *)at;

    return room > BLOCK_BYTES && block->type == 0 && block->size > BLOCK_BYTES && block->size <= room &&
           block->first == address + BLOCK_BYTES && block->last_end == address + block->size - TRAILER;
}

/* The pool's bytes in the core, mapped or read piece by piece. */
struct source {
    const unsigned char *map; /* NULL: read */
    int fd;
    uint64_t offset, length;    /* of the pool in the file */
    uint64_t from, have;        /* what `piece` holds, relative to the pool */
    unsigned char piece[PIECE]; /* aligned by the fields before it */
};

static struct source source;

/* `length` bytes at `at`, relative to the pool; the caller has checked that the pool has them. */
static inline const void *bytes(uint64_t at, unsigned length)
{
    if (source.map != NULL)
        return source.map + at;
    if (at < source.from || at - source.from > source.have || source.have - (at - source.from) < length) {
        uint64_t want = source.length - at < PIECE ? source.length - at : PIECE;
        ssize_t got = pread(source.fd, source.piece, want, (off_t)(source.offset + at));

        if (got < (ssize_t)length)
            fail("unreadable file", at);
        source.from = at;
        source.have = (uint64_t)got;
    }
    return source.piece + (at - source.from);
}

int main(int argc, char **argv)
{
    uint64_t wanted = 0, block_at = 0, used = 0, free_count = 0, used_bytes = 0, free_bytes = 0;
    const unsigned char *core, *pool = NULL;
    const Elf64_Ehdr *elf;
    const Elf64_Phdr *segment;
    struct block block;
    uint64_t room = 0, at, end;
    struct stat status;
    int fd;

    if (argc < 3 || argc > 4 || (argc == 4 && strcmp(argv[3], "read") != 0) ||
        (strcmp(argv[2], "find") != 0 && (wanted = strtoull(argv[2], NULL, 0)) == 0)) {
        fprintf(stderr, "usage: walk_qm CORE BLOCK|find [read]\n");
        return 2;
    }
    fd = open(argv[1], O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &status) != 0) {
        perror(argv[1]);
        return 2;
    }
    core = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (core == MAP_FAILED) {
        perror(argv[1]);
        return 2;
    }
    elf = (const void *)core;
    if ((uint64_t)status.st_size < sizeof *elf || memcmp(elf->e_ident, ELFMAG, SELFMAG) != 0 ||
        elf->e_phentsize != sizeof *segment || elf->e_phoff > (uint64_t)status.st_size ||
        (uint64_t)elf->e_phnum * sizeof *segment > (uint64_t)status.st_size - elf->e_phoff) {
        fprintf(stderr, "walk_qm: %s is not a 64-bit ELF core\n", argv[1]);
        return 2;
    }

    /* The segment that holds the block, and how much of it the file has. */
    segment = (const void *)(core + elf->e_phoff);
    for (unsigned i = 0; i < elf->e_phnum && pool == NULL; i++, segment++) {
        uint64_t have = segment->p_filesz;

        if (segment->p_type != PT_LOAD || segment->p_offset > (uint64_t)status.st_size)
            continue;
        if (have > (uint64_t)status.st_size - segment->p_offset)
            have = (uint64_t)status.st_size - segment->p_offset;
        if (wanted != 0) {
            if (wanted < segment->p_vaddr || wanted - segment->p_vaddr >= have)
                continue;
            block_at = wanted;
        } else {
            uint64_t step;

            for (step = 0; step < have; step += 16)
                if (looks_like_block(core + segment->p_offset + step, segment->p_vaddr + step, have - step))
                    break;
            if (step >= have)
                continue;
            block_at = segment->p_vaddr + step;
        }
        pool = core + segment->p_offset + (block_at - segment->p_vaddr);
        room = have - (block_at - segment->p_vaddr);
    }
    if (pool == NULL || room < sizeof block) {
        fprintf(stderr, "walk_qm: no pool there in this core\n");
        return 1;
    }
    memcpy(&block, pool, sizeof block);
    if (block.first < block_at || block.last_end < block.first || block.last_end - block_at > room - TRAILER)
        fail("block that points outside the saved bytes", block_at);

    at = block.first - block_at;
    end = block.last_end + TRAILER - block_at;
    source.map = argc == 4 ? NULL : pool;
    source.fd = fd;
    source.offset = (uint64_t)(pool - core);
    source.length = end;
    while (at < end) {
        uint64_t left = end - at, size;
        const struct header *fragment;
        const struct trailer *trailer;

        if (left < HEADER + TRAILER)
            fail("no room for a fragment", block_at + at);
        fragment = bytes(at, HEADER);
        size = fragment->size;
        if (size > left - HEADER - TRAILER || size % 8 != 0)
            fail("impossible size", block_at + at);
        if (fragment->check != 0xf0f0f0f0U)
            fail("wrong check word", block_at + at);
        if (fragment->next_free == 0) {
            used++;
            used_bytes += size;
            add(fragment);
        } else {
            free_count++;
            free_bytes += size;
        }
        trailer = bytes(at + HEADER + size, TRAILER); /* may replace the piece that holds `fragment` */
        if (trailer->check1 != 0xc0c0c0c0U || trailer->check2 != 0xabcdefedU || trailer->size != size)
            fail("wrong trailer", block_at + at);
        at += HEADER + size + TRAILER;
    }

    printf("block %#llx fragments %llu used %llu %llu free %llu %llu owners %u\n", (unsigned long long)block_at,
           (unsigned long long)(used + free_count), (unsigned long long)used, (unsigned long long)used_bytes,
           (unsigned long long)free_count, (unsigned long long)free_bytes, owner_count);
    if (used_bytes != block.used || free_count != block.free_fragments)
        fail("counters that disagree with the walk", block_at);
    qsort(owners, SLOTS, sizeof *owners, by_bytes);
    for (unsigned i = 0; i < 20 && owners[i].fragments != 0; i++)
        printf("%llu %llu %#llx %#llx %llu\n", (unsigned long long)owners[i].fragments,
               (unsigned long long)owners[i].bytes, (unsigned long long)owners[i].file,
               (unsigned long long)owners[i].func, (unsigned long long)owners[i].line);
    return 0;
}
