#include "kinds.h"

static OWN long descend(long depth)
{
	char room[64];
	__asm__ volatile("" : : "r"(room) : "memory");
	if (depth == 0)
		return park(1) + room[0];
	return descend(depth - 1) + depth;
}

void bare(long depth)
{
	descend(depth);
}
