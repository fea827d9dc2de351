#!/usr/bin/env python3
"""Compares what the scripts say with what is known; prints nothing and exits 0 if all is equal.

compare.py truth pools  TRUTH JSON PID      kam pools  against a sample's truth
compare.py truth owners TRUTH JSON PID KIND kam owners against a sample's truth
compare.py truth procs  TRUTH JSON
compare.py truth classic TRUTH TEXT PID KIND   qm-owners.gdb's lines
compare.py kamailio shm  JSON RPC           kam pools  against core.shmmem
compare.py kamailio pkg  JSON RPC PID       kam pools  against pkg.stats
compare.py kamailio owners JSON RPC         kam owners shm against mod.stats all shm
compare.py kamailio blocks JSON JSON JSON SHM PKG  kam pools, owners shm, owners pkg against the blocks' counters
compare.py kamailio procs JSON RPC          against core.psx
"""

import json
import re
import sys


def load(path):
    with open(path, encoding="utf-8", errors="replace") as file:
        text = file.read()
    return json.loads(text[text.index("{") : text.rindex("}") + 1])


def text_of(path):
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def expect(what, got, wanted):
    if got != wanted:
        sys.exit(f"{what}: got {got}, expected {wanted}")


def known(truth, pid, kind):
    return next(p for p in truth["pools"] if p["kind"] == kind and (kind == "shm" or p["pid"] == int(pid)))


def key(owner):
    return tuple(owner[k] for k in ("module", "file", "function", "line", "fragments", "bytes"))


def truth_pools(truth, answer, pid):
    truth, rows = load(truth), {row["kind"]: row for row in load(answer)["pools"]}
    for kind in ("pkg", "shm"):
        row, wanted = rows[kind], known(truth, pid, kind)["counters"]
        expect(f"{kind} layout", (row["layout"]["header"], row["layout"]["trailer"]), (truth["header_bytes"], truth["trailer_bytes"]))
        expect(f"{kind} agrees, damage", (row["agrees"], row["damage"]), (True, []))
        expect(f"{kind} size", row["counters"]["size"], wanted["size"])
        for field in ("used", "real_used", "free_fragments"):
            expect(f"{kind} {field}", (row["counters"][field], row["walk"][field]), (wanted[field], wanted[field]))
        expect(f"{kind} used fragments", row["walk"]["used_fragments"], wanted["used_fragments"])


def truth_owners(truth, answer, pid, kind):
    truth, answer = load(truth), load(answer)
    wanted = known(truth, pid, kind)
    expect("complete, damage", (answer["complete"], answer["damage"]), (True, []))
    expect("used fragments", answer["fragments"], wanted["counters"]["used_fragments"])
    expect("bytes", answer["bytes"], wanted["counters"]["used"])
    expect("recorded", answer["owners_in_fragments"], truth["owners_in_fragments"])
    owners = sorted(map(key, wanted["owners"])) if truth["owners_in_fragments"] else []
    expect("owners", sorted(map(key, answer["owners"])), owners)


def truth_procs(truth, answer):
    wanted = [(p["pid"], p["role"]) for p in load(truth)["pools"] if p["kind"] == "pkg"]
    expect("processes", [(p["pid"], p["description"]) for p in load(answer)["processes"]], wanted)


def truth_classic(truth, answer, pid, kind):
    sums = {}
    text = text_of(answer)
    for size, file, function, line, module in re.findall(r'^used (\d+) "(.*)" "(.*)" (\d+) "(.*)"$', text, re.M):
        entry = sums.setdefault((module, file, function, int(line)), [0, 0])
        entry[0] += 1
        entry[1] += int(size)
    wanted = known(load(truth), pid, kind)
    expect("owners", sorted((*k, *v) for k, v in sums.items()), sorted(map(key, wanted["owners"])))
    counters = wanted["counters"]
    total = f"total {counters['used_fragments']} used fragments, {counters['used']} bytes, {counters['free_fragments']} free fragments"
    expect("total line", total in text, True)
    expect("damage line", "DAMAGED" in text, False)


def rpc_records(path, first):
    """The `name: value` lines of kamcmd's answer, one dictionary a record that begins with `first`."""
    records = []
    for name, value in re.findall(r"^\s*(\w+): (.*)$", text_of(path), re.M):
        if name == first:
            records.append({})
        records[-1][name] = value
    return records


def kamailio_shm(answer, rpc):
    row = next(row for row in load(answer)["pools"] if row["kind"] == "shm")
    record = rpc_records(rpc, "total")[0]
    walk = row["walk"]
    expect("agrees", row["agrees"], True)
    # TLSF's figure is the difference of two counters, not the payload of the free fragments.
    free = row["counters"]["size"] - walk["real_used"] if row["manager"] == "tlsf_malloc" else walk["free"]
    expect(
        "core.shmmem",
        {"total": row["counters"]["size"], "free": free, "used": walk["used"], "real_used": walk["real_used"],
         "max_used": row["counters"]["max_real_used"], "fragments": walk["free_fragments"]},
        {name: int(record[name]) for name in ("total", "free", "used", "real_used", "max_used", "fragments")},
    )


def kamailio_pkg(answer, rpc, pid):
    row = next(row for row in load(answer)["pools"] if row["kind"] == "pkg")
    record = next(r for r in rpc_records(rpc, "entry") if r["pid"] == pid)
    walk = row["walk"]
    expect("agrees", row["agrees"], True)
    expect(
        f"pkg.stats of {pid}, {record['desc']}",
        {"used": walk["used"], "free": walk["free"], "real_used": walk["real_used"],
         "total_size": row["counters"]["size"], "total_frags": walk["free_fragments"]},
        {name: int(record[name]) for name in ("used", "free", "real_used", "total_size", "total_frags")},
    )


def kamailio_blocks(answer, shm, pkg, shm_manager, pkg_manager):
    rows = {row["kind"]: row for row in load(answer)["pools"]}
    for kind, owners, manager in (("shm", load(shm), shm_manager), ("pkg", load(pkg), pkg_manager)):
        row = rows[kind]
        expect(f"{kind} manager, agrees, damage", (row["manager"], row["agrees"], row["damage"]), (manager, True, []))
        for field in ("used", "real_used", "free_fragments"):
            expect(f"{kind} {field}", row["walk"][field], row["counters"][field])
        expect(f"{kind} many fragments", row["walk"]["used_fragments"] > 500, True)
        expect(f"{kind} owners: fragments", owners["fragments"], row["walk"]["used_fragments"])
        expect(f"{kind} owners: bytes", owners["bytes"], row["counters"]["used"])
        unnamed = [owner for owner in owners["owners"] if "<" in owner["file"] + owner["function"] + owner["module"]]
        expect(f"{kind} owners without a name", unnamed, [])


def kamailio_owners(answer, rpc):
    sums, wanted, module = {}, {}, None
    for owner in load(answer)["owners"]:
        place = (owner["module"], owner["function"], owner["line"])
        sums[place] = sums.get(place, 0) + owner["bytes"]
    for line in text_of(rpc).splitlines():
        if match := re.match(r"Module: (\S+)", line):
            module = match[1]
        elif match := re.match(r"\s+(\S+)\((\d+)\): (\d+)$", line):
            wanted[(module, match[1], int(match[2]))] = int(match[3])
    expect("mod.stats is not empty", len(wanted) > 20, True)
    expect("mod.stats all shm", sorted(sums.items()), sorted(wanted.items()))


def kamailio_procs(answer, rpc):
    wanted = [(int(r["PID"]), r["DSC"]) for r in rpc_records(rpc, "IDX")]
    expect("core.psx", [(p["pid"], p["description"]) for p in load(answer)["processes"]], wanted)


if __name__ == "__main__":
    globals()[f"{sys.argv[1]}_{sys.argv[2]}"](*sys.argv[3:])
