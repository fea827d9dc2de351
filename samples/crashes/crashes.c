/* Dies in one of several ways, named by its argument, so that the kernel writes a core.
 *
 * gcc -O1 -g0 -fno-inline -fcf-protection=none -pthread -o crashes crashes.c && ./crashes null-field
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct cell {
    char fill[40];
    long field; /* at 0x28 */
};

/* The compiler must not know what they hold. */
static volatile uintptr_t none = 0;
static volatile int zero = 0;
static const char constant[4096] = "constant";
static volatile long sink;

__attribute__((noinline)) static void null_field(struct cell *cell) { sink = cell->field; }

__attribute__((noinline)) static void write_constant(char *at) { *at = 'x'; }

__attribute__((noinline)) static void call(void (*function)(void)) {
    function();
    sink = 1; /* no tail call */
}

__attribute__((noinline)) static void read_word(volatile uint32_t *at) { sink = *at; }

__attribute__((noinline)) static long divide(long value) { return value / zero; }

__attribute__((noinline)) static long recurse(long depth) {
    volatile char room[512];
    room[depth % 512] = (char)depth;
    return depth < 0 ? 0 : recurse(depth + 1) + room[(depth + 1) % 512];
}

static void *recurse_in_thread(void *argument) {
    sink = recurse((long)(intptr_t)argument);
    return NULL;
}

static void overflow_in_thread(void) {
    pthread_t thread;
    pthread_create(&thread, NULL, recurse_in_thread, NULL);
    pthread_join(thread, NULL);
}

static void read_truncated(const char *path) {
    int file = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (file < 0 || ftruncate(file, 8192) != 0) exit(3);
    char *map = mmap(NULL, 8192, PROT_READ, MAP_SHARED, file, 0);
    if (map == MAP_FAILED || ftruncate(file, 4096) != 0) exit(3);
    read_word((uint32_t *)(map + 4096 + 16));
}

int main(int count, char **arguments) {
    const char *how = count > 1 ? arguments[1] : "";
    if (strcmp(how, "null-field") == 0) null_field((struct cell *)none);
    else if (strcmp(how, "write-constant") == 0) write_constant((char *)(uintptr_t)constant);
    else if (strcmp(how, "call-null") == 0) call((void (*)(void))none);
    else if (strcmp(how, "call-data") == 0) call((void (*)(void))(uintptr_t)constant);
    else if (strcmp(how, "non-canonical") == 0) read_word((uint32_t *)0xdead0000beef0000);
    else if (strcmp(how, "text") == 0) {
        uintptr_t value;
        memcpy(&value, "INVITE", 7);
        value &= 0xffffffffffff;
        read_word((uint32_t *)value);
    } else if (strcmp(how, "pattern") == 0) read_word((uint32_t *)0xc0c0c0c8);
    else if (strcmp(how, "overflow") == 0) sink = recurse(0);
    else if (strcmp(how, "overflow-thread") == 0) overflow_in_thread();
    else if (strcmp(how, "divide") == 0) sink = divide(1);
    else if (strcmp(how, "illegal") == 0) __builtin_trap();
    else if (strcmp(how, "abort") == 0) abort();
    else if (strcmp(how, "truncated") == 0) read_truncated(arguments[2]);
    else if (strcmp(how, "wait") == 0) {
        puts("ready");
        fflush(stdout);
        pause();
    }
    return 2;
}
