# record.sh PROGRAM COLLECTOR OUTPUT: a bundle of PROGRAM's group, and the figures that PROGRAM kept
# itself. Run in namespaces of its own, with an empty environment: what is recorded is published,
# and a process's memory holds its environment.
set -eu
program=$1 collector=$2 output=$3
hostname sample
cd /
scratch=$(mktemp -d)
"$program" --small --truth "$scratch/truth.json" >"$scratch/said" &
pid=$!
trap 'kill "$pid"; wait "$pid" || true; rm -r "$scratch"' EXIT
for _ in $(seq 100); do
    if grep -q ready "$scratch/said"; then break; fi
    sleep 0.1
done
grep -q ready "$scratch/said"
rm -f "$output"
"$collector" --pid "$pid" --modules own --level 19 --reason 'a sample with known leaks' -o "$output"
chmod 644 "$output"
cp "$scratch/truth.json" "${output%.tar.zst}.truth.json"
