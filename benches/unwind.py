#!/usr/bin/env python3
"""Who unwinds the threads of a big core at what cost? `forensics threads` beside eu-stack and gdb, on the core that the
kernel writes of `pause_target`. Called by run.sh; all three name functions, and must find as many threads.

Runs alternate, so that a noisy moment hits each; the ratio is of CPU time."""

import json
import os
import re
import resource
import signal
import statistics
import subprocess
import sys
import tempfile

from measure import run

GDB = ["gdb", "-nx", "-batch", "-iex", "set debuginfod enabled off"]


def dump(program, mebibytes, threads, folder):
    """The core of the program, with so many threads besides the first, as the kernel writes it."""

    def allow_cores():
        hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
        resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))

    target = subprocess.Popen(
        [program, mebibytes, str(threads)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=folder,
        preexec_fn=allow_cores,
    )
    if target.stdout.readline() != b"ready\n":
        sys.exit("the target did not start")
    target.send_signal(signal.SIGABRT)
    target.wait()
    cores = [name for name in os.listdir(folder) if name.startswith("core")]
    if not cores:
        sys.exit("no core: kernel.core_pattern must be a plain file name that begins with core")
    return os.path.join(folder, cores[0])


def main(runs, program, forensics, mebibytes, threads):
    program = os.path.abspath(program)
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as folder:
        core = dump(program, mebibytes, int(threads) - 1, folder)
        readers = {
            "forensics threads": ([forensics, "threads", core], None),
            "eu-stack": (["eu-stack", "--core", core, "-e", program], r"^TID "),
            "gdb": ([*GDB, "-ex", "thread apply all bt", program, core], r"^Thread \d+"),
        }
        measured = {name: [] for name in readers}
        for _ in range(int(runs)):
            for name, (command, mark) in readers.items():
                code, output, cpu, wall, memory = run(command)
                if mark and len(re.findall(mark, output, re.MULTILINE)) != int(threads):
                    sys.exit(f"{name} found other threads than {threads} (exit code {code})")
                measured[name].append((cpu, wall, memory))
        code, output, *_ = run([forensics, "threads", "--json", core])
        check(output, int(threads))
        size = os.path.getsize(core) / 1e9
    print(f"\nstacks of {threads} threads from a core of {size:.1f} GB, {runs} runs each, medians")
    print(f"{'':<24}{'CPU s':>9}{'wall s':>9}{'peak MB':>9}")
    medians = {}
    for name, runs_of in measured.items():
        medians[name] = [statistics.median(values) for values in zip(*runs_of)]
        cpu, wall, memory = medians[name]
        print(f"{name:<24}{cpu:>9.3f}{wall:>9.3f}{memory:>9.0f}")
    ours = medians["forensics threads"][0]
    for name in ("eu-stack", "gdb"):
        print(f"{name} takes {medians[name][0] / ours:.2f} times the CPU time of forensics threads")


def check(output, threads):
    """Every thread must have a stack up to its first function."""
    found = [thread for process in json.loads(output)["processes"] for thread in process["threads"]]
    whole = [thread for thread in found if thread["end"].startswith("the first function")]
    if (len(found), len(whole)) != (threads, threads):
        sys.exit(f"forensics: {len(found)} threads, {len(whole)} of them up to their first function")


if __name__ == "__main__":
    main(*sys.argv[1:])
