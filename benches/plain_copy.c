/*
 * The least that a copy of a process at one moment can cost by plain means: stops all its threads, copies the
 * private pages that exist (PAGEMAP_SCAN) with process_vm_readv into memory that was touched before, and lets them go.
 * Prints the number of bytes.
 *
 *   plain_copy PID
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define PIECE (1ul << 20)
#define VECTOR 512
#define THREADS 4096

static pid_t pid, threads[THREADS];
static int stopped;
static int pagemap;

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

/* Asks every thread that was not seen before to stop, and waits for it; whether there was one. */
static int stop_new(void)
{
	char path[64];
	int found = 0;
	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	DIR *tasks = opendir(path);
	if (tasks == NULL)
		fail(path);
	int before = stopped;
	for (struct dirent *entry; (entry = readdir(tasks)) != NULL;) {
		pid_t thread = atoi(entry->d_name);
		int known = thread == 0;
		for (int n = 0; n < before; n++)
			known |= threads[n] == thread;
		if (known || stopped == THREADS || ptrace(PTRACE_SEIZE, thread, 0, 0) != 0)
			continue;
		ptrace(PTRACE_INTERRUPT, thread, 0, 0);
		threads[stopped++] = thread;
		found = 1;
	}
	closedir(tasks);
	for (int n = before; n < stopped; n++)
		waitpid(threads[n], NULL, __WALL);
	return found;
}

/* linux/fs.h of Linux 6.7 */
struct region {
	uint64_t start, end, categories;
};
struct scan {
	uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
	uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
#define PAGEMAP_SCAN _IOWR('f', 16, struct scan)
#define IS_FILE (1 << 2)
#define IS_PRESENT (1 << 3)
#define IS_SWAPPED (1 << 4)
#define IS_ZERO_PAGE (1 << 5)

/* Where the copy goes; null while the pages are only counted. */
static char *room;
static size_t length, copied;
/* What is to be read next. */
static struct iovec remote[VECTOR];
static size_t count, pending;

static void copy_pending(void)
{
	struct iovec local = {room + copied, pending};
	if (room != NULL && copied + pending > length) {
		fprintf(stderr, "the process has grown\n");
		exit(1);
	}
	if (room != NULL && pending > 0 && process_vm_readv(pid, &local, 1, remote, count, 0) != (ssize_t)pending)
		fail("process_vm_readv");
	copied += pending;
	count = 0;
	pending = 0;
}

static void copy_range(uint64_t start, uint64_t end)
{
	static struct region regions[4096];
	while (start < end) {
		/* Neither a file's pages nor the kernel's page of zeroes, which others leave behind where they have read. */
		struct scan scan = {
			.size = sizeof(scan), .start = start, .end = end, .vec = (uintptr_t)regions, .vec_len = 4096,
			.category_inverted = IS_FILE | IS_ZERO_PAGE, .category_mask = IS_FILE | IS_ZERO_PAGE,
			.category_anyof_mask = IS_PRESENT | IS_SWAPPED, .return_mask = IS_PRESENT,
		};
		int found = ioctl(pagemap, PAGEMAP_SCAN, &scan);
		if (found < 0)
			fail("PAGEMAP_SCAN");
		for (int n = 0; n < found; n++) {
			for (uint64_t at = regions[n].start, part; at < regions[n].end; at += part) {
				part = regions[n].end - at;
				if (part > PIECE - pending)
					part = PIECE - pending;
				remote[count++] = (struct iovec){(void *)at, part};
				pending += part;
				if (count == VECTOR || pending == PIECE)
					copy_pending();
			}
		}
		start = scan.walk_end;
	}
}

/* Copies, or counts, the pages of all private mappings. */
static void copy(void)
{
	char line[4400];
	snprintf(line, sizeof(line), "/proc/%d/maps", pid);
	FILE *maps = fopen(line, "r");
	if (maps == NULL)
		fail(line);
	copied = 0;
	while (fgets(line, sizeof(line), maps) != NULL) {
		unsigned long start, end;
		char access[8];
		if (sscanf(line, "%lx-%lx %7s", &start, &end, access) == 3 && access[3] == 'p' && strstr(line, "[v") == NULL)
			copy_range(start, end);
	}
	copy_pending();
	fclose(maps);
}

int main(int argc, char **argv)
{
	char path[64];
	if (argc != 2) {
		fprintf(stderr, "usage: plain_copy PID\n");
		return 2;
	}
	pid = atoi(argv[1]);
	snprintf(path, sizeof(path), "/proc/%d/pagemap", pid);
	pagemap = open(path, O_RDONLY);
	if (pagemap < 0)
		fail(path);
	/* Some room for what the process touches until it stands still. */
	copy();
	length = copied + (16 << 20);
	char *touched = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (touched == MAP_FAILED)
		fail("mmap");
	madvise(touched, length, MADV_HUGEPAGE);
	memset(touched, 1, length);
	room = touched;

	while (stop_new()) {
	}
	copy();
	for (int n = 0; n < stopped; n++)
		ptrace(PTRACE_DETACH, threads[n], 0, 0);
	printf("copied %zu bytes of %d threads\n", copied, stopped);
	return 0;
}
