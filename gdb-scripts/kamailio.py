"""Kamailio's memory pools in gdb: who holds how much, without debug symbols.

    (gdb) source kamailio.py
    (gdb) kam pools

Reads q_malloc pools (`-x qm`) of a live process or a core, x86-64. It finds
them by the exported symbols that a stripped build keeps, and the layout of a
fragment by DWARF if there is any, else by trying the known ones. It only
reads, calls nothing in the target, and every walk is bounded: a damaged pool
ends with a message that says where and why, and sets $kam_broken to 1.
f_malloc and TLSF pools are named as such and not read.
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


class Layout:
    """Where the fields of qm_frag and qm_frag_end are; offsets in bytes, None for absent ones."""

    def __init__(self, source, header, trailer, header_fields, trailer_fields):
        self.source = source
        self.header = header
        self.trailer = trailer
        self.has_owner = header_fields.get("file") is not None
        self.has_check = header_fields.get("check") is not None
        names = ["size", "link"]
        names += ["file", "func", "mname", "line"] if self.has_owner else []
        names += ["check"] if self.has_check else []
        self.unpack_header = self.reader(header_fields, names)
        self.unpack_trailer = self.reader(trailer_fields, (["check1", "check2"] if self.has_check else []) + ["size"])

    @staticmethod
    def reader(fields, names):
        """A function (buffer, offset) -> the 8-byte fields in the order of `names`."""
        places = sorted(names, key=lambda name: fields[name])
        form, end = "<", 0
        for name in places:
            form += f"{fields[name] - end}xQ"
            end = fields[name] + 8
        unpack = struct.Struct(form).unpack_from
        order = [places.index(name) for name in names]
        if order == list(range(len(order))):
            return unpack
        return lambda buffer, offset: tuple(unpack(buffer, offset)[i] for i in order)


OWNER_FIELDS = {"size": 0, "link": 8, "file": 16, "func": 24, "mname": 32, "line": 40}
CHECKED_TRAILER = {"size": 32, "check1": 0, "check2": 8}
BUILT_IN = [
    Layout("inferred", 56, 48, {**OWNER_FIELDS, "check": 48}, CHECKED_TRAILER),
    Layout("inferred", 64, 48, {**OWNER_FIELDS, "check": 48}, CHECKED_TRAILER),
    Layout("inferred", 128, 48, {**OWNER_FIELDS, "check": 120}, CHECKED_TRAILER),
    Layout("inferred", 16, 16, {"size": 0, "link": 8}, {"size": 0}),
]


def dwarf_layout():
    """The layout as the program's own debug information states it; None without."""
    try:
        frag, end = gdb.lookup_type("struct qm_frag"), gdb.lookup_type("struct qm_frag_end")
        header = {field.name: field.bitpos // 8 for field in frag.fields() if field.name}
        trailer = {field.name: field.bitpos // 8 for field in end.fields() if field.name}
        header["link"] = header["u"]
        header["size"], trailer["size"]  # pylint: disable=pointless-statement
    except (gdb.error, KeyError, TypeError):
        return None
    if "check" in header and not {"check1", "check2"} <= trailer.keys():
        del header["check"]
    return Layout("dwarf", frag.sizeof, end.sizeof, header, trailer)


# ---- pools ---------------------------------------------------------------------


class Pool:
    """One q_malloc pool: its block's counters and a bounded walk over its fragments."""

    def __init__(self, kind, block):
        self.kind = kind
        self.block = block
        data = read(block, 64)
        if data is None:
            raise Trouble(f"{kind}: the pool's block at {block:#x} is not readable (was this memory left out of the core?)")
        fields = struct.unpack_from("<7Q", data, 8)
        self.size, self.used, self.real_used, self.max_real_used, self.free_fragments, self.first, self.last = fields
        self.damage = []  # what was found wrong, in order
        self.damages = 0  # how many, beyond those kept in `damage`
        self.complete = False  # the last walk met the pool's end exactly
        if not block + 64 <= self.first < self.last < block + self.size or self.size > 1 << 46:
            raise Trouble(
                f"{kind}: the block at {block:#x} does not look like q_malloc's: size {self.size}, "
                f"first fragment {self.first:#x}, last trailer {self.last:#x}"
            )
        self.layout = dwarf_layout() or self.infer()

    def infer(self):
        """The known layout that fits most fragments at the pool's beginning; None if none does."""
        best, best_count = None, 0
        for layout in BUILT_IN:
            self.layout = layout
            count = 0
            for _ in self.walk(strict=True):
                count += 1
                if count == PROBE:
                    break
            if self.complete:
                return layout
            if count > best_count:
                best, best_count = layout, count
        return best

    def overhead(self):
        """Bytes that a fragment needs besides its payload."""
        return self.layout.header + self.layout.trailer if self.layout else 0

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


def open_pool(what):
    """The pool named "pkg" or "shm", or the one whose block is at the address `what`."""
    if what not in ("pkg", "shm"):
        return Pool("pool", evaluate(what))
    name, block = locate(what)
    if name not in ("q_malloc", "qm_malloc") and not name.startswith("<"):
        raise Trouble(f"{what}: manager {name}: not read by these scripts yet")
    pool = Pool(what, block)
    if pool.layout is None:  # damaged from its first fragment on: the other pool may tell
        other_name, other = locate("shm" if what == "pkg" else "pkg")
        if other_name == name:
            pool.layout = Pool("other", other).layout
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
                rows.append((row, self.fill(row, open_pool(kind))))
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
            "real_used": pool.first - pool.block + used[1] + (used[0] + free[0]) * pool.overhead(),
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
        out(f"  fragments      header {layout['header']}, trailer {layout['trailer']} bytes ({layout['source']})")
        out("                        block's counters         by walking")
        for label, key in (("used", "used"), ("real used", "real_used"), ("free fragments", "free_fragments")):
            out(f"  {label:<18}{counters[key]:>22}{walk[key]:>19}")
        out(f"  {'used fragments':<18}{'-':>22}{walk['used_fragments']:>19}")
        out(f"  {'free bytes':<18}{counters['size'] - counters['real_used']:>22}{walk['free']:>19}")
        out(f"  {'most real used':<18}{counters['max_real_used']:>22}{'-':>19}")
        if row["agrees"]:
            out("  the walk and the counters agree")
        elif pool.complete:
            out("  the walk and the counters DISAGREE (a live process that was in the middle of a change, or damage)")
        if row["kind"] == "pkg" and pool.complete and walk["used_fragments"] == 0:
            out("  nothing in it: this build takes private memory from the system allocator")
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
        parser.add_argument("pool", help="pkg, shm, or the address of a pool's block")
        parser.add_argument("--max", type=int, default=50, metavar="N", help="at most N fragments, 0 for all (50)")
        parser.add_argument("--skip", type=int, default=0, metavar="N", help="leave out the first N used ones (start-up)")
        parser.add_argument("--free", action="store_true", help="free fragments instead of used ones")
        parser.add_argument("--owner", metavar="TEXT", help="only those whose owner contains TEXT")

    def run(self, options):
        pool, strings = open_pool(options.pool), Strings()
        skip, shown, more = options.skip, 0, 0
        out("           header             payload       size  owner" + (" (who freed it)" if options.free else ""))
        for at, size, free, file, func, mname, line in pool.walk():
            if free != options.free:
                continue
            if skip > 0:
                skip -= 1
                continue
            text = where(strings.at(file), strings.at(func), strings.at(mname), line) if pool.layout.has_owner else "-"
            if options.owner and options.owner not in text:
                continue
            if options.max > 0 and shown == options.max:
                more += 1
                continue
            shown += 1
            out(f"{at:#17x} {at + pool.layout.header:#19x} {size:>10}  {text}")
        out(f"{pool.kind}: {shown} shown" + (f", {more} more (--max 0 shows all)" if more else ""))
        report(pool)


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
            if pool.block <= target < pool.block + pool.size:
                self.show(pool, target)
                return
        raise Trouble(f"{target:#x} is in neither pool")

    @staticmethod
    def show(pool, target):
        if target < pool.first:
            out(f"{target:#x} is in the {pool.kind} pool's own block ({pool.block:#x} to {pool.first:#x})")
            return
        before = found = None
        for fragment in pool.walk():
            if found:
                Frag.line("after ", pool, fragment)
                return
            if fragment[0] <= target < fragment[0] + fragment[1] + pool.overhead():
                found = fragment
                if before:
                    Frag.line("before", pool, before)
                Frag.line("here  ", pool, found)
                Frag.detail(pool, found, target)
            before = fragment
        if not found:
            out(f"{target:#x} lies in the {pool.kind} pool, beyond what could be walked")
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
