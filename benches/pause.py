#!/usr/bin/env python3
"""How long one target stands still: collect-evidence beside gdb's gcore, by the target's own clock. Called by run.sh.

Both write to the same folder; runs alternate, so that a noisy moment hits both."""

import os
import statistics
import subprocess
import sys
import tempfile


def longest_gap(target):
    target.stdin.write(b"\n")
    target.stdin.flush()
    return int(target.stdout.readline()) / 1000


def dump(command):
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if result.returncode != 0:
        sys.exit(f"{' '.join(command)}: {result.stderr.decode()}")


def main(runs, program, collector, mebibytes, threads):
    target = subprocess.Popen([program, mebibytes, threads], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        if target.stdout.readline() != b"ready\n":
            sys.exit("the target did not start")
        pid = str(target.pid)
        with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as folder:
            bundle, core = f"{folder}/bundle.tar.zst", f"{folder}/core"
            commands = {
                "collect-evidence": ([collector, "--pid", pid, "--force", "--quiet", "-o", bundle], bundle),
                "gcore": (["gdb", "-nx", "-batch", "-iex", "set debuginfod enabled off", "-p", pid,
                           "-ex", f"gcore {core}"], core),
            }
            pauses = {name: [] for name in commands}
            written = {}
            for _ in range(int(runs)):
                for name, (command, output) in commands.items():
                    longest_gap(target)
                    dump(command)
                    pauses[name].append(longest_gap(target))
                    written[name] = os.path.getsize(output) / 1e6
                    os.unlink(output)
        print(f"\npause of one process, {mebibytes} MiB touched, {threads} threads, by its own clock, {runs} runs each")
        print(f"{'':<24}{'least ms':>10}{'median':>9}{'most':>9}{'written MB':>12}")
        for name, measured in pauses.items():
            print(f"{name:<24}{min(measured):>10.0f}{statistics.median(measured):>9.0f}{max(measured):>9.0f}"
                  f"{written[name]:>12.0f}")
        ratio = statistics.median(pauses["gcore"]) / statistics.median(pauses["collect-evidence"])
        print(f"gcore stops it {ratio:.1f} times as long (medians)")
    finally:
        target.kill()
        target.wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
