# record.sh PROGRAM COLLECTOR OUTPUT: a bundle of PROGRAM's group, and the figures that PROGRAM kept
# itself. Run in namespaces of its own, with an empty environment, and without what describes the
# host: what is recorded is published, and a process's memory holds its environment.
set -eu
program=$1 collector=$2 output=$3
hostname sample
cd /
scratch=$(mktemp -d)
# The shell puts OLDPWD into the environment that it gives on.
env -i "$program" --small -n 2 -r 800 --truth "$scratch/truth.json" >"$scratch/said" &
pid=$!
trap 'kill "$pid"; wait "$pid" || true; rm -r "$scratch"' EXIT
for _ in $(seq 100); do
    if grep -q ready "$scratch/said"; then break; fi
    sleep 0.1
done
grep -q ready "$scratch/said"
rm -f "$output"
"$collector" --pid "$pid" --modules own --level 19 \
    --without system,descriptors,proc-files --reason 'a sample with known leaks' -o "$output"
chmod 644 "$output"
cp "$scratch/truth.json" "${output%.tar.zst}.truth.json"
