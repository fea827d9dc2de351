#!/usr/bin/env bash
# Who sums a full q_malloc pool of 2,722,639 fragments by owner, and who finds what nothing points to, and at
# what cost? Our analyzer, our gdb script and plain C read the same core; every answer is compared with what the
# maker of the core wrote down. The least possible is one plain read of the file: C sums its words.
# Then: how long does one process of 64 threads stand still for collect-evidence, for the plainest copy of the same
# pages that C can make, and for gdb's gcore? And one whose stacks only are wanted, for collect-evidence, eu-stack and
# gdb?
#
#   benches/run.sh [RUNS]        default 7; cargo xtask bench RUNS
#
# FORENSICS=FILE  the analyzer to measure (default: builds target/release/forensics)
# COLLECT_EVIDENCE=FILE  the collector to measure (default: builds target/release/collect-evidence)
# BENCH_DIR=DIR   keeps the core there (default target/bench): 2.1 GB of disk, as much memory while it is made
# FRAGMENTS=N MEGABYTES=N  another size of pool; 10 million fragments fit in 4096
# Needs gcc, make, gdb, eu-stack (elfutils), python3; kernel.core_pattern must be a plain file name. Wall times on shared machines
# vary by a third: compare within one run.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
runs=${1:-7}
fragments=${FRAGMENTS:-2722639}
directory=${BENCH_DIR:-$root/target/bench}
megabytes=${MEGABYTES:-2048}
core=$directory/qm-$fragments-$megabytes.core
truth=$directory/qm-$fragments-$megabytes.json
mkdir -p "$directory"

make -s -C "$root/samples/pools" OUT="$directory/bin" "$directory/bin/bigpool"
gcc -std=c11 -O2 -Wall -Wextra "$root/benches/walk_qm.c" -o "$directory/bin/walk_qm"
gcc -std=c11 -O2 -Wall -Wextra "$root/benches/read_all.c" -o "$directory/bin/read_all"
gcc -std=gnu11 -O2 -Wall -Wextra -pthread "$root/benches/pause_target.c" -o "$directory/bin/pause_target"
gcc -std=gnu11 -O2 -Wall -Wextra "$root/benches/plain_copy.c" -o "$directory/bin/plain_copy"
if [ -z "${COLLECT_EVIDENCE:-}" ]; then
	(cd "$root" && cargo build --release --locked --quiet -p collector)
	COLLECT_EVIDENCE=$root/target/release/collect-evidence
fi
if [ -z "${FORENSICS:-}" ]; then
	(cd "$root" && cargo build --release --locked --quiet -p forensics)
	FORENSICS=$root/target/release/forensics
fi
# A new bigpool has another build ID: a core of the old one would lack its module.
if [ ! -s "$core" ] || [ ! -s "$truth" ] || [ "$directory/bin/bigpool" -nt "$core" ]; then
	rm -f "$core"
	echo "making $core"
	"$directory/bin/bigpool" -n "$fragments" -m "$megabytes" --linked --truth "$truth" --out "$core"
fi

python3 "$root/benches/measure.py" "$runs" "$truth" "$core" "$directory/bin/bigpool" \
	"$directory/bin/walk_qm" "$directory/bin/read_all" "$FORENSICS" "$root/gdb-scripts/kamailio.py"

BENCH_DIR=$directory python3 "$root/benches/pause.py" "$runs" "$directory/bin/pause_target" "$COLLECT_EVIDENCE" \
	"$directory/bin/plain_copy" 1024 64 1024
python3 "$root/benches/stacks_pause.py" "$runs" "$directory/bin/pause_target" "$COLLECT_EVIDENCE" 1024 64
BENCH_DIR=$directory python3 "$root/benches/unwind.py" "$runs" "$directory/bin/pause_target" "$FORENSICS" 1024 64
