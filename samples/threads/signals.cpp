#include "kinds.h"

#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace {

volatile long sink;

OWN long inside_handler(long number)
{
    char room[100];
    asm volatile("" : : "r"(room) : "memory");
    return park(number) + room[0];
}

void stay(int signal, siginfo_t *, void *)
{
    inside_handler(signal);
}

void raise_another(int, siginfo_t *, void *)
{
    raise(SIGUSR2);
    sink = 1;
}

void handle(int signal, void (*handler)(int, siginfo_t *, void *), int flags)
{
    struct sigaction action = {};
    action.sa_sigaction = handler;
    action.sa_flags = SA_SIGINFO | flags;
    sigaction(signal, &action, nullptr);
}

void use_own_stack()
{
    stack_t stack = {};
    stack.ss_size = 64 * 1024;
    stack.ss_sp = malloc(stack.ss_size);
    sigaltstack(&stack, nullptr);
}

OWN long interrupt(long depth, int signal)
{
    char room[60];
    asm volatile("" : : "r"(room) : "memory");
    if (depth > 0)
        return interrupt(depth - 1, signal) + room[0];
    return raise(signal) + room[1];
}

OWN long call(long depth, long (*function)(long))
{
    char room[60];
    asm volatile("" : : "r"(room) : "memory");
    if (depth > 0)
        return call(depth - 1, function) + room[0];
    return function(depth) + room[1];
}

OWN long without_end(long depth)
{
    char room[1000];
    asm volatile("" : : "r"(room) : "memory");
    return depth < 0 ? room[0] : without_end(depth + 1) + room[1];
}

/* `struct sigaction` of the kernel. */
struct KernelAction {
    void (*handler)(int, siginfo_t *, void *);
    unsigned long flags;
    void (*restorer)();
    unsigned long mask;
};

const unsigned long HAS_RESTORER = 0x04000000;

}

void handler(long depth)
{
    handle(SIGUSR1, stay, 0);
    interrupt(depth, SIGUSR1);
}

void handler_on_own_stack(long depth)
{
    use_own_stack();
    handle(SIGURG, stay, SA_ONSTACK);
    interrupt(depth, SIGURG);
}

void nested_handlers(long depth)
{
    use_own_stack();
    handle(SIGUSR2, stay, SA_ONSTACK);
    handle(SIGHUP, raise_another, 0);
    interrupt(depth, SIGHUP);
}

void own_trampoline(long depth)
{
    KernelAction action = {stay, SA_SIGINFO | HAS_RESTORER, __restore_rt, 0};
    syscall(SYS_rt_sigaction, SIGWINCH, &action, nullptr, 8);
    interrupt(depth, SIGWINCH);
}

void null_call(long depth)
{
    long (*volatile function)(long) = nullptr;
    use_own_stack();
    handle(SIGSEGV, stay, SA_ONSTACK | SA_NODEFER);
    call(depth, function);
}

void wild_call(long depth)
{
    void *memory = malloc(64);
    memset(memory, 0xcc, 64);
    long (*volatile function)(long) = reinterpret_cast<long (*)(long)>(memory);
    use_own_stack();
    handle(SIGSEGV, stay, SA_ONSTACK | SA_NODEFER);
    call(depth, function);
}

void overflow(long depth)
{
    use_own_stack();
    handle(SIGSEGV, stay, SA_ONSTACK | SA_NODEFER);
    without_end(depth);
}
