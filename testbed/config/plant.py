"""Plants a plan's fragments into the live process that gdb is attached to.

Runs in gdb after kamailio.py, whose functions it calls. `plan_path` names the plan (JSON); the
answer is printed as JSON behind a mark. Allocations go through the process's own allocator, the
zero-filling function of `_pkg_root` and `_shm_root`. Their owners are texts of the program's own,
the pointers of fragments that it allocated itself, with a line that no source has.
"""

MARK = "@@@@"
ROOTS = {"pkg": "_pkg_root", "shm": "_shm_root"}
ROOM = b"ROOM_FOR_POINTERS="


def call(function, *arguments):
    """What a function of the process returns; all in whole registers."""
    types = ",".join(["long"] * len(arguments))
    values = ",".join(str(argument) for argument in arguments)
    return evaluate(f"((long(*)({types})){function})({values})")


def used_fragments(kind):
    """{payload: (header, size, file, func, mname)} of a pool."""
    pool = open_pool(kind)
    found = {}
    for at, size, free, file, func, mname, _ in pool.walk():
        if not free:
            found[at + pool.layout.header] = (at, size, file, func, mname)
    if not pool.complete:
        raise Trouble(f"{kind}: the walk did not meet the pool's end")
    return found


def owners():
    """Pointers of the owners that there are, in the order of their texts."""
    strings, found = Strings(), {}
    for kind in ROOTS:
        for _, _, *pointers in used_fragments(kind).values():
            texts = tuple(strings.at(pointer) for pointer in pointers)
            if all(text and text[0] not in "<\\" for text in texts):
                found[texts] = pointers
    return sorted(found.items())


def allocate(wanted, known):
    """The address of a new fragment: mname 0, mem_block 16, xmallocxz 32 in both roots."""
    root = symbol(ROOTS[wanted["pool"]])
    _, (file, func, mname) = known[wanted["owner"] % len(known)]
    zeroed = word(root + 32)
    return call(f"{zeroed:#x}", word(root + 16), wanted["size"], file, func, wanted["line"], mname)


def chunk(size):
    """A chunk of the C library's heap. The loader has a `malloc` too, but none of these."""
    at = call("aligned_alloc", 16, size)
    gdb.selected_inferior().write_memory(at, bytes(size))
    return at


def in_environment():
    """An aligned word of the text behind ROOM in the process's environment, at its stack's end."""
    with open(f"/proc/{gdb.selected_inferior().pid}/stat") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    start, end = int(fields[47]), int(fields[48])  # env_start, env_end
    at = read(start, end - start).index(ROOM) + start + len(ROOM)
    return (at + 7) & ~7


def in_thread(value):
    """Where the C library keeps a thread's value for a key, which this sets."""
    key = chunk(16)
    call("pthread_key_create", key, 0)
    call("pthread_setspecific", int32(key), value)
    thread = evaluate("$fs_base")
    at = read(thread, 4096).find(struct.pack("<Q", value))
    if at < 0:
        raise Trouble("the value is not in the thread's own structure")
    return thread + at


def place(at, fragments, chunks):
    """The address of a word that the plan names."""
    base = {
        "fragment": lambda: fragments[at["index"]],
        "chunk": lambda: chunks[at["index"]],
        "symbol": lambda: symbol(at["name"]),
        "address": lambda: at["address"],
        "environment": in_environment,
    }
    return base[at["in"]]() + at.get("offset", 0)


def plant(plan):
    known = owners()
    fragments = [allocate(wanted, known) for wanted in plan["fragments"]]
    chunks = [chunk(size) for size in plan["chunks"]]
    pools = {kind: used_fragments(kind) for kind in ROOTS}
    rows = []
    for wanted, at in zip(plan["fragments"], fragments):
        header, size, *_ = pools[wanted["pool"]][at]
        mname_file = known[wanted["owner"] % len(known)][0]
        file, function, module = mname_file
        row = {"payload": at, "header": header, "bytes": size, "module": module, "file": file, "function": function}
        rows.append(row)
    words = []
    for link in plan["words"]:
        into = link["into"]
        last = rows[into]["bytes"] - 1
        value = fragments[into] + (last if link["plus"] is None else link["plus"])
        if link["at"]["in"] == "thread":
            at = in_thread(value)
        else:
            at = place(link["at"], fragments, chunks)
            gdb.selected_inferior().write_memory(at, struct.pack("<Q", value))
        words.append({"at": at, "value": value})
    for write in plan["writes"]:
        of = write["address_of"]
        data = bytes(write["bytes"]) if of is None else struct.pack("<Q", place(of, fragments, chunks))
        gdb.selected_inferior().write_memory(place(write["at"], fragments, chunks), data)
    return {"fragments": rows, "words": words}


with open(plan_path) as file:
    planted = plant(json.load(file))
print(f"\n{MARK}\n{json.dumps(planted)}\n{MARK}")
