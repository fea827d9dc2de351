// Waits at the end of a chain of functions whose names need work: overloads, a template, inlined
// calls, a lambda, functions that nobody outside knows.
#include <cstdio>
#include <cstring>
#include <unistd.h>

namespace calls {
namespace {
__attribute__((noinline)) int wait_here(int value) {
    std::puts("ready");
    std::fflush(stdout);
    pause();
    return value;
}

__attribute__((always_inline)) inline int step(int value) {
    return wait_here(value * 3) + 1;
}
}  // namespace

template <typename Item> struct Ring {
    Item items[4];

    __attribute__((always_inline)) Item next(Item start) {
        Item sum = 0;
        for (Item &item : items) {
            sum += item;
        }
        return step(static_cast<int>(sum + start)) + sum;
    }

    __attribute__((noinline)) Item turn(Item start) {
        return next(start) * 2 + items[1];
    }
};

__attribute__((noinline)) long route(int start) {
    Ring<int> ring = {{start, start + 1, start + 2, start + 3}};
    return ring.turn(start) + 1;
}

__attribute__((noinline)) long route(const char *name, long start) {
    Ring<long> ring = {{start, start + 1, start + 2, static_cast<long>(std::strlen(name))}};
    return ring.turn(start) + route(static_cast<int>(start)) + 1;
}
}  // namespace calls

static __attribute__((noinline)) long helper(const char *name) {
    return calls::route(name, 7) - 1;
}

int main(int count, char **words) {
    auto twice = [&](int index) { return helper(words[index]) * 2; };
    return static_cast<int>(twice(0) + count);
}
