#include "kinds.h"

#include <condition_variable>
#include <exception>
#include <functional>
#include <map>
#include <mutex>
#include <poll.h>
#include <stdexcept>
#include <string>
#include <time.h>
#include <unistd.h>

namespace {

struct Shape {
    virtual ~Shape() = default;
    virtual long area(long) const = 0;
};

struct Square : Shape {
    OWN long area(long side) const override { return park(side * side); }
};

struct Guard {
    long number;
    ~Guard() { park(number); }
};

OWN long thrower(long depth)
{
    if (depth == 0)
        throw std::runtime_error("thrown on purpose");
    return thrower(depth - 1) + depth;
}

OWN long guarded(long depth)
{
    Guard guard{depth};
    return thrower(depth) + guard.number;
}

OWN long unguarded(long depth) noexcept
{
    return thrower(depth) + 1;
}

[[noreturn]] void on_terminate()
{
    for (;;)
        park(1);
}

}

void condition(long)
{
    std::mutex mutex;
    std::condition_variable changed;
    std::unique_lock<std::mutex> lock(mutex);
    arrived();
    for (;;)
        changed.wait(lock);
}

void locked(long)
{
    std::mutex mutex;
    mutex.lock();
    arrived();
    mutex.lock();
}

void polling(long)
{
    arrived();
    for (;;)
        poll(nullptr, 0, -1);
}

void sleeping(long)
{
    arrived();
    for (;;) {
        timespec time = {1000, 0};
        nanosleep(&time, nullptr);
    }
}

void reading(long)
{
    int ends[2];
    char byte;
    if (pipe(ends) == 0) {
        arrived();
        while (read(ends[0], &byte, 1) != 0) {
        }
    }
}

void callback(long depth)
{
    Square square;
    const Shape &shape = square;
    std::map<std::string, std::function<long(long)>> table;
    table["area"] = [&shape, depth](long side) { return shape.area(side) + depth; };
    table["twice"] = [&table](long side) { return table.at("area")(side) * 2; };
    table.at("twice")(depth);
}

void catching(long depth)
{
    try {
        thrower(depth);
    } catch (const std::exception &error) {
        park(static_cast<long>(error.what()[0]));
    }
}

void cleaning_up(long depth)
{
    try {
        guarded(depth);
    } catch (const std::exception &) {
    }
}

void terminating(long depth)
{
    std::set_terminate(on_terminate);
    unguarded(depth);
}
