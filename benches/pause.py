#!/usr/bin/env python3
"""How long one target stands still, by its own clock: collect-evidence beside a plain copy of the same pages in C and
gdb's gcore. Called by run.sh.

All look at one target, whose private memory is touched in parts only; runs alternate, so that a noisy moment hits each
of them. Exit code 1 if collect-evidence stops it more than 1.3 times as long as the plain copy (medians)."""

import os
import re
import statistics
import subprocess
import sys
import tempfile

MOST = 1.3


def longest_gap(target):
    target.stdin.write(b"\n")
    target.stdin.flush()
    return int(target.stdout.readline()) / 1000


def dump(command):
    """Runs it; what it said."""
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if result.returncode != 0:
        sys.exit(f"{' '.join(command)}: {result.stderr.decode()}")
    return (result.stdout + result.stderr).decode(errors="replace")


def copied(said):
    """The bytes that were read from the target, where that is said."""
    found = re.search(r"^copied .*?(\d+) bytes", said, re.MULTILINE)
    return int(found[1]) if found else None


def main(runs, program, collector, plain_copy, mebibytes, threads, untouched):
    target = subprocess.Popen([program, mebibytes, threads, untouched], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        if target.stdout.readline() != b"ready\n":
            sys.exit("the target did not start")
        pid = str(target.pid)
        with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as folder:
            bundle, core = f"{folder}/bundle.tar.zst", f"{folder}/core"
            commands = {
                "plain copy in C": ([plain_copy, pid], None),
                "collect-evidence": ([collector, "--pid", pid, "--force", "-o", bundle], bundle),
                "gcore": (["gdb", "-nx", "-batch", "-iex", "set debuginfod enabled off", "-p", pid,
                           "-ex", f"gcore {core}"], core),
            }
            pauses = {name: [] for name in commands}
            written, read = {}, {}
            for _ in range(int(runs)):
                for name, (command, output) in commands.items():
                    longest_gap(target)
                    said = dump(command)
                    pauses[name].append(longest_gap(target))
                    read[name] = copied(said)
                    written[name] = 0
                    if output:
                        written[name] = os.path.getsize(output)
                        os.unlink(output)
        print(f"\npause of one process, {mebibytes} MiB touched, {untouched} MiB untouched, {threads} threads, "
              f"by its own clock, {runs} runs each")
        print(f"{'':<24}{'least ms':>10}{'median':>9}{'most':>9}{'read MB':>10}{'written MB':>12}")
        for name, measured in pauses.items():
            shown = f"{read[name] / 1e6:.1f}" if read[name] else "-"
            print(f"{name:<24}{min(measured):>10.0f}{statistics.median(measured):>9.0f}{max(measured):>9.0f}"
                  f"{shown:>10}{written[name] / 1e6:>12.0f}")
        medians = {name: statistics.median(measured) for name, measured in pauses.items()}
        ours, plain = medians["collect-evidence"], medians["plain copy in C"]
        print(f"gcore stops it {medians['gcore'] / ours:.1f} times as long (medians)")
        print(f"collect-evidence stops it {ours / plain:.2f} times as long as the plain copy (medians); at most {MOST}")
        if abs(read["collect-evidence"] - read["plain copy in C"]) > 0.01 * read["plain copy in C"]:
            sys.exit("they did not copy the same pages")
        sys.exit(1 if ours / plain > MOST else 0)
    finally:
        target.kill()
        target.wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
