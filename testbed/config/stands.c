/* 64 threads that stand in every way: on locks in the C heap, in nanosleep, deep in a recursion, in a signal handler on
 * a stack of its own, on a coroutine's stack in the C heap, in vfork; and a secret in the C heap, in a page with a
 * lock that threads wait on. Prints `ready` and the PID of the vfork's child, and then stands. Given `novfork`, no
 * thread is in vfork; given `idle N`, there are N more threads, which do nothing. */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

static struct shared {
	pthread_mutex_t lock;
	pthread_cond_t never;
	char between[1024];
	char secret[64];
} *shared;

static pthread_barrier_t begun;
static int pipe_of_child[2];

static volatile int for_ever = 1;

static void stand(void)
{
	while (for_ever)
		pause();
}

static void *idles(void *unused)
{
	(void)unused;
	stand();
	return NULL;
}

static void *waits_for_lock(void *unused)
{
	(void)unused;
	pthread_barrier_wait(&begun);
	pthread_mutex_lock(&shared->lock);
	return NULL;
}

static void *waits_for_condition(void *unused)
{
	(void)unused;
	static pthread_mutex_t own = PTHREAD_MUTEX_INITIALIZER;
	pthread_barrier_wait(&begun);
	pthread_mutex_lock(&own);
	for (;;)
		pthread_cond_wait(&shared->never, &own);
	return NULL;
}

static void *sleeps(void *unused)
{
	(void)unused;
	pthread_barrier_wait(&begun);
	for (;;)
		nanosleep(&(struct timespec){.tv_sec = 1000}, NULL);
	return NULL;
}

static int recurse(int depth)
{
	volatile char frame[400];
	memset((char *)frame, depth, sizeof frame);
	if (depth > 0)
		return recurse(depth - 1) + frame[0];
	stand();
	return 0;
}

static void *recurses(void *unused)
{
	(void)unused;
	pthread_barrier_wait(&begun);
	recurse(2000);
	return NULL;
}

static void on_signal(int number)
{
	(void)number;
	recurse(5);
}

static void *handles(void *unused)
{
	(void)unused;
	stack_t stack = {.ss_sp = malloc(256 << 10), .ss_size = 256 << 10};
	sigaltstack(&stack, NULL);
	pthread_barrier_wait(&begun);
	raise(SIGUSR2);
	return NULL;
}

static void *switches(void *unused)
{
	(void)unused;
	ucontext_t *own = malloc(sizeof *own), *other = malloc(sizeof *other);
	getcontext(other);
	other->uc_stack.ss_sp = malloc(128 << 10);
	other->uc_stack.ss_size = 128 << 10;
	makecontext(other, stand, 0);
	pthread_barrier_wait(&begun);
	swapcontext(own, other);
	return NULL;
}

static void *forks(void *unused)
{
	(void)unused;
	pthread_barrier_wait(&begun);
	if (vfork() == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		int self = getpid();
		if (write(pipe_of_child[1], &self, sizeof self) != sizeof self)
			_exit(1);
		for (;;)
			sleep(1000);
	}
	return NULL;
}

int main(int argc, char **argv)
{
	int with_vfork = argc == 1;
	void *(*const ways[])(void *) = {waits_for_lock, waits_for_condition, sleeps, recurses, handles, switches};
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	shared = calloc(1, sizeof *shared);
	pthread_mutex_init(&shared->lock, NULL);
	pthread_cond_init(&shared->never, NULL);
	/* Put together here, so that no file holds it. */
	snprintf(shared->secret, sizeof shared->secret, "%s-%s-%s", "heap", "secret", "of-stands");
	explicit_bzero(shared->between, sizeof shared->between);
	pthread_mutex_lock(&shared->lock);
	signal(SIGUSR2, on_signal);
	struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_ONSTACK};
	sigaction(SIGUSR2, &action, NULL);
	if (pipe(pipe_of_child) != 0)
		return 1;
	pthread_barrier_init(&begun, NULL, 64);
	for (int number = 0; number < 63; number++) {
		pthread_t thread;
		void *(*way)(void *) = number == 0 && with_vfork ? forks : ways[number % 6];
		if (pthread_create(&thread, NULL, way, NULL) != 0)
			return 1;
	}
	pthread_barrier_wait(&begun);
	for (int idle = argc > 2 ? atoi(argv[2]) : 0; idle > 0; idle--) {
		pthread_t thread;
		if (pthread_create(&thread, NULL, idles, NULL) != 0)
			return 1;
	}
	int child = 0;
	if (with_vfork && read(pipe_of_child[0], &child, sizeof child) != sizeof child)
		return 1;
	usleep(300000);
	printf("ready %d\n", child);
	fflush(stdout);
	stand();
}
