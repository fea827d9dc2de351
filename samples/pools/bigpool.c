/*
 * Writes the core of a Kamailio-like process with one very large shared pool.
 *
 *   bigpool [-n FRAGMENTS] [-m MEGABYTES] [-p SEED] [--linked] [--truth FILE] --out CORE
 *   bigpool [...] --stay
 *
 * A child builds a q_malloc pool of exactly FRAGMENTS fragments (default
 * 2,722,639, 64-byte headers) for about 300 owners, of which a few hold most,
 * as in a real server; about one in sixteen is free. The pool has MEGABYTES
 * (default 2048), of which the default fragments fill about a third; the last
 * fragment is the free rest. Then the child aborts, the kernel writes its core,
 * and the parent moves that to CORE. Needs a core_pattern that is a plain file
 * name, and as much free memory and disk as the pool has: the kernel writes the
 * never touched rest as zeros. Payloads are zeros as well.
 *
 * With --linked the fragments fill the whole pool, and their payloads hold what
 * a server's do (linked.h): hash chains whose heads are in this program's .bss
 * and in private memory, strings, numbers, and a known share of lost ones.
 * With --stay the program itself builds the pool and waits to be ended.
 *
 * The core's module is this program itself: give it to the reader of the core.
 * The last line printed says where the pool is, for a reader without symbols.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "linked.h"
#include "pool.h"

#define ONE(m, part, k) {m, m ": " m "_" part ".c", m "_" part "_" #k, 100 + 37 * k}
#define MODULE(m)                                                                            \
    ONE(m, "api", 1), ONE(m, "api", 2), ONE(m, "api", 3), ONE(m, "hash", 4),                 \
        ONE(m, "hash", 5), ONE(m, "hash", 6), ONE(m, "store", 7), ONE(m, "store", 8),        \
        ONE(m, "timer", 9), ONE(m, "rpc", 10)

static const struct owner OWNER[] = {
    {"core", "core: core/pt.c", "init_pt", 105},
    {"core", "core: core/pt.c", "init_pt", 106},
    {"core", "core: core/mem/q_malloc.c", "qm_shm_lock_init", 1277},
    MODULE("htable"),     MODULE("tm"),        MODULE("usrloc"),   MODULE("dialog"),
    MODULE("core"),       MODULE("registrar"), MODULE("presence"), MODULE("pua"),
    MODULE("dispatcher"), MODULE("lcr"),       MODULE("drouting"), MODULE("permissions"),
    MODULE("rtpengine"),  MODULE("rtpproxy"),  MODULE("nathelper"), MODULE("acc"),
    MODULE("pike"),       MODULE("ratelimit"), MODULE("mtree"),    MODULE("dialplan"),
    MODULE("sca"),        MODULE("topos"),     MODULE("topoh"),    MODULE("tls"),
    MODULE("websocket"),  MODULE("domain"),    MODULE("uac"),      MODULE("cnxcc"),
    MODULE("msilo"),      MODULE("sqlops"),
};
enum { PT_ARRAY, PT_COUNT, SHM_LOCK, FIRST_OWNER, OWNERS = sizeof OWNER / sizeof *OWNER };

struct memory_root {
    const char *mname;
    void *mem_pool;
    void *mem_block;
    void (*calls[18])(void);
};

struct process_table {
    int pid, unix_sock, idx, status, rank;
    char desc[128];
};

struct memory_root _pkg_root, _shm_root;
struct process_table *pt;
int *process_count;
int process_no;
void *shm_lock, **private_heads;
void *heads[LINKED_HEADS / 2];
const char full_version[] = "kamailio 0.0.64-bigpool (x86_64/linux) ";
const char ver_flags[] = "SHM_MMAP, PKG_MALLOC, Q_MALLOC, DBG_SR_MEMORY";

__attribute__((noreturn)) static void die(const char *what)
{
    perror(what);
    exit(2);
}

/* ---- who asks for how much ------------------------------------------------- */

static uint64_t random_state;

static uint64_t random_number(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

static uint64_t share_up_to[OWNERS]; /* owner i is drawn below share_up_to[i] */
static unsigned long typical[OWNERS]; /* its usual request, in bytes */

/* The i-th owner asks about 1/i as often as the first; usual sizes from 24 to 384 bytes. */
static void plan_owners(void)
{
    uint64_t sum = 0;

    for (int i = FIRST_OWNER; i < OWNERS; i++) {
        sum += 1000000U / (unsigned)(i - FIRST_OWNER + 1);
        share_up_to[i] = sum;
        typical[i] = 24UL << random_number() % 5;
    }
}

static unsigned long stretch = 1024; /* requests are so many 1024ths of the usual ones */

static int draw(unsigned long *size, int *freed)
{
    uint64_t r = random_number() % share_up_to[OWNERS - 1];
    int low = FIRST_OWNER, high = OWNERS - 1;

    while (low < high) {
        int middle = (low + high) / 2;

        if (r < share_up_to[middle])
            high = middle;
        else
            low = middle + 1;
    }
    *size = (typical[low] / 2 + random_number() % typical[low] + 1) * stretch / 1024;
    *freed = random_number() % 16 == 0;
    return low;
}

static unsigned long rounded(unsigned long size)
{
    return (size + POOL_ROUND - 1) / POOL_ROUND * POOL_ROUND;
}

/* ---- the child ---------------------------------------------------------------- */

static struct pool *pool;
static struct events events;
static unsigned long fragments_of[OWNERS], bytes_of[OWNERS];
static struct loss lost_of[OWNERS], on_stack_of[OWNERS];

static void *take(int who, unsigned long size)
{
    void *payload = pool_alloc(pool, size, &OWNER[who], &events);

    if (payload == NULL) {
        fprintf(stderr, "bigpool: the pool is full: a mistake in its plan\n");
        exit(2);
    }
    fragments_of[who]++;
    bytes_of[who] += pool_granted(payload);
    return payload;
}

static void write_losses(FILE *out, const char *name, const struct loss *losses)
{
    const char *comma = "";

    fprintf(out, ",\n     \"%s\": [", name);
    for (int i = 0; i < OWNERS; i++) {
        if (losses[i].fragments == 0)
            continue;
        fprintf(out,
                "%s\n      {\"module\": \"%s\", \"file\": \"%s\", \"function\": \"%s\", \"line\": %lu, "
                "\"fragments\": %lu, \"bytes\": %lu, \"heads\": %lu}",
                comma, OWNER[i].mname, OWNER[i].file, OWNER[i].func, OWNER[i].line,
                losses[i].fragments, losses[i].bytes, losses[i].heads);
        comma = ",";
    }
    fputc(']', out);
}

static void write_truth(const char *path, int linked)
{
    unsigned long fragments = 0, bytes = 0, all = 1 + events.splits;
    const char *comma = "";
    FILE *out = fopen(path, "w");

    if (out == NULL)
        die(path);
    for (int i = 0; i < OWNERS; i++) {
        fragments += fragments_of[i];
        bytes += bytes_of[i];
    }
    fprintf(out,
            "{\"program\": \"bigpool\", \"manager\": \"q_malloc\", \"header_bytes\": 64, "
            "\"trailer_bytes\": 48, \"owners_in_fragments\": true,\n  \"pools\": [\n"
            "    {\"kind\": \"shm\", \"pid\": %d, \"role\": \"shared by all processes\", "
            "\"block\": \"%p\",\n     \"counters\": {\"size\": %lu, \"used\": %lu, "
            "\"real_used\": %lu, \"used_fragments\": %lu, \"free_fragments\": %lu},\n"
            "     \"owners\": [",
            pt[0].pid, (void *)pool, pool_size(pool), bytes,
            pool_real_used(bytes, fragments, all), fragments, all - fragments);
    for (int i = 0; i < OWNERS; i++) {
        if (fragments_of[i] == 0)
            continue;
        fprintf(out,
                "%s\n      {\"module\": \"%s\", \"file\": \"%s\", \"function\": \"%s\", "
                "\"line\": %lu, \"fragments\": %lu, \"bytes\": %lu}",
                comma, OWNER[i].mname, OWNER[i].file, OWNER[i].func, OWNER[i].line,
                fragments_of[i], bytes_of[i]);
        comma = ",";
    }
    fputc(']', out);
    if (linked) {
        write_losses(out, "unreachable", lost_of);
        write_losses(out, "on_stacks", on_stack_of);
    }
    fprintf(out, "}\n  ]}\n");
    if (fclose(out) != 0)
        die(path);
}

static void *zeroed(unsigned long bytes, int flags)
{
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_ANONYMOUS | flags, -1, 0);

    if (at == MAP_FAILED)
        die("mmap");
    return at;
}

/* What so many drawn fragments take of the pool; the payload alone in `payload`. */
static unsigned long plan(unsigned long drawn, uint64_t start, unsigned long *payload)
{
    unsigned long needed = POOL_BLOCK + 4 * QM_OVERHEAD + (1UL << 16);

    random_state = start;
    *payload = 0;
    for (unsigned long i = 0; i < drawn; i++) {
        unsigned long bytes;
        int freed;

        draw(&bytes, &freed);
        *payload += rounded(bytes);
    }
    random_state = start;
    return needed + *payload + drawn * QM_OVERHEAD;
}

/* Makes requests so large or small that the fragments fill the pool, but for the rounding. */
static void stretch_to_fill(unsigned long drawn, unsigned long size)
{
    uint64_t start = random_state;
    unsigned long payload, needed = plan(drawn, start, &payload);
    unsigned long fixed = needed - payload + drawn * POOL_ROUND / 2;

    if (fixed + drawn * POOL_ROUND > size)
        return; /* build says how much is missing */
    stretch = (size - fixed) / (payload / 1024);
    while (plan(drawn, start, &payload) > size && stretch > 0)
        stretch--;
}

/* Links what is used; `on_stack` is the caller's. */
static void link_pool(struct given *given, unsigned long count, void **on_stack)
{
    static void *all_heads[LINKED_HEADS];
    unsigned int owner[LINKED_ON_STACK];
    struct events private_events = {0, 0};

    private_heads = pool_alloc((struct pool *)_pkg_root.mem_block, sizeof heads, &OWNER[FIRST_OWNER], &private_events);
    if (private_heads == NULL)
        die("private memory");
    link_payloads(given, count, OWNERS, all_heads, lost_of, on_stack, owner, random_number);
    for (int i = 0; i < LINKED_HEADS / 2; i++) {
        heads[i] = all_heads[2 * i];
        private_heads[i] = all_heads[2 * i + 1];
    }
    memset(all_heads, 0, sizeof all_heads);
    for (int i = 0; i < LINKED_ON_STACK && on_stack[i] != NULL; i++) {
        on_stack_of[owner[i]].fragments++;
        on_stack_of[owner[i]].bytes += pool_granted(on_stack[i]);
    }
}

/* Builds the pool; the caller aborts. With `on_stack`, links it. */
static void build(unsigned long wanted, unsigned long size, const char *truth, void **on_stack)
{
    unsigned long drawn = wanted - 4; /* besides three of the core's and the rest at the end */
    unsigned long needed, payload_bytes, pkg_size = 1UL << 20, free_count = 0;
    uint64_t used = 0;
    struct given *given;

    plan_owners();
    if (on_stack != NULL)
        stretch_to_fill(drawn, size);
    needed = plan(drawn, random_state, &payload_bytes); /* a dry run tells whether all will fit */
    if (needed > size) {
        fprintf(stderr, "bigpool: %lu fragments need a pool of %lu MiB (-m)\n", wanted, (needed >> 20) + 1);
        _exit(2);
    }
    pool = pool_init(zeroed(size, MAP_SHARED), size, POOL_SHM);
    _shm_root = (struct memory_root){.mname = "q_malloc", .mem_pool = pool, .mem_block = pool};
    _pkg_root.mem_pool = _pkg_root.mem_block = pool_init(zeroed(pkg_size, MAP_PRIVATE), pkg_size, POOL_PKG);
    _pkg_root.mname = "q_malloc";

    shm_lock = take(SHM_LOCK, 8);
    pt = take(PT_ARRAY, sizeof *pt);
    process_count = take(PT_COUNT, sizeof *process_count);
    *process_count = 1;
    pt[0] = (struct process_table){getpid(), -1, -1, 1, 0, "main process - attendant"};

    /* Not from the C heap: what is left there would hold every payload. */
    given = zeroed(drawn * sizeof *given, MAP_PRIVATE);
    for (unsigned long i = 0; i < drawn; i++) {
        unsigned long bytes;
        int freed, who = draw(&bytes, &freed);

        given[i] = (struct given){take(who, bytes), (unsigned)who, (unsigned)freed};
    }
    for (unsigned long i = 0; i < drawn; i++) {
        unsigned int who = given[i].owner;

        if (!given[i].freed)
            continue;
        free_count++;
        fragments_of[who]--;
        bytes_of[who] -= pool_granted(given[i].payload);
        pool_release(pool, given[i].payload, &OWNER[who], 0, &events);
    }
    if (on_stack != NULL)
        link_pool(given, drawn, on_stack);
    munmap(given, drawn * sizeof *given);
    for (int i = 0; i < OWNERS; i++)
        used += bytes_of[i];
    if (truth != NULL)
        write_truth(truth, on_stack != NULL);
    printf("block=%p size=%lu fragments=%lu free=%lu used_bytes=%lu\n", (void *)pool, pool_size(pool),
           1 + events.splits, free_count + 1, (unsigned long)used);
    fflush(stdout);
}

/* Overwrites what finished calls have left below the caller's frame. */
__attribute__((noinline)) static void clean_stack(void)
{
    volatile char left[1 << 16];

    for (unsigned long i = 0; i < sizeof left; i++)
        left[i] = 0;
}

/* Builds the pool, then ends with a core or waits. */
__attribute__((noreturn)) static void be_server(unsigned long wanted, unsigned long size, const char *truth,
                                                int linked, int stay)
{
    void *volatile on_stack[LINKED_ON_STACK] = {NULL};

    build(wanted, size, truth, linked ? (void **)on_stack : NULL);
    clean_stack();
    if (!stay)
        abort();
    for (;;)
        pause();
}

/* ---- the parent ------------------------------------------------------------------ */

static void check_core_pattern(void)
{
    char pattern[256] = "";
    FILE *in = fopen("/proc/sys/kernel/core_pattern", "r");

    if (in == NULL || fgets(pattern, sizeof pattern, in) == NULL)
        die("/proc/sys/kernel/core_pattern");
    fclose(in);
    if (strpbrk(pattern, "|/") != NULL) {
        fprintf(stderr,
                "bigpool: core_pattern is %s"
                "bigpool: it must be a plain file name: sysctl -w kernel.core_pattern=core\n",
                pattern);
        exit(2);
    }
}

/* Moves the one file in `directory` to `out` and removes the directory. */
static void collect(const char *directory, const char *out)
{
    DIR *entries = opendir(directory);
    struct dirent *entry;
    char path[4096 + 260];
    int found = 0;

    if (entries == NULL)
        die(directory);
    while ((entry = readdir(entries)) != NULL) {
        if (entry->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "%s/%s", directory, entry->d_name);
        if (rename(path, out) != 0)
            die(out);
        found = 1;
    }
    closedir(entries);
    rmdir(directory);
    if (!found) {
        fprintf(stderr, "bigpool: the kernel wrote no core\n");
        exit(2);
    }
}

int main(int argc, char **argv)
{
    static const struct option OPTIONS[] = {{"out", required_argument, NULL, 'o'},
                                            {"truth", required_argument, NULL, 't'},
                                            {"linked", no_argument, NULL, 'l'},
                                            {"stay", no_argument, NULL, 's'},
                                            {NULL, 0, NULL, 0}};
    static const char USAGE[] =
        "usage: bigpool [-n FRAGMENTS] [-m MEGABYTES] [-p SEED] [--linked] [--truth FILE] --out CORE|--stay\n";
    unsigned long fragments = 2722639, megabytes = 2048;
    const char *out = NULL, *truth = NULL;
    char directory[4096], truth_path[4096];
    struct rlimit unlimited = {RLIM_INFINITY, RLIM_INFINITY};
    int option, status, bad = 0, linked = 0, stay = 0;
    pid_t child;

    random_state = 1;
    while ((option = getopt_long(argc, argv, "n:m:p:", OPTIONS, NULL)) != -1) {
        if (option == 'n')
            fragments = strtoul(optarg, NULL, 10);
        else if (option == 'm')
            megabytes = strtoul(optarg, NULL, 10);
        else if (option == 'p')
            random_state = strtoul(optarg, NULL, 10);
        else if (option == 'o')
            out = optarg;
        else if (option == 't')
            truth = optarg;
        else if (option == 'l')
            linked = 1;
        else if (option == 's')
            stay = 1;
        else
            bad = 1;
    }
    if (bad || (out == NULL) != stay || optind != argc || fragments < 5 || megabytes == 0 || megabytes > 1UL << 20 || random_state == 0) {
        fputs(USAGE, stderr);
        return 2;
    }
    if (stay)
        be_server(fragments, megabytes << 20, truth, linked, 1);
    check_core_pattern();
    if (setrlimit(RLIMIT_CORE, &unlimited) != 0)
        die("cannot raise the limit on cores (ulimit -c)");
    snprintf(directory, sizeof directory, "%s.XXXXXX", out);
    if (mkdtemp(directory) == NULL)
        die(directory);
    if (truth != NULL) { /* the child leaves this directory */
        FILE *made = fopen(truth, "w");

        if (made == NULL || fclose(made) != 0 || realpath(truth, truth_path) == NULL)
            die(truth);
    }
    child = fork();
    if (child < 0)
        die("fork");
    if (child == 0) {
        int filter = open("/proc/self/coredump_filter", O_WRONLY);

        if (filter < 0 || write(filter, "0x33", 4) != 4)
            die("/proc/self/coredump_filter");
        close(filter);
        if (chdir(directory) != 0)
            die(directory);
        be_server(fragments, megabytes << 20, truth != NULL ? truth_path : NULL, linked, 0);
    }
    if (waitpid(child, &status, 0) != child)
        die("waitpid");
    if (!WIFSIGNALED(status) || !WCOREDUMP(status)) {
        rmdir(directory);
        fprintf(stderr, "bigpool: no core was written (status %#x)\n", (unsigned)status);
        return 2;
    }
    collect(directory, out);
    return 0;
}
