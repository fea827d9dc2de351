"""Kamailio's memory pools in gdb: who holds how much, without debug symbols.

    (gdb) source kamailio.py
    (gdb) kam pools

Reads the pools of q_malloc, f_malloc and TLSF (`-x qm`, `fm`, `tlsf`; private
memory's manager may differ, `-X`) of a live process or a core, x86-64. It finds
them by the exported symbols that a stripped build keeps, and the layout of a
fragment by DWARF if there is any, else by trying the known ones. It only
reads, calls nothing in the target, and every walk is bounded: a damaged pool
ends with a message that says where and why, and sets $kam_broken to 1.
"""

import argparse
import json
import struct

import gdb

WINDOW = 256 * 1024  # bytes read at once; also how far a live walk may touch unused shared memory
PROBE = 4096  # fragments that decide which layout fits
START, END1, END2 = 0xF0F0F0F0, 0xC0C0C0C0, 0xABCDEFED
REMEDY = "give gdb the program's own file (`file /usr/sbin/kamailio`), and the process or core of that build"


class Trouble(Exception):
    """What keeps a command from answering, in words for the user."""


# ---- memory, symbols, strings ------------------------------------------------


def read(address, length):
    """`length` bytes, or None if any of them cannot be read."""
    try:
        return gdb.selected_inferior().read_memory(address, length).tobytes()
    except (gdb.MemoryError, gdb.error, OverflowError, ValueError):
        return None


def read_some(address, length):
    """As many of `length` bytes as there are before the first unreadable page; may be empty."""
    data = read(address, length)
    if data is not None:
        return data
    good, bad = 0, length
    while bad - good > 4096:
        middle = good + (bad - good) // 2
        if read(address, middle) is not None:
            good = middle
        else:
            bad = middle
    to_page_end = good + (-(address + good)) % 4096
    if good < to_page_end < bad and read(address, to_page_end) is not None:
        good = to_page_end
    return (read(address, good) or b"") if good else b""


def word(address):
    data = read(address, 8)
    return None if data is None else struct.unpack("<Q", data)[0]


def int32(address):
    data = read(address, 4)
    return None if data is None else struct.unpack("<i", data)[0]


def symbol(name):
    """Address of a global variable; a local of the same name in some frame is not meant."""
    for expression in (f"&::{name}", f"&{name}"):
        try:
            return int(gdb.parse_and_eval(f"(unsigned long){expression}"))
        except gdb.error:
            continue
    raise Trouble(f"no symbol {name}: {REMEDY}")


def evaluate(expression):
    """The number that an expression of gdb's stands for."""
    try:
        return int(gdb.parse_and_eval(f"(unsigned long)({expression})"))
    except gdb.error as error:
        raise Trouble(f"{expression}: {error}") from None


def pointed(name):
    """The pointer that the global variable `name` holds."""
    value = word(symbol(name))
    if value is None:
        raise Trouble(f"the variable {name} is not readable: {REMEDY}")
    return value


def printable(data):
    return "".join(chr(b) if 32 <= b < 127 else f"\\x{b:02x}" for b in data)


class Strings:
    """C strings by pointer, each read once."""

    def __init__(self):
        self.known = {0: "<null>"}

    def at(self, pointer):
        if pointer not in self.known:
            self.known[pointer] = self.fetch(pointer)
        return self.known[pointer]

    @staticmethod
    def fetch(pointer):
        data = b""
        while len(data) < 256 and b"\0" not in data:
            at = pointer + len(data)
            piece = read(at, min(128, 4096 - at % 4096))
            if piece is None:
                return f"<{pointer:#x} not readable>"
            data += piece
        return printable(data.split(b"\0")[0][:256])


# ---- layouts -------------------------------------------------------------------


OWNER = ("file", "func", "mname", "line")


class Layout:
    """Where the fields of a fragment are; offsets in bytes. Bound once, by field name.

    `header` is the distance from a fragment's address to its payload, `trailer` what follows
    the payload (0 for all but q_malloc), `block` the offsets and sizes that the pool's own
    block needs. `unpack_header` gives `names`, then the owner's four fields and the check
    word as far as this build has them.
    """

    def __init__(self, source, header, trailer, names, fields, narrow=(), trailer_fields=None, block=None):
        self.source = source
        self.header = header
        self.trailer = trailer
        self.block = block or {}
        self.has_owner = fields.get("file") is not None
        self.has_check = fields.get("check") is not None
        names = list(names) + list(OWNER if self.has_owner else ()) + (["check"] if self.has_check else [])
        self.unpack_header = self.reader(fields, names, narrow)
        if trailer_fields:
            self.unpack_trailer = self.reader(trailer_fields, (["check1", "check2"] if self.has_check else []) + ["size"])

    @staticmethod
    def reader(fields, names, narrow=()):
        """A function (buffer, offset) -> the fields in the order of `names`; 4 bytes each if in `narrow`, else 8."""
        places = sorted(names, key=lambda name: fields[name])
        form, end = "<", 0
        for name in places:
            form += f"{fields[name] - end}x{'I' if name in narrow else 'Q'}"
            end = fields[name] + (4 if name in narrow else 8)
        unpack = struct.Struct(form).unpack_from
        order = [places.index(name) for name in names]
        if order == list(range(len(order))):
            return unpack
        return lambda buffer, offset: tuple(unpack(buffer, offset)[i] for i in order)


def offsets(type_name):
    """(size, {field: offset}) of a type by the program's debug information; fields of an alloc_info as if its own."""
    described = gdb.lookup_type(type_name).strip_typedefs()
    found = {}
    for field in described.fields():
        if field.name:
            found[field.name] = field.bitpos // 8
        if field.name == "alloc_info":
            for inner in field.type.strip_typedefs().fields():
                found[inner.name] = (field.bitpos + inner.bitpos) // 8
    return described.sizeof, found


def qm_layout(source, header, fields, trailer, trailer_fields):
    return Layout(source, header, trailer, ("size", "link"), fields, trailer_fields=trailer_fields)


def fm_layout(source, header, fields, first, last):
    return Layout(source, header, 0, ("size", "is_free"), fields, ("is_free", "check"), block={"first": first, "last": last})


def tlsf_layout(source, structure, fields, control, counters):
    """`structure`: sizeof(block_header_t), whose last two words are payload; `control`: sizeof(control_t)."""
    block = {"structure": structure, "control": control, "counters": counters}
    return Layout(source, fields["size"] + 8, 0, ("size", "prev_phys_block"), fields, ("line",), block=block)


QM_OWNER = {"size": 0, "link": 8, "file": 16, "func": 24, "mname": 32, "line": 40}
QM_TRAILER = {"size": 32, "check1": 0, "check2": 8}
QM_LAYOUTS = [
    qm_layout("inferred", 56, {**QM_OWNER, "check": 48}, 48, QM_TRAILER),
    qm_layout("inferred", 64, {**QM_OWNER, "check": 48}, 48, QM_TRAILER),
    qm_layout("inferred", 128, {**QM_OWNER, "check": 120}, 48, QM_TRAILER),
    qm_layout("inferred", 16, {"size": 0, "link": 8}, 16, {"size": 0}),
]
FM_OWNER = {"file": 32, "func": 40, "mname": 48, "line": 56}
FM_LAYOUTS = [
    fm_layout("inferred", 72, {"size": 0, "is_free": 24, **FM_OWNER, "check": 64}, 48, 56),
    fm_layout("inferred", 80, {"size": 0, "is_free": 8, **FM_OWNER, "check": 72}, 56, 64),
    fm_layout("inferred", 48, {"size": 0, "is_free": 8, "check": 40}, 56, 64),
    fm_layout("inferred", 48, {"size": 0, "is_free": 8}, 56, 64),  # should such a build leave the check word unset
]
TLSF_OWNER = {"file": 8, "func": 16, "mname": 24, "line": 32}
TLSF_LAYOUTS = [
    tlsf_layout("inferred", 64, {"prev_phys_block": 0, **TLSF_OWNER, "size": 40}, 8440, 64),
    tlsf_layout("inferred", 32, {"prev_phys_block": 0, "size": 8}, 8408, 32),
]


def qm_dwarf():
    (header, fields), (trailer, trailer_fields) = offsets("struct qm_frag"), offsets("struct qm_frag_end")
    fields["link"] = fields["u"]
    if "check" in fields and not {"check1", "check2"} <= trailer_fields.keys():
        del fields["check"]
    return [qm_layout("dwarf", header, fields, trailer, trailer_fields)]


def fm_dwarf():
    (header, fields), (_, block) = offsets("struct fm_frag"), offsets("struct fm_block")
    found = [fm_layout("dwarf", header, fields, block["first_frag"], block["last_frag"])]
    if "file" not in fields and fields.pop("check", None) is not None:
        found.append(fm_layout("dwarf", header, fields, block["first_frag"], block["last_frag"]))
    return found


def tlsf_dwarf():
    (structure, fields), (control, block) = offsets("block_header_t"), offsets("control_t")
    return [tlsf_layout("dwarf", structure, fields, control, block["total_size"])]


# ---- pools ---------------------------------------------------------------------


class Pool:
    """One pool: its block's counters, and a bounded walk over its fragments.

    What every manager's pool has; QmPool, FmPool and TlsfPool add how theirs is laid out and walked.
    `counted` is whether free bytes and real_used add up to the size, as core.shmmem has them.
    """

    MANAGER = ""
    KNOWN = ()  # layouts to try
    counted = True

    def __init__(self, kind, block):
        self.kind = kind
        self.block = block
        self.damage = []  # what was found wrong, in order
        self.damages = 0  # how many, beyond those kept in `damage`
        self.complete = False  # the last walk met the pool's end exactly
        self.layout = None
        self.refused = "no layout is known"
        if read(block, 64) is None:
            raise Trouble(f"{kind}: the pool's block at {block:#x} is not readable (was this memory left out of the core?)")
        stated = self.dwarf()
        if stated and self.adopt(stated[0]) and len(stated) == 1:
            return
        if not self.infer(stated or self.KNOWN):
            raise Trouble(f"{kind}: the block at {block:#x} does not look like {self.MANAGER}'s: {self.refused}")

    def dwarf(self):
        """The layouts that the program's own debug information allows; empty without any."""
        try:
            return self.stated()
        except (gdb.error, KeyError, TypeError, AttributeError):
            return []

    @staticmethod
    def stated():
        return []

    def adopt(self, layout):
        """Reads the block's counters by `layout`; False, with the reason in `refused`, if they cannot be."""
        raise NotImplementedError

    def infer(self, layouts):
        """Adopts the layout that fits most fragments at the pool's beginning; False if the block fits none.

        The block may fit where no fragment does: then `layout` is None.
        """
        best, best_count, possible = None, 0, None
        for layout in layouts:
            if not self.adopt(layout):
                continue
            possible = possible or layout
            count = 0
            for _ in self.walk(strict=True):
                count += 1
                if count == PROBE and self.sure():
                    break
            if self.complete:
                return True
            if not self.sure():
                continue
            count += PROBE * self.end_mark_holds()
            if count > best_count:
                best, best_count = layout, count
        if possible is None:
            return False
        self.adopt(best or possible)
        self.layout = best
        return True

    def sure(self):
        """Whether one fragment that fits says anything; else only a whole walk does."""
        return True

    def end_mark_holds(self):
        """Whether the pool's end, found without the walk, looks as this layout wants it."""
        return False

    def overhead(self):
        """Bytes that a fragment needs besides its payload."""
        return self.layout.header + self.layout.trailer if self.layout else 0

    def extent(self, fragment):
        """Where a fragment begins and ends (half-open)."""
        return fragment[0], fragment[0] + fragment[1] + self.overhead()

    def begin(self):
        """The address behind the pool's own block."""
        return self.first

    def limit(self):
        """The address behind the pool."""
        return self.block + self.size

    def real(self, used, used_fragments, free_fragments):
        """real_used as the manager itself counts it."""
        return self.first - self.block + used + (used_fragments + free_fragments) * self.overhead()

    def bad(self, message):
        self.damages += 1
        if len(self.damage) < 20:
            self.damage.append(message)

    def walk(self, strict=False):
        """Yields (address, size, free, file, func, mname, line) in rising order.

        Stops at the first fragment after which the chain cannot be trusted, with
        `complete` False and the reason in `damage`. With `strict`, stops at the
        first doubt. A wrong check word alone is noted and the walk goes on.
        """
        raise NotImplementedError


class QmPool(Pool):
    """q_malloc: each fragment has a header and a trailer; the size is in both."""

    MANAGER = "q_malloc"
    KNOWN = QM_LAYOUTS
    stated = staticmethod(qm_dwarf)

    def adopt(self, layout):
        fields = struct.unpack("<7Q", read(self.block + 8, 56))
        self.size, self.used, self.real_used, self.max_real_used, self.free_fragments, self.first, self.last = fields
        self.refused = f"size {self.size}, first fragment {self.first:#x}, last trailer {self.last:#x}"
        self.layout = layout
        return self.block + 64 <= self.first < self.last < self.block + self.size and self.size <= 1 << 46

    def walk(self, strict=False):
        layout = self.layout
        self.damage, self.damages, self.complete = [], 0, False
        if layout is None:
            self.bad(f"{self.first:#x}: no known layout fits the first fragment")
            return
        header, trailer = layout.header, layout.trailer
        unpack_header, unpack_trailer = layout.unpack_header, layout.unpack_trailer
        checked, owned = layout.has_check, layout.has_owner
        nobody = (0, 0, 0, 0)
        end = self.last + trailer  # where the header after the last fragment would be
        at, base, window = self.first, 0, b""
        while at < end:
            offset = at - base
            if not 0 <= offset <= len(window) - header:
                base, offset = at, 0
                window = read_some(at, min(WINDOW, end - at))
                if len(window) < header:
                    self.bad(f"{at:#x}: the header is not readable; {end - at} bytes of the pool were not walked")
                    return
            fields = unpack_header(window, offset)
            size = fields[0]
            following = at + header + size + trailer
            if size == 0 or size % 8 or following > end:
                zero = " (all zero: perhaps not saved in this core)" if not any(fields) else ""
                self.bad(f"{at:#x}: impossible size {size:#x}{zero}; {end - at} bytes of the pool were not walked")
                return
            place = offset + header + size
            if place + trailer <= len(window):
                tail = unpack_trailer(window, place)
            else:
                data = read(following - trailer, trailer)
                tail = unpack_trailer(data, 0) if data else (None,) * 3
            sane = tail[-1] == size
            if checked and (tail != (END1, END2, size) or fields[-1] != START):
                sane = sane or self.header_at(following, end)
                if strict:
                    return
                self.explain(at, fields[-1], size, tail)
            elif not sane:
                self.bad(f"{at:#x}: size {size:#x} in the header, {hexed(tail[-1])} in the trailer")
            if not sane:
                self.bad(f"{at:#x}: no fragment follows at {following:#x}; {end - at} bytes of the pool were not walked")
                return
            yield (at, size, fields[1] != 0) + (tuple(fields[2:6]) if owned else nobody)
            at = following
        self.complete = at == end

    def header_at(self, address, end):
        """Whether a fragment's header, or the pool's end, is at `address`."""
        if address == end:
            return True
        data = read(address, self.layout.header)
        if data is None:
            return False
        fields = self.layout.unpack_header(data, 0)
        return fields[-1] == START and 0 < fields[0] < end - address

    def explain(self, at, check, size, tail):
        if check != START:
            self.bad(f"{at:#x}: check word {check:#x} instead of {START:#x}: header overwritten")
        if tail[0] is None:
            self.bad(f"{at:#x}: its trailer is not readable")
        elif tail != (END1, END2, size):
            self.bad(
                f"{at:#x}: trailer has {hexed(tail[0])}, {hexed(tail[1])}, size {hexed(tail[2])}: "
                f"the payload of {size} bytes was probably written past its end"
            )


class HeaderPool(Pool):
    """A pool whose fragments have a header only: a size can be judged by nothing but what follows it."""

    def doubt(self, fields, previous):
        """What is wrong with a header that follows the fragment `previous` (None for the first), or None."""
        raise NotImplementedError

    def sized(self, fields):
        """(size, free) of a fragment."""
        raise NotImplementedError

    def ends(self, at, fields):
        """Whether the pool's end mark is at `at`."""
        raise NotImplementedError

    def stop(self, at):
        return f"{max(0, self.end - at)} bytes of the pool were not walked"

    def possible(self, at, size):
        return size > 0 and size % 8 == 0 and at + self.step + size <= self.end

    def walk(self, strict=False):
        self.damage, self.damages, self.complete = [], 0, False
        layout = self.layout
        if layout is None:
            self.bad(f"{self.first:#x}: no known layout fits the first fragment")
            return
        header, unpack_header, step, end = layout.header, layout.unpack_header, self.step, self.end
        owner_end = 6 if layout.has_owner else 2
        nobody = () if layout.has_owner else (0, 0, 0, 0)
        at, base, window = self.first, 0, b""
        previous = None  # not handed out before what follows it is known to be a fragment
        while True:
            offset = at - base
            if not 0 <= offset <= len(window) - header:
                base, offset = at, 0
                window = read_some(at, min(WINDOW, end + header - at))
                if len(window) < header:
                    if previous:
                        yield previous
                    self.bad(f"{at:#x}: the header is not readable; {self.stop(at)}")
                    return
            fields = unpack_header(window, offset)
            if self.ends(at, fields):
                if previous:
                    yield previous
                self.complete = True
                return
            size, free = self.sized(fields)
            doubt = self.doubt(fields, previous)
            this = (at, size, free) + fields[2:owner_end] + nobody
            possible = self.possible(at, size)
            if doubt or not possible:
                if strict:
                    return
                if doubt and possible and self.chain_at(at + step + size, this):
                    self.bad(f"{at:#x}: {doubt}: header overwritten")
                elif at == end:
                    if previous:
                        yield previous
                    self.bad(f"{at:#x}: the mark of the pool's end is overwritten")
                    self.complete = True
                    return
                elif doubt and previous:
                    self.bad(
                        f"{previous[0]:#x}: no fragment follows at {at:#x} ({doubt}): its size {previous[1]:#x} is wrong, "
                        f"or its payload was written past its end; {self.stop(previous[0])}"
                    )
                    return
                else:
                    if previous:
                        yield previous
                    zero = " (all zero: perhaps not saved in this core)" if not any(fields) else ""
                    culprit = f", or {previous[0]:#x} before it has a wrong size or was written past its end" if previous and not layout.has_check else ""
                    self.bad(f"{at:#x}: {doubt or f'impossible size {size:#x}'}{culprit}{zero}; {self.stop(at)}")
                    return
            if previous:
                yield previous
            previous = this
            at += step + size

    def chain_at(self, address, previous):
        """Whether a chain of fragments, or the pool's end, begins at `address`: one header alone can be chance."""
        for _ in range(16):
            data = read(address, self.layout.header)
            if data is None:
                return False
            fields = self.layout.unpack_header(data, 0)
            if self.ends(address, fields):
                return True
            size, free = self.sized(fields)
            if self.doubt(fields, previous) or not self.possible(address, size):
                return False
            previous = (address, size, free)
            address += self.step + size
        return True


class FmPool(HeaderPool):
    """f_malloc: a check word in each header; a header of size 0 at the pool's end, to which the block points."""

    MANAGER = "f_malloc"
    KNOWN = FM_LAYOUTS
    stated = staticmethod(fm_dwarf)

    def adopt(self, layout):
        self.size, self.used, self.real_used, self.max_real_used, self.free_fragments = struct.unpack("<5Q", read(self.block + 8, 40))
        self.first, self.end = word(self.block + layout.block["first"]), word(self.block + layout.block["last"])
        self.refused = f"size {self.size}, first fragment {hexed(self.first)}, last {hexed(self.end)}"
        self.layout, self.step = layout, layout.header
        if self.first is None or self.end is None:
            return False
        return self.block + 64 <= self.first < self.end < self.block + self.size and self.size <= 1 << 46

    def sure(self):
        return self.layout.has_check

    def end_mark_holds(self):
        data = read(self.end, self.layout.header)
        return data is not None and self.ends(self.end, self.layout.unpack_header(data, 0))

    def real(self, used, used_fragments, free_fragments):
        return super().real(used, used_fragments, free_fragments + 1)

    def sized(self, fields):
        return fields[0], fields[1] != 0

    def doubt(self, fields, previous):
        if self.layout.has_check and fields[-1] != START:
            return f"check word {fields[-1]:#x} instead of {START:#x}"
        return None

    def ends(self, at, fields):
        return at == self.end and fields[0] == 0 and (fields[-1] == END1 or not self.layout.has_check)


class TlsfPool(HeaderPool):
    """TLSF: no check word; whether a fragment is free is in its own header and in the next one's.

    The first word of a header, prev_phys_block, belongs to the payload before it and
    counts only if that is free. The last header has size 0.
    """

    MANAGER = "tlsf_malloc"
    KNOWN = TLSF_LAYOUTS
    counted = False
    stated = staticmethod(tlsf_dwarf)

    def adopt(self, layout):
        self.layout, self.step = layout, layout.header - 8
        self.first = self.block + layout.block["control"] - 8
        data = read(self.block + layout.block["counters"], 40)
        if data is None:
            self.refused = "its counters are not readable"
            return False
        self.size, self.used, self.real_used, self.max_real_used, self.free_fragments = struct.unpack("<5Q", data)
        self.end = self.limit() - layout.header
        self.refused = f"size {self.size}, used {self.used}, real used {self.real_used}"
        return layout.block["control"] < self.size <= 1 << 46 and self.used <= self.real_used <= self.size

    def overhead(self):
        return self.step

    def extent(self, fragment):
        return fragment[0] + 8, fragment[0] + self.layout.header + fragment[1]

    def begin(self):
        return self.first + 8

    def limit(self):
        return self.block + self.size + 2 * self.step  # total_size leaves two headers out

    def real(self, used, used_fragments, free_fragments):
        block = self.layout.block if self.layout else self.KNOWN[0].block
        return block["control"] + used + used_fragments * (block["structure"] - 8)

    def sized(self, fields):
        return fields[0] & ~3, fields[0] & 1 == 1

    def doubt(self, fields, previous):
        before_free = previous is not None and previous[2]
        if (fields[0] & 2 == 2) != before_free:
            return f"size word {fields[0]:#x}, which does not say that the fragment before it is {'free' if before_free else 'used'}"
        if before_free and fields[1] != previous[0]:
            return f"prev_phys_block {fields[1]:#x} instead of {previous[0]:#x}"
        if self.layout.has_owner and fields[0] & 1 == 0:
            for name, pointer in zip(OWNER, fields[2:5]):
                if not 0 < pointer < 1 << 47:
                    return f"{name} {pointer:#x}, which is no address"
        return None

    def ends(self, at, fields):
        return at == self.end and fields[0] & ~2 == 0


MANAGERS = {"q_malloc": QmPool, "qm_malloc": QmPool, "f_malloc": FmPool, "fm_malloc": FmPool, "tlsf_malloc": TlsfPool}


def hexed(value):
    return "nothing" if value is None else f"{value:#x}"


def manager(root):
    """The memory manager's name: the root's own string, else by its function pointers."""
    pointer = word(root)
    if pointer is None:
        raise Trouble(f"{root:#x} is not readable: {REMEDY}")
    name = Strings.fetch(pointer) if pointer else "<null>"
    if not name.startswith("<"):
        return name
    function = word(root + 24)
    if function:
        text = gdb.execute(f"info symbol {function:#x}", to_string=True)
        for prefix, name_of in (("qm_", "q_malloc"), ("fm_", "f_malloc"), ("tlsf_", "tlsf_malloc")):
            if text.startswith(prefix):
                return name_of
    return name


def locate(kind):
    """(manager, block address) of the pool `kind`, "pkg" or "shm"."""
    root = symbol(f"_{kind}_root")
    name, block = manager(root), word(root + 16)
    if not block:
        raise Trouble(f"{kind}: no pool yet (the root at {root:#x} is empty)")
    return name, block


def open_any(kind, block):
    """The pool at `block` whose manager is not known: the one whose walk ends at its own end mark, else the one that gets furthest."""
    best, best_count, reasons = None, 0, []
    for pool_type in (QmPool, FmPool, TlsfPool):
        try:
            pool = pool_type(kind, block)
        except Trouble as trouble:
            reasons.append(str(trouble))
            continue
        count = sum(1 for _ in pool.walk())
        if pool.complete:
            return pool
        if count > best_count:
            best, best_count = pool, count
    if best is None:
        raise Trouble("; ".join(reasons) or f"{kind}: no known manager's fragments are in the block at {block:#x}")
    return best


def open_pool(what):
    """The pool named "pkg" or "shm", or the one whose block is at the address `what`."""
    if what not in ("pkg", "shm"):
        return open_any("pool", evaluate(what))
    name, block = locate(what)
    if name.startswith("<"):
        return open_any(what, block)
    if name not in MANAGERS:
        raise Trouble(f"{what}: manager {name}: not known to these scripts")
    pool = MANAGERS[name](what, block)
    if pool.layout is None:  # damaged from its first fragment on: the other pool may tell
        other_name, other = locate("shm" if what == "pkg" else "pkg")
        if other_name == name:
            layout = MANAGERS[name]("other", other).layout
            if layout:
                pool.adopt(layout)
    return pool


def sum_owners(pool):
    """[[module, file, function, line, fragments, bytes], ...], most bytes first; used fragments only."""
    by_pointer = {}
    for _, size, free, *owner in pool.walk():
        if free:
            continue
        owner = tuple(owner)
        if owner in by_pointer:
            entry = by_pointer[owner]
            entry[0] += 1
            entry[1] += size
        else:
            by_pointer[owner] = [1, size]
    strings, by_name = Strings(), {}
    for (file, func, mname, line), (count, size) in by_pointer.items():
        entry = by_name.setdefault((strings.at(mname), strings.at(file), strings.at(func), line), [0, 0])
        entry[0] += count
        entry[1] += size
    return sorted(([*name, *entry] for name, entry in by_name.items()), key=lambda row: (-row[5], row[:4]))


def processes():
    table, count = pointed("pt"), int32(pointed("process_count"))
    data = read(table, 148 * count) if count is not None and 0 < count < 65536 else None
    if data is None:
        raise Trouble(f"the process table at {table:#x} is not readable")
    own = int32(symbol("process_no"))
    rows = []
    for index in range(count):
        pid, _, _, status, rank = struct.unpack_from("<5i", data, 148 * index)
        description = printable(data[148 * index + 20 : 148 * index + 148].split(b"\0")[0])
        rows.append(
            {"index": index, "pid": pid, "rank": rank, "status": status, "description": description, "this": index == own}
        )
    return rows


# ---- commands --------------------------------------------------------------------


def out(text=""):
    gdb.write(text + "\n")


def out_json(value):
    out(json.dumps(value, indent=1))


def where(file, func, mname, line):
    """An owner in one string; the file's own "module: " prefix is dropped when it repeats the module."""
    prefix = mname + ": "
    return f"{mname}: {file[len(prefix):] if file.startswith(prefix) else file}: {func}({line})"


def report(pool):
    """Says in words, and in $kam_broken, how the last walk ended."""
    for line in pool.damage:
        out(f"{pool.kind}: DAMAGED {line}")
    if pool.damages > len(pool.damage):
        out(f"{pool.kind}: … {pool.damages - len(pool.damage)} more")
    if not pool.complete:
        out(f"{pool.kind}: the walk stopped before the end of the pool: the figures above are a part")
    flag(pool)


def flag(pool):
    if pool.damages or not pool.complete:
        gdb.set_convenience_variable("kam_broken", 1)


def layout_of(pool):
    if pool.layout is None:
        return {"header": None, "trailer": None, "source": "none fits"}
    return {"header": pool.layout.header, "trailer": pool.layout.trailer, "source": pool.layout.source}


class Kam(gdb.Command):
    """Kamailio's memory pools: kam pools, kam owners, kam list, kam frag, kam procs.

    Each has --help. $kam_broken is 1 after a command that met damage, else 0."""

    def __init__(self):
        super().__init__("kam", gdb.COMMAND_DATA, gdb.COMPLETE_COMMAND, True)


class Command(gdb.Command):
    """Base: parses arguments, turns trouble into a gdb error."""

    NAME = ""

    def __init__(self):
        super().__init__(f"kam {self.NAME}", gdb.COMMAND_DATA)

    def invoke(self, argument, _from_tty):
        gdb.set_convenience_variable("kam_broken", 1)  # unless this ends well
        parser = argparse.ArgumentParser(prog=f"kam {self.NAME}", description=self.__doc__)
        self.arguments(parser)
        try:
            options = parser.parse_args(gdb.string_to_argv(argument))
        except SystemExit:
            return
        if gdb.selected_inferior().pid == 0 and not gdb.selected_inferior().threads():
            raise gdb.GdbError("kam: no process and no core: attach to one (gdb -p PID) or open one (gdb PROGRAM CORE)")
        gdb.set_convenience_variable("kam_broken", 0)
        try:
            self.run(options)
        except Trouble as trouble:
            gdb.set_convenience_variable("kam_broken", 1)
            raise gdb.GdbError(f"kam: {trouble}") from None

    def arguments(self, parser):
        parser.add_argument("--json", action="store_true", help="machine-readable")

    def run(self, options):
        raise NotImplementedError


class Pools(Command):
    """The private and the shared pool: the block's counters, and the same figures by walking it."""

    NAME = "pools"

    def run(self, options):
        rows = []
        for kind in ("pkg", "shm"):
            try:
                name, block = locate(kind)
                row = {"kind": kind, "manager": name, "block": f"{block:#x}"}
                pool = open_pool(kind)
                if name not in MANAGERS:
                    row["manager"] = pool.MANAGER
                rows.append((row, self.fill(row, pool)))
            except Trouble as trouble:
                gdb.set_convenience_variable("kam_broken", 1)
                rows.append(({"kind": kind, "error": str(trouble)}, None))
        if options.json:
            out_json({"pools": [row for row, _ in rows]})
            return
        for row, pool in rows:
            if pool is None:
                out(f"{row['kind']}: {row['error']}")
            else:
                self.show(row, pool)

    @staticmethod
    def fill(row, pool):
        used = [0, 0]
        free = [0, 0]
        for _, size, is_free, *_ in pool.walk():
            entry = free if is_free else used
            entry[0] += 1
            entry[1] += size
        row["layout"] = layout_of(pool)
        row["counters"] = {
            "size": pool.size,
            "used": pool.used,
            "real_used": pool.real_used,
            "max_real_used": pool.max_real_used,
            "free_fragments": pool.free_fragments,
        }
        row["walk"] = {
            "used": used[1],
            "real_used": pool.real(used[1], used[0], free[0]),
            "free": free[1],
            "used_fragments": used[0],
            "free_fragments": free[0],
            "complete": pool.complete,
        }
        row["agrees"] = pool.complete and all(
            row["walk"][key] == row["counters"][key] for key in ("used", "real_used", "free_fragments")
        )
        row["damage"] = pool.damage
        flag(pool)
        return pool

    @staticmethod
    def show(row, pool):
        counters, walk, layout = row["counters"], row["walk"], row["layout"]
        out(f"{row['kind']}: {row['manager']} at {row['block']}, {counters['size']} bytes")
        trailer = f", trailer {layout['trailer']}" if layout["trailer"] else ""
        out(f"  fragments      header {layout['header']}{trailer} bytes ({layout['source']})")
        out("                        block's counters         by walking")
        for label, key in (("used", "used"), ("real used", "real_used"), ("free fragments", "free_fragments")):
            out(f"  {label:<18}{counters[key]:>22}{walk[key]:>19}")
        out(f"  {'used fragments':<18}{'-':>22}{walk['used_fragments']:>19}")
        out(f"  {'free bytes':<18}{counters['size'] - counters['real_used']:>22}{walk['free']:>19}")
        out(f"  {'most real used':<18}{counters['max_real_used']:>22}{'-':>19}")
        if not pool.counted:
            out("  (free bytes differ: the counter takes a used fragment's header for larger than it is)")
        if row["agrees"]:
            out("  the walk and the counters agree")
        elif pool.complete:
            out("  the walk and the counters DISAGREE (a live process that was in the middle of a change, or damage)")
        if row["kind"] == "pkg" and pool.complete and walk["used_fragments"] == 0:
            out("  unused: this build keeps private memory in the C library's heap")
        report(pool)


class Owners(Command):
    """Used fragments and bytes for each place in the source that allocated them, most bytes first."""

    NAME = "owners"

    def arguments(self, parser):
        super().arguments(parser)
        parser.add_argument("pool", help="pkg, shm, or the address of a pool's block")
        parser.add_argument("--max", type=int, default=0, metavar="N", help="only the first N (all)")

    def run(self, options):
        pool = open_pool(options.pool)
        rows = sum_owners(pool)
        fragments, size = sum(row[4] for row in rows), sum(row[5] for row in rows)
        shown = rows[: options.max] if options.max > 0 else rows
        recorded = pool.layout is not None and pool.layout.has_owner
        if options.json:
            keys = ("module", "file", "function", "line", "fragments", "bytes")
            out_json(
                {
                    "kind": pool.kind,
                    "owners_in_fragments": recorded,
                    "owners": [dict(zip(keys, row)) for row in shown] if recorded else [],
                    "fragments": fragments,
                    "bytes": size,
                    "complete": pool.complete,
                    "damage": pool.damage,
                }
            )
            flag(pool)
            return
        if not recorded:
            out("these fragments do not record their owners (built without memory debugging)")
        else:
            out(" fragments        bytes  share  owner")
            for mname, file, func, line, count, total in shown:
                out(f"{count:>10}{total:>13}{100 * total / size:>6.1f}%  {where(file, func, mname, line)}")
        out(f"{fragments:>10}{size:>13}         {pool.kind}: all used fragments, {len(rows) if recorded else 0} owners")
        report(pool)


class List(Command):
    """Fragments one by one, in the order of their addresses."""

    NAME = "list"

    def arguments(self, parser):
        super().arguments(parser)
        parser.add_argument("pool", help="pkg, shm, or the address of a pool's block")
        parser.add_argument("--max", type=int, default=50, metavar="N", help="at most N fragments, 0 for all (50)")
        parser.add_argument("--skip", type=int, default=0, metavar="N", help="leave out the first N used ones (start-up)")
        parser.add_argument("--free", action="store_true", help="free fragments instead of used ones")
        parser.add_argument("--all", action="store_true", help="used and free ones (only with --json)")
        parser.add_argument("--owner", metavar="TEXT", help="only those whose owner contains TEXT")

    def run(self, options):
        if options.all and not options.json:
            raise Trouble("kam list: --all needs --json, which says of each fragment whether it is free")
        pool, more = open_pool(options.pool), 0
        shown = []
        for fragment, owner in self.chosen(pool, options):
            if options.max > 0 and len(shown) == options.max:
                more += 1
            else:
                shown.append((fragment, owner))
        if options.json:
            rows = [self.row(pool, fragment, owner) for fragment, owner in shown]
            out_json({"kind": pool.kind, "fragments": rows, "more": more, "complete": pool.complete, "damage": pool.damage})
            flag(pool)
            return
        out("           header             payload       size  owner" + (" (who freed it)" if options.free else ""))
        for (at, size, *_), owner in shown:
            out(f"{at:#17x} {at + pool.layout.header:#19x} {size:>10}  {where(*owner) if owner else '-'}")
        out(f"{pool.kind}: {len(shown)} shown" + (f", {more} more (--max 0 shows all)" if more else ""))
        report(pool)

    @staticmethod
    def chosen(pool, options):
        """The fragments that the options ask for, each with its owner's texts or None."""
        strings, skip = Strings(), options.skip
        for fragment in pool.walk():
            _, _, free, file, func, mname, line = fragment
            if free != options.free and not options.all:
                continue
            if skip > 0:
                skip -= 1
                continue
            owner = (strings.at(file), strings.at(func), strings.at(mname), line) if pool.layout.has_owner else None
            if not options.owner or options.owner in (where(*owner) if owner else "-"):
                yield fragment, owner

    @staticmethod
    def row(pool, fragment, owner):
        at, size, free, *_ = fragment
        row = {"header": f"{at:#x}", "payload": f"{at + pool.layout.header:#x}", "size": size, "state": "free" if free else "used"}
        file, func, mname, line = owner or (None,) * 4
        return {**row, "module": mname, "file": file, "function": func, "line": line}


class Frag(Command):
    """The fragment that contains an address, with its neighbours and the beginning of its payload."""

    NAME = "frag"

    def arguments(self, parser):
        parser.add_argument("address", help="an address, or any expression of gdb's without spaces")

    def run(self, options):
        target = evaluate(options.address)
        pools = []
        for kind in ("pkg", "shm"):
            try:
                pools.append(open_pool(kind))
            except Trouble as trouble:
                out(f"{trouble}")
        for pool in pools:
            if pool.block <= target < pool.limit():
                self.show(pool, target)
                return
        raise Trouble(f"{target:#x} is in neither pool")

    @staticmethod
    def show(pool, target):
        if target < pool.begin():
            out(f"{target:#x} is in the {pool.kind} pool's own block ({pool.block:#x} to {pool.begin():#x})")
            return
        before = found = None
        for fragment in pool.walk():
            if found:
                Frag.line("after ", pool, fragment)
                return
            begin, end = pool.extent(fragment)
            if begin <= target < end:
                found = fragment
                if before:
                    Frag.line("before", pool, before)
                Frag.line("here  ", pool, found)
                Frag.detail(pool, found, target)
            before = fragment
        if not found:
            beyond = "behind its last fragment" if pool.complete else "beyond what could be walked"
            out(f"{target:#x} lies in the {pool.kind} pool, {beyond}")
        report(pool)

    @staticmethod
    def line(label, pool, fragment):
        at, size, free, file, func, mname, line = fragment
        strings = Strings()
        owner = where(strings.at(file), strings.at(func), strings.at(mname), line) if pool.layout.has_owner else "owner not recorded"
        out(f"{label} {at:#x} {'free' if free else 'used'}, {size} bytes, {'freed or split by ' if free else ''}{owner}")

    @staticmethod
    def detail(pool, fragment, target):
        at, size = fragment[0], fragment[1]
        payload = at + pool.layout.header
        if target < payload:
            part = f"in its header, at +{target - at}"
        elif target < payload + size:
            part = f"in its payload, at +{target - payload}"
        else:
            part = f"in its trailer, at +{target - payload - size}"
        out(f"       {pool.kind}, payload {payload:#x} to {payload + size:#x}; {target:#x} is {part}")
        data = read(payload, min(size, 64)) or b""
        for i in range(0, len(data), 16):
            row = data[i : i + 16]
            text = "".join(chr(b) if 32 <= b < 127 else "." for b in row)
            out(f"       {payload + i:#x}  {row.hex(' '):<47}  {text}")


class Procs(Command):
    """Kamailio's process table; any process, and any one core, knows all of them."""

    NAME = "procs"

    def run(self, options):
        rows = processes()
        if options.json:
            out_json({"processes": rows})
            return
        out("  index     pid  rank  description")
        for row in rows:
            out(f"{'*' if row['this'] else ' '} {row['index']:>5}{row['pid']:>8}{row['rank']:>6}  {row['description']}")
        out("* the process that gdb looks at")


Kam()
for command in (Pools, Owners, List, Frag, Procs):
    command()
gdb.set_convenience_variable("kam_broken", 0)
