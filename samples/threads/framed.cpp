#include "kinds.h"

namespace {

struct Visitor {
    virtual ~Visitor() = default;
    virtual long visit(long depth) = 0;
};

struct Descend : Visitor {
    long visit(long depth) override
    {
        long numbers[16] = {depth};
        return depth == 0 ? park(numbers[0]) : visit(depth - 1) + numbers[0];
    }
};

}

void framed(long depth)
{
    Descend descend;
    Visitor &visitor = descend;
    visitor.visit(depth);
}
