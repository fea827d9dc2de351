/* Threads and processes that wait for locks for ever, one for each kind of lock, and others that wait
 * for what is no lock. Nothing here ever goes on.
 *
 *   mutexes    two threads hold one mutex each and want the other's
 *   again      a thread takes a plain mutex twice
 *   writer     a rwlock held for writing by a sleeping thread; one wants to read it, one to write
 *   reader     a rwlock held for reading; one wants to write it
 *   openssl    a lock of libcrypto's, held for writing; one wants it, too
 *   shared     a mutex in shared memory, held by the main thread, wanted by a child process
 *   spins      a spinlock
 *   yields     a word in shared memory that a thread asks for again and again, giving up its turn
 *   stack      a word on a thread's own stack that it sleeps for with the futex call itself, as
 *              Kamailio's locks are waited for; it exports _shm_root and so passes for Kamailio
 *   condition, semaphore, join, barrier: no locks
 *
 * Once all of them wait it says in one line of JSON who is who and where the locks are.
 *
 * cc -std=gnu11 -O2 -pthread -rdynamic locks.c -o locks
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { FIRST, SECOND, AGAIN, WRITER, READS, WRITES, READER, WANTS, OPENSSL, HANDSHAKE, SPINS, YIELDS,
       STACK, CONDITION, SEMAPHORE, JOIN, BARRIER, KINDS };
static const char *const NAMES[KINDS] = {
    "first", "second", "again", "writer", "reads", "writes", "reader", "wants", "openssl",
    "handshake", "spins", "yields", "stack", "condition", "semaphore", "join", "barrier",
};

/* In memory that processes share. */
struct shared {
    pthread_mutex_t mutex;
    _Atomic int fast;
    _Atomic int child_waits;
};

/* As in a Kamailio that has not set up its shared memory yet. */
void *_shm_root[23];

static struct shared *shared;
static pthread_mutex_t one = PTHREAD_MUTEX_INITIALIZER, two = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t plain = PTHREAD_MUTEX_INITIALIZER, for_condition = PTHREAD_MUTEX_INITIALIZER;
static pthread_rwlock_t written = PTHREAD_RWLOCK_INITIALIZER, read_held = PTHREAD_RWLOCK_INITIALIZER;
static int (*write_lock)(void *);
static void *of_openssl;
static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
static pthread_barrier_t barrier, both_hold;
static sem_t semaphore;
static pthread_spinlock_t spin;
static pthread_t threads[KINDS];
static _Atomic int tids[KINDS];
static _Atomic uintptr_t on_stack;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void forever(void) {
    for (;;)
        pause();
}

/* The asking loop of a lock without futexes; its address stays in a register. */
__attribute__((noinline)) static void fast_lock(_Atomic int *lock) {
    while (atomic_exchange(lock, 1) != 0)
        sched_yield();
}

__attribute__((noinline)) static void sleep_for(_Atomic int *word) {
    for (;;)
        syscall(SYS_futex, word, FUTEX_WAIT, 2, NULL, NULL, 0);
}

static void *wait_for(void *argument) {
    int kind = (int)(intptr_t)argument;
    prctl(PR_SET_NAME, NAMES[kind]);
    tids[kind] = (int)syscall(SYS_gettid);
    switch (kind) {
    case FIRST:
        pthread_mutex_lock(&one);
        pthread_barrier_wait(&both_hold);
        pthread_mutex_lock(&two);
        break;
    case SECOND:
        pthread_mutex_lock(&two);
        pthread_barrier_wait(&both_hold);
        pthread_mutex_lock(&one);
        break;
    case AGAIN:
        pthread_mutex_lock(&plain);
        pthread_mutex_lock(&plain);
        break;
    case WRITER:
        pthread_rwlock_wrlock(&written);
        forever();
        break;
    case READS:
        pthread_rwlock_rdlock(&written);
        break;
    case WRITES:
        pthread_rwlock_wrlock(&written);
        break;
    case READER:
        pthread_rwlock_rdlock(&read_held);
        forever();
        break;
    case WANTS:
        pthread_rwlock_wrlock(&read_held);
        break;
    case OPENSSL:
        write_lock(of_openssl);
        forever();
        break;
    case HANDSHAKE:
        write_lock(of_openssl);
        break;
    case SPINS:
        pthread_spin_lock(&spin);
        break;
    case YIELDS:
        fast_lock(&shared->fast);
        break;
    case STACK: {
        _Atomic int word = 2;
        on_stack = (uintptr_t)&word;
        sleep_for(&word);
        break;
    }
    case CONDITION:
        pthread_mutex_lock(&for_condition);
        for (;;)
            pthread_cond_wait(&condition, &for_condition);
    case SEMAPHORE:
        sem_wait(&semaphore);
        break;
    case JOIN:
        pthread_join(threads[WRITER], NULL);
        break;
    case BARRIER:
        pthread_barrier_wait(&barrier);
        break;
    }
    fprintf(stderr, "%s went on\n", NAMES[kind]);
    exit(1);
}

/* Whether a thread of a process sleeps in the kernel. */
static int sleeps(int pid, int tid) {
    char path[64], text[128] = "";
    snprintf(path, sizeof path, "/proc/%d/task/%d/syscall", pid, tid);
    FILE *file = fopen(path, "r");
    if (!file)
        return 0;
    size_t length = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    return length > 0 && strncmp(text, "running", 7) != 0;
}

static void start(int kind) {
    if (pthread_create(&threads[kind], NULL, wait_for, (void *)(intptr_t)kind))
        fail("pthread_create");
    while (!tids[kind])
        usleep(1000);
    while (kind != SPINS && kind != YIELDS && kind != FIRST && !sleeps(getpid(), tids[kind]))
        usleep(1000);
}

int main(void) {
    prctl(PR_SET_PDEATHSIG, 9);
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        fail("mmap");
    pthread_mutexattr_t of_processes;
    pthread_mutexattr_init(&of_processes);
    pthread_mutexattr_setpshared(&of_processes, PTHREAD_PROCESS_SHARED);
    pthread_mutex_init(&shared->mutex, &of_processes);
    pthread_mutex_lock(&shared->mutex);
    shared->fast = 1;
    pthread_barrier_init(&barrier, NULL, 2);
    pthread_barrier_init(&both_hold, NULL, 2);
    pthread_spin_init(&spin, PTHREAD_PROCESS_PRIVATE);
    pthread_spin_lock(&spin);
    sem_init(&semaphore, 0, 0);

    void *libcrypto = dlopen("libcrypto.so.3", RTLD_NOW);
    void *(*new_lock)(void) = libcrypto ? dlsym(libcrypto, "CRYPTO_THREAD_lock_new") : NULL;
    write_lock = libcrypto ? dlsym(libcrypto, "CRYPTO_THREAD_write_lock") : NULL;
    if (!new_lock || !write_lock)
        fail(dlerror());
    of_openssl = new_lock();

    int child = fork();
    if (child < 0)
        fail("fork");
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, 9);
        shared->child_waits = 1;
        pthread_mutex_lock(&shared->mutex);
        _exit(1);
    }
    while (!shared->child_waits || !sleeps(child, child))
        usleep(1000);
    for (int kind = 0; kind < KINDS; kind++)
        start(kind);
    while (!sleeps(getpid(), tids[FIRST]))
        usleep(1000);

    printf("{\"child\": %d, \"tids\": {", child);
    for (int kind = 0; kind < KINDS; kind++)
        printf("%s\"%s\": %d", kind ? ", " : "", NAMES[kind], tids[kind]);
    printf("}, \"locks\": {\"one\": \"%p\", \"two\": \"%p\", \"plain\": \"%p\", \"written\": \"%p\", "
           "\"read_held\": \"%p\", \"openssl\": \"%p\", \"spin\": \"%p\", \"shared\": \"%p\", \"fast\": \"%p\", \"stack\": \"0x%jx\"}}\n",
           (void *)&one, (void *)&two, (void *)&plain, (void *)&written, (void *)&read_held,
           of_openssl, (void *)&spin, (void *)&shared->mutex, (void *)&shared->fast, (uintmax_t)on_stack);
    fflush(stdout);
    forever();
}
