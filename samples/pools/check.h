/* The layouts that readers depend on, checked by the compiler. */
#ifndef SAMPLES_CHECK_H
#define SAMPLES_CHECK_H

#include <stddef.h>

#define AT(type, field, offset) \
    _Static_assert(offsetof(type, field) == (offset), #type "." #field " at " #offset)
#define LENGTH(type, bytes) _Static_assert(sizeof(type) == (bytes), #type " is " #bytes " bytes")

#endif
