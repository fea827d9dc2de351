/* Four threads with arenas of their own, the largest in several reservations. Each line says where
 * a thread, by its ID, has an address: "heap ADDRESS" or "stack TID ADDRESS"; then "ready". */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { THREADS = 4, SHOWN = 500 };

static pthread_barrier_t done;

static void take(int count)
{
    for (int i = 0; i < count; i++) {
        char *block = malloc(3000);

        if (block == NULL)
            exit(2);
        memset(block, 1, 3000);
        if (i % SHOWN == 0)
            printf("heap %p\n", (void *)block);
    }
    printf("stack %d %p\n", (int)gettid(), (void *)&count);
}

static void *work(void *count)
{
    take(*(int *)count);
    pthread_barrier_wait(&done);
    pause();
    return NULL;
}

int main(void)
{
    static int counts[THREADS] = {1, 1000, 10000, 25000};
    pthread_t threads[THREADS];

    alarm(120); /* never outlives its test for long */
    pthread_barrier_init(&done, NULL, THREADS + 1);
    for (int i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], NULL, work, &counts[i]) != 0)
            return 2;
    take(2000);
    pthread_barrier_wait(&done);
    puts("ready");
    fflush(stdout);
    pause();
    return 0;
}
