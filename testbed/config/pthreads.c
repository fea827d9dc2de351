// Threads that sleep with futexes, for tests of `forensics locks`. The first argument says how; the
// program prints "ready" once all of them sleep, give or take the time of a context switch.
#define _GNU_SOURCE
#include <linux/futex.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static pthread_mutex_t mutexes[2];
static pthread_barrier_t met;

static void *cross(void *arg)
{
	const long first = (long)arg;
	pthread_setname_np(pthread_self(), first ? "second" : "first");
	pthread_mutex_lock(&mutexes[first]);
	pthread_barrier_wait(&met);
	pthread_mutex_lock(&mutexes[!first]);
	return NULL;
}

static void *take_and_end(void *arg)
{
	(void)arg;
	pthread_mutex_lock(&mutexes[0]);
	return NULL;
}

static pthread_mutex_t plain = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
static sem_t semaphore;
static pthread_barrier_t barrier;
static unsigned word = 2;

static _Noreturn void *wait_condition(void *arg)
{
	(void)arg;
	pthread_mutex_lock(&plain);
	for (;;)
		pthread_cond_wait(&condition, &plain);
}

static void *wait_semaphore(void *arg)
{
	(void)arg;
	sem_wait(&semaphore);
	return NULL;
}

static void *wait_barrier(void *arg)
{
	(void)arg;
	pthread_barrier_wait(&barrier);
	return NULL;
}

// As the standard libraries of C++ and Rust and GLib sleep for anything.
static _Noreturn void *wait_word(void *arg)
{
	(void)arg;
	for (;;)
		syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 2, NULL, NULL, 0);
}

static void *wait_thread(void *arg)
{
	pthread_join(*(pthread_t *)arg, NULL);
	return NULL;
}

static pthread_t start(void *(*function)(void *), void *arg)
{
	pthread_t thread;
	pthread_create(&thread, NULL, function, arg);
	return thread;
}

int main(int argc, char **argv)
{
	const char *how = argc > 1 ? argv[1] : "";
	pthread_mutexattr_t kind;
	pthread_mutexattr_init(&kind);
	if (strcmp(how, "recursive") == 0)
		pthread_mutexattr_settype(&kind, PTHREAD_MUTEX_RECURSIVE);
	if (strcmp(how, "robust") == 0)
		pthread_mutexattr_setrobust(&kind, PTHREAD_MUTEX_ROBUST);
	if (strcmp(how, "inheriting") == 0)
		pthread_mutexattr_setprotocol(&kind, PTHREAD_PRIO_INHERIT);
	pthread_mutex_init(&mutexes[0], &kind);
	pthread_mutex_init(&mutexes[1], NULL);
	if (strcmp(how, "none") == 0) {
		static pthread_t waited_for;
		sem_init(&semaphore, 0, 0);
		pthread_barrier_init(&barrier, NULL, 2);
		start(wait_condition, NULL);
		waited_for = start(wait_semaphore, NULL);
		start(wait_semaphore, NULL);
		start(wait_barrier, NULL);
		start(wait_word, NULL);
		start(wait_thread, &waited_for);
	} else if (strcmp(how, "ended") == 0) {
		pthread_join(start(take_and_end, NULL), NULL);
		start(take_and_end, NULL);
	} else {
		pthread_barrier_init(&met, NULL, 2);
		start(cross, (void *)0);
		start(cross, (void *)1);
	}
	usleep(100000);
	puts("ready");
	fflush(stdout);
	for (;;)
		pause();
}
