/*
 * A program in the shape of a SIP server, with two leaks whose size it knows.
 *
 * The main process makes a pool in shared memory and a private one, allocates
 * what a server allocates at start, forks workers, and hands each of them
 * "requests". Most memory is freed again. Two owners forget theirs:
 *
 *   private memory of worker 2:  acc: acc_extra.c, extra2strar, line 214
 *   shared memory:               dialog: dlg_var.c, set_dlg_variable_unsafe, line 189
 *                                (in pairs that point at each other)
 *
 * and the start-up drops five private fragments, which every worker inherits.
 * When all is quiet it writes the truth (--truth), prints "ready", and waits
 * for SIGTERM. Which manager's pools these are is chosen while compiling (pool.h).
 * With PKG_SYSTEM private memory comes from the C library's malloc; the private
 * pool is there all the same, and stays as it was made. The truth comes from the program's own books, which it keeps
 * outside the pools: no reader of the pools took part in it. The books hold
 * numbers only, so that they do not make a leaked fragment reachable.
 *
 * Workers take turns through a ring of pipes: the same seed gives the same
 * fragments in the same order (addresses still differ from run to run).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "pool.h"

#ifdef PKG_SYSTEM
#include <malloc.h>
#endif

#define MAX_WORKERS 64
#define TRANSACTIONS 32
#define CONTACTS 48
#define VARIABLES 16

/* ---- owners ------------------------------------------------------------- */

enum owner_id {
    SHM_LOCK,
    PT_ARRAY,
    PT_LOCK,
    PT_COUNT,
    TABLE_TM,
    TABLE_USRLOC,
    CELL_TM,
    REPLY_TM,
    CONTACT_USRLOC,
    DELETE_USRLOC,
    LEAK_DIALOG,
    FREE_TM,
    CFG_STRING,
    CFG_ACTION,
    CFG_DROPPED,
    PV_CACHE,
    MODULE_TABLE,
    MESSAGE,
    HEADER,
    VIA,
    FREE_MESSAGE,
    VARIABLE,
    LEAK_ACC,
    OWNERS
};

static const struct owner OWNER[OWNERS] = {
    [SHM_LOCK] = {"core", POOL_LOCK_FILE, POOL_LOCK_FUNC, 1277},
    [PT_ARRAY] = {"core", "core: core/pt.c", "init_pt", 105},
    [PT_LOCK] = {"core", "core: core/pt.c", "init_pt", 107},
    [PT_COUNT] = {"core", "core: core/pt.c", "init_pt", 106},
    [TABLE_TM] = {"tm", "tm: h_table.c", "init_hash_table", 420},
    [TABLE_USRLOC] = {"usrloc", "usrloc: udomain.c", "new_udomain", 96},
    [CELL_TM] = {"tm", "tm: h_table.c", "build_cell", 337},
    [REPLY_TM] = {"tm", "tm: t_reply.c", "relay_reply", 1911},
    [CONTACT_USRLOC] = {"usrloc", "usrloc: ucontact.c", "new_ucontact", 86},
    [DELETE_USRLOC] = {"usrloc", "usrloc: ucontact.c", "free_ucontact", 188},
    [LEAK_DIALOG] = {"dialog", "dialog: dlg_var.c", "set_dlg_variable_unsafe", 189},
    [FREE_TM] = {"tm", "tm: h_table.c", "free_cell_helper", 227},
    [CFG_STRING] = {"core", "core: core/cfg.lex", "addstr", 1519},
    [CFG_ACTION] = {"core", "core: core/route_struct.c", "mk_action", 94},
    [CFG_DROPPED] = {"core", "core: core/cfg.lex", "pp_define", 1702},
    [PV_CACHE] = {"core", "core: core/pvapi.c", "pv_cache_add", 343},
    [MODULE_TABLE] = {"core", "core: core/sr_module.c", "register_module", 304},
    [MESSAGE] = {"core", "core: core/receive.c", "receive_msg", 241},
    [HEADER] = {"core", "core: core/parser/msg_parser.c", "parse_headers", 356},
    [VIA] = {"core", "core: core/parser/parse_via.c", "parse_via", 2648},
    [FREE_MESSAGE] = {"core", "core: core/parser/msg_parser.c", "free_sip_msg", 816},
    [VARIABLE] = {"pv", "pv: pv_svar.c", "set_var_value", 118},
    [LEAK_ACC] = {"acc", "acc: acc_extra.c", "extra2strar", 214},
};

/* ---- what a reader of Kamailio's memory looks for ------------------------- */

struct sr_pkg_api {
    const char *mname;
    void *mem_pool;
    void *mem_block;
    void (*calls[13])(void);
};

struct sr_shm_api {
    const char *mname;
    void *mem_pool;
    void *mem_block;
    void (*calls[18])(void);
};

struct process_table {
    int pid;
    int unix_sock;
    int idx;
    int status;
    int rank;
    char desc[128];
};
_Static_assert(sizeof(struct process_table) == 148, "148 bytes an entry");

struct sr_pkg_api _pkg_root;
struct sr_shm_api _shm_root;
struct process_table *pt; /* in shared memory, *process_count entries */
int *process_count;       /* in shared memory */
int *process_lock;        /* in shared memory */
int process_no;           /* this process's index in pt */

#ifdef PKG_SYSTEM
#define PKG_FLAG ""
#else
#define PKG_FLAG "PKG_MALLOC, "
#endif
#if POOL_OWNERS
#define OWNERS_FLAG ", DBG_SR_MEMORY"
#else
#define OWNERS_FLAG ""
#endif
const char full_version[] = "kamailio 0.0." POOL_EDITION "-sample (x86_64/linux) ";
const char ver_flags[] = "SHM_MMAP, " PKG_FLAG POOL_FLAG OWNERS_FLAG;
const char ver_id[] = "unknown ";
const char ver_name[] = "kamailio";

int my_pid(void);
const char *my_desc(void);

int my_pid(void)
{
    return pt != NULL ? pt[process_no].pid : getpid();
}

const char *my_desc(void)
{
    return pt != NULL ? pt[process_no].desc : "init";
}

/* ---- books ---------------------------------------------------------------- */

struct books {
    struct events events;
    unsigned long fragments[OWNERS];
    unsigned long bytes[OWNERS];
    unsigned long unreachable[OWNERS]; /* fragments that nothing points to any more */
    unsigned long failed;              /* requests that the pool could not serve */
};

struct ledger {
    struct books shm;
    struct books pkg[MAX_WORKERS + 1];
};

struct heap {
    struct pool *pool;
    struct books *books;
};

static struct ledger *ledger; /* a shared mapping of its own, outside the pools */
static struct heap pkg, shm;
static int join_neighbours;

__attribute__((noreturn)) static void die(const char *what)
{
    perror(what);
    exit(2);
}

#ifdef PKG_SYSTEM
static int in_pool(const struct heap *heap)
{
    return heap != &pkg;
}
#else
static int in_pool(const struct heap *heap)
{
    (void)heap;
    return 1;
}
#endif

static void *take(struct heap *heap, enum owner_id who, unsigned long size)
{
    void *payload;

    if (!in_pool(heap))
        return calloc(1, size);
    payload = pool_alloc(heap->pool, size, &OWNER[who], &heap->books->events);
    if (payload == NULL) {
        heap->books->failed++;
        return NULL;
    }
    /* What an earlier user left must not look like a pointer of this one. */
    memset(payload, 0, pool_granted(payload));
    heap->books->fragments[who]++;
    heap->books->bytes[who] += pool_granted(payload);
    return payload;
}

static void give(struct heap *heap, void *payload, enum owner_id who, enum owner_id freed_by)
{
    if (payload == NULL)
        return;
    if (!in_pool(heap)) {
        free(payload);
        return;
    }
    heap->books->fragments[who]--;
    heap->books->bytes[who] -= pool_granted(payload);
    pool_release(heap->pool, payload, &OWNER[freed_by], join_neighbours, &heap->books->events);
}

static void forget(struct heap *heap, const void *payload, enum owner_id who)
{
    if (payload != NULL && in_pool(heap))
        heap->books->unreachable[who]++;
}

/* A payload of `size` bytes that begins with a text. */
__attribute__((format(printf, 4, 5))) static void *text(struct heap *heap, enum owner_id who,
                                                        unsigned long size, const char *format, ...)
{
    void *payload = take(heap, who, size);
    va_list args;

    if (payload == NULL)
        return NULL;
    va_start(args, format);
    vsnprintf(payload, size, format, args);
    va_end(args);
    return payload;
}

/* ---- pseudo-random numbers, the same on every machine ---------------------- */

static uint64_t seed = 1;

static unsigned long below(unsigned long bound)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (unsigned long)(seed % bound);
}

static unsigned long between(unsigned long low, unsigned long high)
{
    return low + below(high - low + 1);
}

/* ---- the server ------------------------------------------------------------ */

struct cell { /* a transaction: a fragment that points at another, and at code */
    void *reply;
    void (*end)(unsigned slot);
    char call_id[40];
};

struct leaked { /* half of a pair that only itself points to */
    struct leaked *other;
    char name[24];
};

static struct cell **transactions; /* TRANSACTIONS slots, in shared memory */
static void **contacts;            /* CONTACTS slots, in shared memory */
static void *variables[VARIABLES]; /* of this process */
static void *configuration[160];
static int *shm_lock; /* the payload of the first shared fragment */

__attribute__((noinline)) static void start_up(int processes)
{
    static const enum owner_id KIND[] = {CFG_STRING, CFG_ACTION, PV_CACHE, MODULE_TABLE, CFG_STRING};
    enum owner_id owner_of[sizeof configuration / sizeof *configuration];
    unsigned kept = 0;

    shm_lock = take(&shm, SHM_LOCK, sizeof *shm_lock);
    transactions = take(&shm, TABLE_TM, TRANSACTIONS * sizeof *transactions);
    contacts = take(&shm, TABLE_USRLOC, CONTACTS * sizeof *contacts);
    pt = take(&shm, PT_ARRAY, (unsigned long)processes * sizeof *pt);
    process_count = take(&shm, PT_COUNT, sizeof *process_count);
    process_lock = take(&shm, PT_LOCK, sizeof *process_lock);
    for (unsigned i = 0; i < 150; i++) {
        if (i % 30 == 7) {
            void *dropped = text(&pkg, CFG_DROPPED, between(8, 40), "define_%u", i);

            forget(&pkg, dropped, CFG_DROPPED);
        } else {
            enum owner_id who = KIND[below(sizeof KIND / sizeof *KIND)];

            owner_of[kept] = who;
            configuration[kept++] = text(&pkg, who, between(8, 420), "cfg-%u", i);
        }
    }
    for (unsigned i = 3; i < kept; i += 9) { /* what the parser needed only for a while */
        give(&pkg, configuration[i], owner_of[i], FREE_MESSAGE);
        configuration[i] = NULL;
    }
}

static void end_transaction(unsigned slot)
{
    struct cell *cell = transactions[slot];

    if (cell == NULL)
        return;
    give(&shm, cell->reply, REPLY_TM, FREE_TM);
    give(&shm, cell, CELL_TM, FREE_TM);
    transactions[slot] = NULL;
}

static void begin_transaction(unsigned long request)
{
    unsigned slot = (unsigned)below(TRANSACTIONS);
    struct cell *cell;

    end_transaction(slot);
    cell = take(&shm, CELL_TM, between(sizeof *cell, 900));
    if (cell == NULL)
        return;
    snprintf(cell->call_id, sizeof cell->call_id, "%lu-%d@127.0.0.1", request, process_no);
    cell->reply = text(&shm, REPLY_TM, between(120, 380), "SIP/2.0 200 OK");
    cell->end = end_transaction;
    transactions[slot] = cell;
}

static void change_contact(void)
{
    unsigned slot = (unsigned)below(CONTACTS);

    give(&shm, contacts[slot], CONTACT_USRLOC, DELETE_USRLOC);
    contacts[slot] = NULL;
    if (below(3) != 0)
        contacts[slot] = text(&shm, CONTACT_USRLOC, between(90, 260), "sip:u%u@127.0.0.1", slot);
}

static void leak_shared(void)
{
    struct leaked *first = take(&shm, LEAK_DIALOG, between(sizeof *first, 72));
    struct leaked *second = take(&shm, LEAK_DIALOG, between(sizeof *second, 72));

    if (first != NULL && second != NULL) {
        first->other = second;
        second->other = first;
    }
    forget(&shm, first, LEAK_DIALOG);
    forget(&shm, second, LEAK_DIALOG);
}

__attribute__((noinline)) static void handle(unsigned long request)
{
    void *message = text(&pkg, MESSAGE, between(400, 1400), "OPTIONS sip:u%lu", request);
    void *via = take(&pkg, VIA, 176);
    void *headers[6];
    unsigned header_count = (unsigned)between(2, 6);

    *shm_lock = 1; /* for show: the ring of pipes already keeps workers apart */
    for (unsigned i = 0; i < header_count; i++)
        headers[i] = text(&pkg, HEADER, between(32, 140), "Header-%u", i);
    begin_transaction(request);
    if (request % 2 == 0)
        change_contact();
    if (request % 8 == 5)
        leak_shared();
    if (process_no == 2 && request % 3 == 1)
        forget(&pkg, text(&pkg, LEAK_ACC, between(24, 200), "acc-%lu", request), LEAK_ACC);
    if (request % 5 == 0) {
        unsigned slot = (unsigned)below(VARIABLES);

        give(&pkg, variables[slot], VARIABLE, VARIABLE);
        variables[slot] = text(&pkg, VARIABLE, between(16, 90), "var-%lu", request);
    }
    *shm_lock = 0;
    give(&pkg, via, VIA, FREE_MESSAGE);
    for (unsigned i = 0; i < header_count; i++)
        give(&pkg, headers[(i + 1) % header_count], HEADER, FREE_MESSAGE);
    give(&pkg, message, MESSAGE, FREE_MESSAGE);
}

/* Every third transaction and contact ends, so that free fragments lie between used ones. */
__attribute__((noinline)) static void wind_down(void)
{
    for (unsigned i = 0; i < TRANSACTIONS; i += 3)
        end_transaction(i);
    for (unsigned i = 1; i < CONTACTS; i += 3) {
        give(&shm, contacts[i], CONTACT_USRLOC, DELETE_USRLOC);
        contacts[i] = NULL;
    }
    for (unsigned i = 2; i < VARIABLES; i += 3) {
        give(&pkg, variables[i], VARIABLE, VARIABLE);
        variables[i] = NULL;
    }
}

/* Overwrites the stack that the work above used: no stale pointer stays in it. */
__attribute__((noinline)) static void scrub_stack(void)
{
    volatile char old[16384];

    for (size_t i = 0; i < sizeof old; i++)
        old[i] = 0;
}

static void read_token(int fd)
{
    char token;
    ssize_t got;

    do
        got = read(fd, &token, 1);
    while (got < 0 && errno == EINTR);
    if (got != 1)
        _exit(2);
}

static void write_token(int fd)
{
    if (write(fd, "t", 1) != 1)
        _exit(2);
}

__attribute__((noreturn)) static void work(unsigned long requests, int mine, int next, int done)
{
    for (unsigned long i = 0; i < requests; i++) {
        read_token(mine);
        handle(i);
        write_token(next);
    }
    read_token(mine);
    wind_down();
    scrub_stack();
    write_token(next);
    write_token(done);
    for (;;)
        pause();
}

/* ---- the truth ------------------------------------------------------------- */

static void write_pool(FILE *out, const char *kind, int pid, const char *role,
                       const struct pool *pool, const struct books *books)
{
    unsigned long used_fragments = 0, used = 0;
    unsigned long all = 1 + books->events.splits - books->events.joins;
    const char *comma = "";

    for (int i = 0; i < OWNERS; i++) {
        used_fragments += books->fragments[i];
        used += books->bytes[i];
    }
    fprintf(out,
            "    {\"kind\": \"%s\", \"pid\": %d, \"role\": \"%s\", \"failed_allocations\": %lu,\n"
            "     \"counters\": {\"size\": %lu, \"used\": %lu, \"real_used\": %lu, "
            "\"used_fragments\": %lu, \"free_fragments\": %lu},\n"
            "     \"owners\": [",
            kind, pid, role, books->failed, pool_size(pool), used,
            pool_real_used(used, used_fragments, all), used_fragments, all - used_fragments);
    for (int i = 0; i < OWNERS; i++) {
        if (books->fragments[i] == 0)
            continue;
        fprintf(out,
                "%s\n      {\"module\": \"%s\", \"file\": \"%s\", \"function\": \"%s\", \"line\": %lu, "
                "\"fragments\": %lu, \"bytes\": %lu, \"unreachable\": %lu}",
                comma, OWNER[i].mname, OWNER[i].file, OWNER[i].func, OWNER[i].line,
                books->fragments[i], books->bytes[i], books->unreachable[i]);
        comma = ",";
    }
    fprintf(out, "]}");
}

static void write_truth(const char *path)
{
    FILE *out = fopen(path, "w");

    if (out == NULL)
        die(path);
    fprintf(out,
            "{\"program\": \"leaky\", \"manager\": \"" POOL_MANAGER "\", \"header_bytes\": %zu, "
            "\"trailer_bytes\": %zu, \"owners_in_fragments\": %s,\n  \"pools\": [\n",
            (size_t)POOL_HEADER, (size_t)POOL_TRAILER, POOL_OWNERS ? "true" : "false");
    write_pool(out, "shm", pt[0].pid, "shared by all processes", shm.pool, &ledger->shm);
    for (int i = 0; i < *process_count; i++) {
        fprintf(out, ",\n");
        /* What its block says of itself is the same in every process. */
        write_pool(out, "pkg", pt[i].pid, pt[i].desc, pkg.pool, &ledger->pkg[i]);
    }
    fprintf(out, "\n  ]}\n");
    if (fclose(out) != 0)
        die(path);
}

/* ---- setting up ------------------------------------------------------------ */

static void *shared_mapping(size_t bytes)
{
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (at == MAP_FAILED)
        die("mmap");
    return at;
}

static void make_pools(unsigned long shm_size, unsigned long pkg_size)
{
    void *private = calloc(1, pkg_size);

    ledger = shared_mapping(sizeof *ledger);
    shm = (struct heap){pool_init(shared_mapping(shm_size), shm_size, POOL_SHM), &ledger->shm};
    pkg = (struct heap){private != NULL ? pool_init(private, pkg_size, POOL_PKG) : NULL,
                        &ledger->pkg[0]};
    if (shm.pool == NULL || pkg.pool == NULL) {
        fprintf(stderr, "leaky: cannot make the pools\n");
        exit(2);
    }
    _shm_root.mname = _pkg_root.mname = POOL_MANAGER;
    _shm_root.mem_pool = _shm_root.mem_block = shm.pool;
    _pkg_root.mem_pool = _pkg_root.mem_block = pkg.pool;
    _shm_root.calls[0] = _pkg_root.calls[0] = (void (*)(void))pool_alloc;
    _shm_root.calls[1] = _pkg_root.calls[1] = (void (*)(void))pool_release;
}

static void enter_process_table(int index)
{
    struct process_table *me = &pt[index];

    me->pid = getpid();
    me->unix_sock = me->idx = -1;
    me->status = 1;
    me->rank = index;
    if (index == 0)
        snprintf(me->desc, sizeof me->desc, "main process - attendant");
    else
        snprintf(me->desc, sizeof me->desc, "udp receiver child=%d sock=127.0.0.1:5060", index - 1);
}

static void start_workers(int workers, unsigned long requests)
{
    int ring[MAX_WORKERS][2], done[2];
    pid_t main_pid = getpid();

    if (pipe(done) != 0)
        die("pipe");
    for (int i = 0; i < workers; i++)
        if (pipe(ring[i]) != 0)
            die("pipe");
    for (int i = 0; i < workers; i++) {
        pid_t child;

        ledger->pkg[i + 1] = ledger->pkg[0]; /* a worker inherits main's private memory */
        child = fork();
        if (child < 0)
            die("fork");
        if (child == 0) {
            sigset_t none;

            sigemptyset(&none);
            sigprocmask(SIG_SETMASK, &none, NULL);
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            if (getppid() != main_pid)
                _exit(2);
            process_no = i + 1;
            pkg.books = &ledger->pkg[i + 1];
            seed += 7919U * (unsigned)(i + 1);
            enter_process_table(i + 1);
            work(requests, ring[i][0], ring[(i + 1) % workers][1], done[1]);
        }
    }
    write_token(ring[0][1]);
    for (int i = 0; i < workers; i++)
        read_token(done[0]);
    for (int i = 0; i < workers; i++) {
        close(ring[i][0]);
        close(ring[i][1]);
    }
    close(done[0]);
    close(done[1]);
}

static unsigned long whole_pages(unsigned long bytes)
{
    unsigned long page = (unsigned long)sysconf(_SC_PAGESIZE);

    return (bytes + page - 1) / page * page;
}

static unsigned long number(const char *what, const char *argument, unsigned long low,
                            unsigned long high)
{
    char *end;
    unsigned long value;

    errno = 0;
    value = strtoul(argument, &end, 10);
    if (errno != 0 || *argument < '0' || *argument > '9' || *end != '\0' || value < low ||
        value > high) {
        fprintf(stderr, "leaky: %s must be %lu to %lu, not '%s'\n", what, low, high, argument);
        exit(2);
    }
    return value;
}

static const char USAGE[] =
    "usage: leaky [-n WORKERS] [-r REQUESTS] [-p SEED] [--small] [--join] [--truth FILE]\n"
    "  -n WORKERS    worker processes, 1 to 64 (3)\n"
    "  -r REQUESTS   requests for each worker (200)\n"
    "  -p SEED       of the pseudo-random numbers (1)\n"
    "  --small       pools of 256 KiB (shared) and 128 KiB (private) besides their blocks,\n"
    "                instead of 16 MiB and 4 MiB in all\n"
    "  --join        merge free neighbours, as mem_join=1 does (TLSF always does)\n"
    "  --truth FILE  write what the pools hold, as JSON\n"
    "Prints \"ready\" when all is quiet; ends on SIGTERM.\n";

int main(int argc, char **argv)
{
    static const struct option OPTIONS[] = {{"small", no_argument, NULL, 's'},
                                            {"join", no_argument, NULL, 'j'},
                                            {"truth", required_argument, NULL, 't'},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    unsigned long shm_size = 16UL << 20, pkg_size = 4UL << 20, requests = 200;
    const char *truth = NULL;
    int workers = 3, option, received;
    sigset_t ends;

    while ((option = getopt_long(argc, argv, "n:r:p:h", OPTIONS, NULL)) != -1) {
        switch (option) {
        case 'n':
            workers = (int)number("-n", optarg, 1, MAX_WORKERS);
            break;
        case 'r':
            requests = number("-r", optarg, 0, 100000000);
            break;
        case 'p':
            seed = number("-p", optarg, 1, 1UL << 62);
            break;
        case 's':
            shm_size = whole_pages(POOL_BLOCK + (256UL << 10));
            pkg_size = whole_pages(POOL_BLOCK + (128UL << 10));
            break;
        case 'j':
            join_neighbours = 1;
            break;
        case 't':
            truth = optarg;
            break;
        case 'h':
            fputs(USAGE, stdout);
            return 0;
        default:
            fputs(USAGE, stderr);
            return 2;
        }
    }
    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    sigaddset(&ends, SIGINT);
    sigprocmask(SIG_BLOCK, &ends, NULL);

    make_pools(shm_size, pkg_size);
    start_up(workers + 1);
    *process_count = workers + 1;
    enter_process_table(0);
    scrub_stack();
    start_workers(workers, requests);
    if (truth != NULL)
        write_truth(truth);
    scrub_stack();
    puts("ready");
    fflush(stdout);

    sigwait(&ends, &received);
    for (int i = 1; i < *process_count; i++)
        kill(pt[i].pid, SIGTERM);
    for (int i = 1; i < *process_count; i++)
        waitpid(pt[i].pid, NULL, 0);
    return 0;
}
