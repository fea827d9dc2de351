/* Threads that each do one thing for ever, and say beforehand what: one burns a CPU, one about a
 * third of one, the others wait: for time, a lock, a peer that says nothing, one that does not
 * answer, several descriptors at once.
 *
 * activity CLOCKS: writes a line `MONOTONIC_NS BURNS_NS THIRD_NS` into the file CLOCKS every 5 ms,
 * the CPU clocks of the two that run. Once all is in place it says in one line of JSON which thread
 * is which and what it waits for.
 *
 * cc -std=gnu11 -O2 -pthread activity.c -o activity
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/futex.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static void must(int result, const char *what) {
    if (result < 0) {
        perror(what);
        exit(1);
    }
}

static int64_t clock_ns(clockid_t clock) {
    struct timespec now;
    must(clock_gettime(clock, &now), "clock_gettime");
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static int bound(int kind, int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, kind, 0);
    must(fd, "socket");
    must(bind(fd, (void *)&address, sizeof address), "bind");
    return fd;
}

static struct sockaddr_in own_address(int fd) {
    struct sockaddr_in address;
    socklen_t length = sizeof address;
    must(getsockname(fd, (void *)&address, &length), "getsockname");
    return address;
}

static int own_port(int fd) { return ntohs(own_address(fd).sin_port); }

/* What the threads wait for; set up before they start. */
static int talking, stuck, silent_pipe[2], quiet, watched, counter, epoll, pair[2];
static struct sockaddr_in full;
static uint32_t lock_word = 2;

static volatile uint64_t burnt;

static void burns(void) {
    for (;;) burnt++;
}

/* 3 ms of CPU time, then 7 ms of sleep. */
static void third(void) {
    struct timespec rest = {0, 7000000};
    for (;;) {
        int64_t until = clock_ns(CLOCK_THREAD_CPUTIME_ID) + 3000000;
        while (clock_ns(CLOCK_THREAD_CPUTIME_ID) < until) burnt++;
        clock_nanosleep(CLOCK_MONOTONIC, 0, &rest, NULL);
    }
}

static void sleeps(void) {
    struct timespec long_time = {3000, 500000000};
    for (;;) clock_nanosleep(CLOCK_MONOTONIC, 0, &long_time, NULL);
}

static void receives(void) {
    char byte;
    for (;;) recv(talking, &byte, 1, 0);
}

static void connects(void) {
    for (;;) connect(stuck, (void *)&full, sizeof full);
}

static void polls(void) {
    struct pollfd both[2] = {{silent_pipe[0], POLLIN, 0}, {quiet, POLLIN, 0}};
    for (;;) poll(both, 2, 600000);
}

static void selects(void) {
    for (;;) {
        fd_set reading;
        FD_ZERO(&reading);
        FD_SET(pair[0], &reading);
        FD_SET(quiet, &reading);
        select(pair[1] + 1, &reading, NULL, NULL, NULL);
    }
}

static void epolls(void) {
    struct epoll_event event;
    for (;;) epoll_wait(epoll, &event, 1, -1);
}

static void locks(void) {
    for (;;) syscall(SYS_futex, &lock_word, FUTEX_WAIT, 2, NULL, NULL, 0);
}

static void odd_name(void) {
    for (;;) pause();
}

#define THREADS 10
static const struct {
    const char *name;
    void (*run)(void);
} table[THREADS] = {
    {"burns", burns},       {"third", third},     {"sleeps", sleeps},   {"receives", receives},
    {"connects", connects}, {"polls", polls},     {"selects", selects}, {"epolls", epolls},
    {"locks", locks},       {"a) R (b", odd_name},
};

static pthread_t threads[THREADS];
static atomic_int tids[THREADS];

static void *begin(void *index) {
    intptr_t number = (intptr_t)index;
    pthread_setname_np(pthread_self(), table[number].name);
    tids[number] = (int)syscall(SYS_gettid);
    table[number].run();
    return NULL;
}

int main(int argc, char **argv) {
    if (argc != 2) return 2;
    FILE *clocks = fopen(argv[1], "w");
    if (!clocks) must(-1, argv[1]);
    /* The kernel may write a core of it. */
    struct rlimit core;
    must(getrlimit(RLIMIT_CORE, &core), "getrlimit");
    core.rlim_cur = core.rlim_max;
    must(setrlimit(RLIMIT_CORE, &core), "setrlimit");

    /* A connection whose other end says nothing. */
    int listening = bound(SOCK_STREAM, 0);
    must(listen(listening, 5), "listen");
    struct sockaddr_in peer = own_address(listening);
    talking = socket(AF_INET, SOCK_STREAM, 0);
    must(connect(talking, (void *)&peer, sizeof peer), "connect");
    int answering = accept(listening, NULL, NULL);
    must(answering, "accept");

    /* A listener that takes no more connections: the kernel drops what it is asked. */
    int overfull = bound(SOCK_STREAM, 0);
    must(listen(overfull, 0), "listen");
    full = own_address(overfull);
    int filler = socket(AF_INET, SOCK_STREAM, 0);
    must(connect(filler, (void *)&full, sizeof full), "connect");
    stuck = bound(SOCK_STREAM, 0);

    must(pipe(silent_pipe), "pipe");
    quiet = bound(SOCK_DGRAM, 0);
    watched = bound(SOCK_DGRAM, 0);
    counter = eventfd(0, 0);
    must(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), "socketpair");
    epoll = epoll_create1(0);
    struct epoll_event wanted = {.events = EPOLLIN};
    must(epoll_ctl(epoll, EPOLL_CTL_ADD, counter, &wanted), "epoll_ctl");
    must(epoll_ctl(epoll, EPOLL_CTL_ADD, watched, &wanted), "epoll_ctl");

    /* Datagrams that nobody reads. */
    int flooded = bound(SOCK_DGRAM, 0);
    struct sockaddr_in target = own_address(flooded);
    char payload[500] = {0};
    for (int i = 0; i < 20; i++) {
        must(sendto(quiet, payload, sizeof payload, 0, (void *)&target, sizeof target), "sendto");
    }

    for (intptr_t i = 0; i < THREADS; i++) {
        must(-pthread_create(&threads[i], NULL, begin, (void *)i), "pthread_create");
    }
    for (int i = 0; i < THREADS; i++) {
        while (!tids[i]) usleep(1000);
    }
    usleep(200000);

    printf("{\"tids\":{");
    for (int i = 0; i < THREADS; i++) {
        printf("%s\"%s\":%d", i ? "," : "", table[i].name, tids[i]);
    }
    printf("},\"talking\":%d,\"talking_port\":%d,\"answering_port\":%d,", talking, own_port(talking),
           own_port(listening));
    printf("\"stuck\":%d,\"stuck_port\":%d,\"full_port\":%d,", stuck, own_port(stuck),
           own_port(overfull));
    printf("\"pipe\":%d,\"quiet\":%d,\"quiet_port\":%d,\"pair\":%d,", silent_pipe[0], quiet,
           own_port(quiet), pair[0]);
    printf("\"epoll\":%d,\"counter\":%d,\"watched\":%d,\"watched_port\":%d,", epoll, counter, watched,
           own_port(watched));
    printf("\"flooded_port\":%d,\"lock\":\"%p\"}\n", own_port(flooded), (void *)&lock_word);
    fflush(stdout);

    clockid_t of_burns, of_third;
    must(-pthread_getcpuclockid(threads[0], &of_burns), "pthread_getcpuclockid");
    must(-pthread_getcpuclockid(threads[1], &of_third), "pthread_getcpuclockid");
    for (;;) {
        int64_t now = clock_ns(CLOCK_MONOTONIC);
        fprintf(clocks, "%lld %lld %lld\n", (long long)now, (long long)clock_ns(of_burns),
                (long long)clock_ns(of_third));
        fflush(clocks);
        usleep(5000);
    }
}
