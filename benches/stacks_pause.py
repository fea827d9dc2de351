#!/usr/bin/env python3
"""How long a target of many threads stands still for its stacks: `collect-evidence --stacks-only` beside eu-stack and
gdb, by the target's own clock. Called by run.sh.

All three look at the same process; runs alternate, so that a noisy moment hits each. eu-stack stops one thread after
the other, each for a moment of its own: its pause is that of one thread, and its stacks are of no one moment."""

import statistics
import subprocess
import sys
import tempfile

from pause import dump, longest_gap


def main(runs, program, collector, mebibytes, threads):
    target = subprocess.Popen([program, mebibytes, threads], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        if target.stdout.readline() != b"ready\n":
            sys.exit("the target did not start")
        pid = str(target.pid)
        with tempfile.TemporaryDirectory() as folder:
            stacks = [collector, "--pid", pid, "--stacks-only", "--sample-gap", "1", "--quiet"]
            commands = {
                "collect-evidence": lambda run: [*stacks, "-o", f"{folder}/{run}.tar.zst"],
                "eu-stack": lambda run: ["eu-stack", "-p", pid],
                "gdb": lambda run: ["gdb", "-nx", "-batch", "-iex", "set debuginfod enabled off", "-p", pid,
                                    "-ex", "thread apply all bt"],
            }
            pauses = {name: [] for name in commands}
            for run in range(int(runs)):
                for name, command in commands.items():
                    longest_gap(target)
                    dump(command(run))
                    pauses[name].append(longest_gap(target))
        print(f"\npause for the stacks of {threads} threads, {mebibytes} MiB touched, by the target's own clock, {runs} runs each")
        print(f"{'':<24}{'least ms':>10}{'median':>9}{'most':>9}")
        for name, measured in pauses.items():
            print(f"{name:<24}{min(measured):>10.1f}{statistics.median(measured):>9.1f}{max(measured):>9.1f}")
        ours = statistics.median(pauses["collect-evidence"])
        for name in ("eu-stack", "gdb"):
            print(f"{name} stops it {statistics.median(pauses[name]) / ours:.1f} times as long (medians)")
    finally:
        target.kill()
        target.wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
