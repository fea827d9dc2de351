#include "kinds.h"

#include <alloca.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

namespace {

volatile long sink;

OWN long left(long depth);

/* Two functions with frames of different sizes. */
OWN long right(long depth)
{
    char room[200];
    asm volatile("" : : "r"(room) : "memory");
    return left(depth - 1) + room[depth % 200];
}

OWN long left(long depth)
{
    return depth <= 0 ? park(depth) : right(depth - 1) + 1;
}

OWN long take(long depth)
{
    char *room = static_cast<char *>(alloca(static_cast<size_t>(depth % 7 + 1) * 100));
    memset(room, 1, 100);
    asm volatile("" : : "r"(room) : "memory");
    return depth == 0 ? park(room[0]) : take(depth - 1) + room[1];
}

/* A frame aligned to 64 bytes and of variable length: its address is kept in memory. */
OWN long align(long depth)
{
    alignas(64) char aligned_room[128];
    char *room = static_cast<char *>(alloca(static_cast<size_t>(depth % 5 + 1) * 64));
    asm volatile("" : : "r"(room), "r"(aligned_room) : "memory");
    return depth == 0 ? park(1) : align(depth - 1) + room[1] + aligned_room[2];
}

/* The call is the last instruction: its return address belongs to the next function. */
[[noreturn]] OWN void never_returns(long depth)
{
    park(depth);
    abort();
}

[[noreturn]] OWN void ends_with_a_call(long depth)
{
    sink = depth;
    never_returns(depth);
}

/* The branch that is not expected lies in a part of its own, far away. */
OWN long mostly(long depth)
{
    if (__builtin_expect(depth == 0, 0)) {
        char room[300];
        asm volatile("" : : "r"(room) : "memory");
        return park(room[0]);
    }
    return mostly(depth - 1) + depth;
}

__attribute__((cold)) OWN long seldom(long depth)
{
    char room[100];
    asm volatile("" : : "r"(room) : "memory");
    return mostly(depth) + room[0];
}

OWN long work(long number)
{
    long kept[4] = {number, number + 1, number + 2, number + 3};
    asm volatile("" : : "r"(kept) : "memory", "rbx", "r12", "r13", "r14", "r15");
    return kept[number & 3];
}

OWN long busy(long number)
{
    char room[40];
    asm volatile("" : : "r"(room) : "memory");
    return work(number) + work(number + 1) + room[0];
}

int compare(const void *one, const void *other)
{
    return static_cast<int>(park(*static_cast<const int *>(one) - *static_cast<const int *>(other)));
}

void inside_coroutine()
{
    left(6);
}

}

void deep(long depth)
{
    left(depth);
}

void variable(long depth)
{
    take(depth);
}

void aligned(long depth)
{
    align(depth);
}

void last_call(long depth)
{
    ends_with_a_call(depth);
}

void unlikely(long depth)
{
    seldom(depth);
}

void spinning(long depth)
{
    arrived();
    for (;;)
        sink = busy(depth);
}

/* Most of the time goes by in the C library, some of it in the PLT. */
void through_plt(long depth)
{
    char text[16] = "text";
    arrived();
    for (;;) {
        sink = static_cast<long>(strnlen(text, static_cast<size_t>(depth)));
        asm volatile("" : : "r"(text) : "memory");
    }
}

void in_vdso(long)
{
    timespec now;
    arrived();
    for (;;)
        clock_gettime(CLOCK_MONOTONIC, &now);
}

/* The parent does not go on before its child has ended; that waits until the parent is killed. */
void in_vfork(long depth)
{
    sink = depth;
    arrived();
    if (vfork() == 0) {
        syscall(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL);
        for (;;)
            syscall(SYS_pause);
    }
}

void sorting(long depth)
{
    int numbers[8] = {3, 1, 2, static_cast<int>(depth)};
    qsort(numbers, 8, sizeof numbers[0], compare);
}

void coroutine(long)
{
    static ucontext_t inner, outer;
    static char stack[64 * 1024];
    getcontext(&inner);
    inner.uc_stack.ss_sp = stack;
    inner.uc_stack.ss_size = sizeof stack;
    inner.uc_link = &outer;
    makecontext(&inner, inside_coroutine, 0);
    swapcontext(&outer, &inner);
}
