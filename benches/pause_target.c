/* A program that knows how long it was stopped: THREADS threads read the clock without end, MIB mebibytes of private
 * memory are touched (one eighth random, one eighth zero, the rest like text). After each line on standard input it
 * prints the longest gap that any thread saw since the last one, in microseconds. With UNTOUCHED, so many mebibytes
 * more are mapped and never touched: between those that are, in stretches of 4 MiB, until they are used up.
 *
 *   pause_target MIB THREADS [UNTOUCHED]
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static atomic_llong longest;

static long long now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000LL + time.tv_nsec / 1000;
}

/* Sleeps a little between two looks, so that more threads than cores do not wait for one another. */
static void *watch(void *unused)
{
	(void)unused;
	const struct timespec nap = {.tv_nsec = 200000};
	long long last = now();
	for (;;) {
		nanosleep(&nap, NULL);
		long long here = now();
		long long gap = here - last;
		long long known = atomic_load(&longest);
		while (gap > known && !atomic_compare_exchange_weak(&longest, &known, gap)) {
		}
		last = here;
	}
	return NULL;
}

static void fill(unsigned char *memory, size_t length)
{
	uint64_t state = 0x9e3779b97f4a7c15u;
	for (size_t page = 0; page < length; page += 4096) {
		unsigned kind = (unsigned)(page / 4096 % 8);
		if (kind == 0) {
			for (size_t at = page; at < page + 4096; at += 8) {
				state ^= state << 13;
				state ^= state >> 7;
				state ^= state << 17;
				memcpy(memory + at, &state, 8);
			}
		} else if (kind == 1) {
			memory[page] = 1;
			memory[page] = 0;
		} else {
			for (size_t at = page; at < page + 4096; at += 64)
				snprintf((char *)memory + at, 64, "Via: SIP/2.0/UDP 192.0.2.%zu:5060;branch=z9hG4bK%zx", at % 250, at);
		}
	}
}

int main(int argc, char **argv)
{
	if (argc != 3 && argc != 4) {
		fprintf(stderr, "usage: pause_target MIB THREADS [UNTOUCHED]\n");
		return 2;
	}
	/* Stretches end where huge pages do, so that none of them reaches into the next one. */
	const size_t stretch = 4 << 20;
	size_t length = strtoull(argv[1], NULL, 10) << 20;
	size_t untouched = argc == 4 ? strtoull(argv[3], NULL, 10) << 20 : 0;
	unsigned char *memory =
		mmap(NULL, length + untouched + stretch, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED) {
		perror("mmap");
		return 1;
	}
	memory += stretch - (uintptr_t)memory % stretch;
	while (length > 0) {
		size_t part = length < stretch ? length : stretch;
		fill(memory, part);
		length -= part;
		memory += part;
		if (untouched >= stretch) {
			untouched -= stretch;
			memory += stretch;
		}
	}
	for (int number = atoi(argv[2]); number > 0; number--) {
		pthread_t thread;
		if (pthread_create(&thread, NULL, watch, NULL) != 0) {
			perror("pthread_create");
			return 1;
		}
	}
	printf("ready\n");
	fflush(stdout);
	for (int byte = getchar(); byte != EOF; byte = getchar()) {
		if (byte == '\n') {
			printf("%lld\n", atomic_exchange(&longest, 0));
			fflush(stdout);
		}
	}
	return 0;
}
