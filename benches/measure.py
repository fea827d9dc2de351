#!/usr/bin/env python3
"""Runs each reader several times on one core, checks its answer, prints a table. Called by run.sh."""

import json
import os
import statistics
import subprocess
import sys
import time


def run(command):
    """(exit code, output, CPU seconds, wall seconds, peak memory in MB) of one run."""
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    output = process.stdout.read().decode()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, output, used.ru_utime + used.ru_stime, time.monotonic() - started, used.ru_maxrss / 1024


def json_in(text):
    return json.loads(text[text.index("{") : text.rindex("}") + 1])


def sums(owners, names):
    return sorted(tuple(owner[name] for name in names) for owner in owners)


def walk_qm_agrees(text, truth):
    counters = truth["counters"]
    words = text.split("\n")[0].split()
    totals = [int(words[i]) for i in (5, 6, 8)]
    top = [tuple(map(int, line.split()[:2])) for line in text.split("\n")[1:] if line]
    largest = sorted(((o["bytes"], o["fragments"]) for o in truth["owners"]), reverse=True)[:20]
    return totals == [counters["used_fragments"], counters["used"], counters["free_fragments"]] and sorted(
        (size, count) for count, size in top
    ) == sorted(largest)


def kamailio_py_agrees(text, truth):
    names = ("module", "file", "function", "line", "fragments", "bytes")
    return sums(json_in(text)["owners"], names) == sums(truth["owners"], names)


def forensics_agrees(text, truth):
    pool = next(pool for pool in json_in(text)["pools"] if pool["kind"] == "shm")
    names = ("function", "line", "fragments", "bytes")
    return sums(pool["owners"], names) == sums(truth["owners"], names)


def leaks_agree(text, truth):
    names = ("module", "function", "line", "fragments", "bytes")
    found = json_in(text)
    lost = [*names, "heads"]
    return sums(found["unreachable"], lost) == sums(truth["unreachable"], lost) and sums(
        found["on_stacks"], names
    ) == sums(truth["on_stacks"], names)


def main(runs, truth_path, core, module, walk_qm, read_all, forensics, script):
    with open(truth_path, encoding="utf-8") as file:
        truth = json.load(file)["pools"][0]
    block = truth["block"]
    gdb = ["gdb", "-nx", "-q", "-batch", "-iex", "set debuginfod enabled off", "-ex", f"source {script}"]
    readers = [
        ("C, words summed", [read_all, core], lambda text, truth: text.strip().isdigit()),
        ("C, core mapped", [walk_qm, core, block], walk_qm_agrees),
        ("C, core read in pieces", [walk_qm, core, block, "read"], walk_qm_agrees),
        ("forensics heap", [forensics, "heap", core, "--module", module, "--pool", "shm", "--json"], forensics_agrees),
        ("forensics leaks", [forensics, "leaks", core, "--module", module, "--json"], leaks_agree),
        ("gdb, kamailio.py", [*gdb, "-ex", "kam owners shm --json", module, core], kamailio_py_agrees),
    ]
    with open(core, "rb") as file:  # every reader finds the core in the page cache
        while file.read(1 << 24):
            pass
    counters = truth["counters"]
    print(f"{counters['used_fragments'] + counters['free_fragments']} fragments, core of {os.path.getsize(core) / 1e9:.2f} GB, "
          f"{runs} runs, warm cache, {os.cpu_count()} cores")
    print(f"{'':<24}{'CPU s, least':>13}{'median':>9}{'wall s, median':>16}{'peak MB':>9}  answer")
    wrong, least = 0, {}
    for name, command, agrees in readers:
        results = [run(command) for _ in range(int(runs))]
        # 1 is a reader's word for a pool that is nearly full.
        right = all(code in (0, 1) and agrees(text, truth) for code, text, *_ in results)
        wrong += not right
        least[name] = min(r[2] for r in results)
        cpu, wall = [r[2] for r in results], [r[3] for r in results]
        print(f"{name:<24}{min(cpu):>13.3f}{statistics.median(cpu):>9.3f}{statistics.median(wall):>16.3f}"
              f"{max(r[4] for r in results):>9.0f}  {'as known' if right else 'WRONG'}")
    for name, yardstick in (
        ("forensics heap", "C, core mapped"),
        ("forensics heap", "C, words summed"),
        ("forensics leaks", "C, words summed"),
        ("gdb, kamailio.py", "forensics heap"),
    ):
        print(f"{name} takes {least[name] / least[yardstick]:.2f} times the CPU of {yardstick} (least of each)")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
