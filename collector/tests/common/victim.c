/* A process group to collect from. `victim threads N`: N threads besides the first.
 * `victim group N`: N children that share the pool, and one more for each SIGUSR1. `victim vfork`: a parent that waits in vfork.
 * `victim leaderless`: its first thread has ended. `victim exec`: a child that became another program. `victim noise N`: N MiB that do
 * not compress. Each prints one line when it is ready: private=ADDRESS shared=ADDRESS child=PID. */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#define POOL (64ul << 20)

static void *wait_for_ever(void *unused)
{
	(void)unused;
	for (;;)
		pause();
}

static void ready(void *private, void *shared, int child)
{
	printf("private=%p shared=%p child=%d\n", private, shared, child);
	fflush(stdout);
}

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

static void fork_once_more(int unused)
{
	(void)unused;
	if (forked() == 0)
		wait_for_ever(NULL);
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "threads";
	int count = argc > 2 ? atoi(argv[2]) : 0;
	prctl(PR_SET_PDEATHSIG, SIGKILL);

	char *shared = mmap(NULL, POOL, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	char *private = mmap(NULL, POOL, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	madvise(private, POOL, MADV_NOHUGEPAGE);
	/* Three pages exist in each: the first, one in the middle, the last. */
	unsigned long at[] = {0, POOL / 2, POOL - 4096};
	for (int n = 0; n < 3; n++) {
		memset(shared + at[n], 'a' + n, 4096);
		memset(private + at[n], 'A' + n, 4096);
	}
	/* A page that was read only is the kernel's zero page. */
	volatile char seen = private[8192];
	(void)seen;

	if (!strcmp(what, "threads")) {
		for (int n = 0; n < count; n++) {
			pthread_t thread;
			pthread_create(&thread, NULL, wait_for_ever, NULL);
		}
		ready(private, shared, 0);
	} else if (!strcmp(what, "noise")) {
		unsigned long *word = (unsigned long *)(private + (8ul << 20)), random = 88172645463325252ul;
		for (long n = 0; n < (long)count << 17; n++) {
			random ^= random << 13;
			random ^= random >> 7;
			random ^= random << 17;
			word[n] = random;
		}
		ready(private, shared, 0);
	} else if (!strcmp(what, "leaderless")) {
		/* The first thread ends, another one runs on. */
		pthread_t thread;
		pthread_create(&thread, NULL, wait_for_ever, NULL);
		ready(private, shared, 0);
		pthread_exit(NULL);
	} else if (!strcmp(what, "group")) {
		for (int n = 0; n < count; n++)
			if (forked() == 0)
				wait_for_ever(NULL);
		signal(SIGUSR1, fork_once_more);
		ready(private, shared, 0);
	} else if (!strcmp(what, "exec")) {
		pid_t child = forked();
		if (child == 0) {
			execl("/bin/sleep", "sleep", "1000", (char *)NULL);
			_exit(1);
		}
		usleep(200000);
		ready(private, shared, child);
	} else if (!strcmp(what, "vfork")) {
		pid_t child = vfork();
		if (child == 0) {
			ready(private, shared, getpid());
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			for (;;)
				sleep(1000);
		}
	} else if (!strcmp(what, "trace")) {
		/* `victim trace PID`: holds it with ptrace as a debugger does. */
		extern long ptrace(int, ...);
		if (ptrace(0x4206 /* PTRACE_SEIZE */, count, 0, 0) != 0)
			return 1;
		ready(private, shared, 0);
	}
	wait_for_ever(NULL);
}
