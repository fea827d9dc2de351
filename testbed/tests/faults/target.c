/* A program in an odd situation, to be collected from. Prints one line when it is in it.
 *
 *   target group N       N children that share memory with it
 *   target threads N     N threads with small stacks
 *   target mappings N    N mappings of one page each
 *   target memory N      N MiB of private memory, each page touched
 *   target forks         forks children without end, each of which lives for a moment
 *   target spawns        starts threads without end, each of which lives for a moment
 *   target vfork         waits for a vfork child that does not end; prints its PID
 *   target cut FILE      maps FILE and cuts it off under the mapping
 *   target maps FILE     maps FILE as a program is mapped
 *   target guards        has pages that are guarded as a young C library guards stacks
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096ul

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static void *map(size_t length, int flags)
{
	void *memory = mmap(NULL, length, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		fail("mmap");
	return memory;
}

static void *wait_for_ever(void *unused)
{
	while (pause() != 0) {
	}
	return unused;
}

/* Children end with their parent. */
static pid_t forked(void)
{
	pid_t parent = getpid(), child = fork();
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(1);
	}
	return child;
}

static void ready(long number)
{
	printf("%ld\n", number);
	fflush(stdout);
}

static void *moment(void *unused)
{
	usleep(2000);
	return unused;
}

static void start_thread(void *(*work)(void *))
{
	pthread_t thread;
	pthread_attr_t small;
	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, 4 * PAGE);
	pthread_attr_setdetachstate(&small, PTHREAD_CREATE_DETACHED);
	/* Where threads come and go without end, now and then there are too many of them. */
	if (pthread_create(&thread, &small, work, NULL) != 0 && work == wait_for_ever)
		fail("pthread_create");
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	long count = argc > 2 ? atol(argv[2]) : 0;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	char *shared = map(16 * PAGE, MAP_SHARED);
	strcpy(shared, "shared");

	if (!strcmp(what, "group")) {
		for (long n = 0; n < count; n++)
			if (forked() == 0)
				wait_for_ever(NULL);
	} else if (!strcmp(what, "threads")) {
		for (long n = 0; n < count; n++)
			start_thread(wait_for_ever);
	} else if (!strcmp(what, "mappings")) {
		/* Neighbours differ in their protection, so that the kernel does not join them. */
		char *memory = map(count * PAGE, MAP_PRIVATE);
		for (long n = 0; n < count; n++) {
			memory[n * PAGE] = 'm';
			if (n % 2 != 0 && mprotect(memory + n * PAGE, PAGE, PROT_READ) != 0)
				fail("mprotect");
		}
	} else if (!strcmp(what, "memory")) {
		memset(map(count << 20, MAP_PRIVATE), 'x', count << 20);
	} else if (!strcmp(what, "forks")) {
		ready(0);
		for (;;) {
			if (forked() == 0) {
				usleep(2000);
				_exit(0);
			}
			usleep(200);
			while (waitpid(-1, NULL, WNOHANG) > 0) {
			}
		}
	} else if (!strcmp(what, "spawns")) {
		ready(0);
		for (;;) {
			start_thread(moment);
			usleep(200);
		}
	} else if (!strcmp(what, "vfork")) {
		if (vfork() == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			ready(getpid());
			for (;;)
				sleep(1000);
		}
	} else if (!strcmp(what, "cut")) {
		int file = open(argv[2], O_RDWR | O_CREAT, 0600);
		if (file < 0 || ftruncate(file, 8 * PAGE) != 0)
			fail(argv[2]);
		char *memory = mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
		if (memory == MAP_FAILED)
			fail("mmap");
		memset(memory, 'f', 8 * PAGE);
		if (ftruncate(file, PAGE) != 0)
			fail("ftruncate");
	} else if (!strcmp(what, "maps")) {
		int file = open(argv[2], O_RDONLY);
		if (file < 0 || mmap(NULL, PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE, file, 0) == MAP_FAILED)
			fail(argv[2]);
		close(file);
	} else if (!strcmp(what, "guards")) {
		/* MADV_GUARD_INSTALL of Linux 6.13; on an older kernel these are pages like others. */
		char *memory = map(64 * PAGE, MAP_PRIVATE);
		memset(memory, 'g', 64 * PAGE);
		madvise(memory + 16 * PAGE, 16 * PAGE, 102);
	} else {
		fprintf(stderr, "what?\n");
		return 2;
	}
	ready(0);
	wait_for_ever(NULL);
}
