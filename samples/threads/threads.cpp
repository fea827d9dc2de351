/* threads [DEPTH]: 64 threads, each with a stack of another kind, for tests of unwinders. One recurses
   DEPTH calls deep. Prints `ready` when all of them are where they stay; ends by a signal. */
#include "kinds.h"

#include <atomic>
#include <dirent.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

namespace {

struct Kind {
    const char *name;
    void (*run)(long depth);
    long depth;
    size_t stack;
};

const size_t KIB = 1024;

Kind kinds[] = {
    {"deep", deep, 10000, 64 * KIB * KIB},
    {"variable", variable, 20, 256 * KIB},
    {"aligned", aligned, 20, 256 * KIB},
    {"last_call", last_call, 1, 256 * KIB},
    {"unlikely", unlikely, 9, 256 * KIB},
    {"spinning", spinning, 3, 256 * KIB},
    {"through_plt", through_plt, 9, 256 * KIB},
    {"in_vdso", in_vdso, 1, 256 * KIB},
    {"in_vfork", in_vfork, 1, 256 * KIB},
    {"sorting", sorting, 4, 256 * KIB},
    {"coroutine", coroutine, 1, 256 * KIB},
    {"handler", handler, 5, 256 * KIB},
    {"on_own_stack", handler_on_own_stack, 5, 256 * KIB},
    {"nested_handlers", nested_handlers, 5, 256 * KIB},
    {"own_trampoline", own_trampoline, 5, 256 * KIB},
    {"null_call", null_call, 3, 256 * KIB},
    {"wild_call", wild_call, 3, 256 * KIB},
    {"overflow", overflow, 1, 128 * KIB},
    {"condition", condition, 1, 256 * KIB},
    {"locked", locked, 1, 256 * KIB},
    {"polling", polling, 1, 256 * KIB},
    {"sleeping", sleeping, 1, 256 * KIB},
    {"reading", reading, 1, 256 * KIB},
    {"callback", callback, 3, 256 * KIB},
    {"catching", catching, 6, 256 * KIB},
    {"cleaning_up", cleaning_up, 6, 256 * KIB},
    {"terminating", terminating, 6, 256 * KIB},
    {"framed", framed, 12, 256 * KIB},
    {"keeps", keeps_frame_pointer, 12, 256 * KIB},
    {"bare", bare, 12, 256 * KIB},
};
const size_t COUNT = sizeof kinds / sizeof kinds[0];
const size_t THREADS = 64;
/* There is one of each of the first kinds in every round but of these, in the first only. */
const char *const ONCE[] = {"deep", "spinning", "through_plt", "in_vdso", "coroutine"};

std::atomic<size_t> there;

bool once(const Kind &kind)
{
    for (const char *name : ONCE)
        if (kind.name == name || __builtin_strcmp(kind.name, name) == 0)
            return true;
    return false;
}

void *begin(void *argument)
{
    const Kind &kind = *static_cast<const Kind *>(argument);
    pthread_setname_np(pthread_self(), kind.name);
    kind.run(kind.depth);
    return nullptr;
}

void start(Kind &kind)
{
    pthread_attr_t attributes;
    pthread_t thread;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, kind.stack);
    if (pthread_create(&thread, &attributes, begin, &kind) != 0) {
        fprintf(stderr, "threads: cannot start %s\n", kind.name);
        exit(2);
    }
}

}

void arrived()
{
    there++;
}

long park(long number)
{
    arrived();
    for (;;)
        pause();
    return number;
}

int main(int count, char **arguments)
{
    if (count > 1)
        kinds[0].depth = atol(arguments[1]);
    /* The first is this one. */
    size_t started = 1;
    for (size_t round = 0; started < THREADS; round++) {
        for (size_t index = 0; index < COUNT && started < THREADS; index++) {
            if (round > 0 && once(kinds[index]))
                continue;
            start(kinds[index]);
            started++;
        }
    }
    while (there < THREADS - 1)
        usleep(1000);
    /* Between saying so and standing still lie a few instructions. */
    usleep(200 * 1000);
    puts("ready");
    fflush(stdout);
    park(0);
}
