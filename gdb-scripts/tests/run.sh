#!/usr/bin/env bash
# Runs the gdb scripts against processes whose memory is known: the samples, a real Kamailio, and damaged cores.
# Needs gdb, gcc, make, python3, kamailio, kamcmd and sipp; the right to ptrace. Ends with "N passed, M failed".
# PORT=5093 run.sh   another UDP/TCP port for Kamailio (sipp takes the one after it)
set -eu

here=$(cd "$(dirname "$0")" && pwd)
scripts=$(dirname "$here")
samples=$scripts/../samples/qm
port=${PORT:-5083}
work=$(mktemp -d /tmp/kam-gdb.XXXXXX)
started=()
passed=0
failed=0

finish() {
	for pid in "${started[@]}"; do
		kill "$pid" 2>/dev/null || true
	done
	rm -rf "$work"
}
trap finish EXIT

for tool in gdb gcc make python3 kamailio kamcmd sipp; do
	command -v "$tool" >/dev/null || { echo "run.sh: $tool is not installed" >&2; exit 2; }
done

# check NAME COMMAND...: one test; the command's output is shown only if it fails.
check() {
	local name=$1
	shift
	if "$@" >"$work/check.out" 2>&1; then
		passed=$((passed + 1))
	else
		failed=$((failed + 1))
		echo "FAILED: $name"
		sed 's/^/    /' "$work/check.out" | cut -c1-600
	fi
}

# ask OUT GDB-ARGUMENTS...: one bounded batch run of gdb with kamailio.py loaded.
ask() {
	local out=$1
	shift
	timeout 120 gdb -nx -q -batch -iex 'set debuginfod enabled off' -ex "source $scripts/kamailio.py" "$@" >"$out" 2>"$out.err"
}

classic() {
	local out=$1
	shift
	timeout 120 gdb -nx -q -batch -iex 'set debuginfod enabled off' "$@" -x "$scripts/qm-owners.gdb" >"$out" 2>"$out.err"
}

says() { # says FILE TEXT: FILE contains TEXT
	grep -qF -- "$2" "$1" || { echo "no \"$2\" in:"; cat "$1" "$1.err"; return 1; }
}

says_not() {
	! grep -F -- "$2" "$1"
}

# wait_until SECONDS COMMAND...
wait_until() {
	local left=$(($1 * 20))
	shift
	until "$@" 2>/dev/null; do
		left=$((left - 1))
		[ "$left" -gt 0 ] || { echo "run.sh: waited in vain for: $*" >&2; exit 2; }
		sleep 0.05
	done
}

compare() { python3 "$here/compare.py" "$@"; }
pids_of() { python3 -c "import json, sys; print(*[p['pid'] for p in json.load(open(sys.argv[1]))['pools'] if p['kind'] == 'pkg'])" "$1"; }

make -s -C "$samples" OUT="$work/bin"

# ---- the samples: four layouts, stripped and with debug information, live and as cores ----
for edition in 16 16-debug 56 56-debug 64 64-debug 128 128-debug; do
	program=$work/bin/leaky-$edition
	truth=$work/truth-$edition.json
	source=inferred
	[ "${edition%-debug}" = "$edition" ] || source=dwarf
	"$program" --small --truth "$truth" >"$work/ready" &
	started+=($!)
	main=$!
	wait_until 20 grep -q ready "$work/ready"
	pids=($(pids_of "$truth"))
	for pid in "${pids[@]}"; do
		ask "$work/pools" -ex 'kam pools --json' -p "$pid" || true
		check "$edition live $pid pools" compare truth pools "$truth" "$work/pools" "$pid"
		check "$edition live $pid layout by $source" says "$work/pools" "\"source\": \"$source\""
		ask "$work/owners" -ex 'kam owners pkg --json' -p "$pid" || true
		check "$edition live $pid owners pkg" compare truth owners "$truth" "$work/owners" "$pid" pkg
	done
	ask "$work/owners" -ex 'kam owners shm --json' -p "$main" || true
	check "$edition live owners shm" compare truth owners "$truth" "$work/owners" "$main" shm
	ask "$work/procs" -ex 'kam procs --json' -p "$main" || true
	check "$edition live procs" compare truth procs "$truth" "$work/procs"

	worker=${pids[2]}
	core=$work/core-$edition
	gdb -nx -q -batch -iex 'set debuginfod enabled off' -p "$worker" -ex "gcore $core" >"$work/gcore.out" 2>&1
	ask "$work/pools" -ex 'kam pools --json' "$program" "$core" || true
	check "$edition core pools" compare truth pools "$truth" "$work/pools" "$worker"
	for kind in pkg shm; do
		ask "$work/owners" -ex "kam owners $kind --json" "$program" "$core" || true
		check "$edition core owners $kind" compare truth owners "$truth" "$work/owners" "$worker" "$kind"
	done
	ask "$work/procs" -ex 'kam procs --json' "$program" "$core" || true
	check "$edition core procs" compare truth procs "$truth" "$work/procs"

	header=${edition%-debug}
	if [ "$header" = 16 ]; then
		classic "$work/classic" -ex 'set $hdr = 64' "$program" "$core" || true
		check "$edition qm-owners.gdb refuses" says "$work/classic" REFUSED
	else
		for kind in pkg shm; do
			shared=0
			[ $kind = pkg ] || shared=1
			classic "$work/classic" -ex "set \$hdr = $header" -ex "set \$shm = $shared" "$program" "$core" || true
			check "$edition qm-owners.gdb $kind" compare truth classic "$truth" "$work/classic" "$worker" "$kind"
		done
		wrong=56
		[ "$header" = 64 ] || wrong=64
		classic "$work/classic" -ex "set \$hdr = $wrong" "$program" "$core" || true
		check "$edition qm-owners.gdb refuses \$hdr = $wrong" says "$work/classic" REFUSED
	fi
	kill "$main"
	wait "$main" || true
done

# ---- damage: every walk ends, and says where and why -------------------------------------
# broken NAME TEXT COMPLETE CLASSIC ADDRESS CHANGE: TEXT is in kam's answer, CLASSIC in qm-owners.gdb's
broken() {
	local name=$1 text=$2 complete=$3 in_classic=$4
	cp "$core" "$work/damaged"
	python3 "$here/damage.py" "$work/damaged" "$5" "$6"
	ask "$work/out" -ex 'kam owners shm --json' -ex 'printf "broken=%d\n", $kam_broken' "$program" "$work/damaged" || true
	check "$name: says \"$text\"" says "$work/out" "$text"
	check "$name: complete is $complete" says "$work/out" "\"complete\": $complete"
	local flag=1
	[[ $text != *'"damage": []'* && $text != *'not readable>'* ]] || flag=0
	check "$name: \$kam_broken is $flag" says "$work/out" "broken=$flag"
	classic "$work/out" -ex "set \$hdr = $header" -ex 'set $shm = 1' "$program" "$work/damaged" || true
	check "$name: qm-owners.gdb says \"$in_classic\"" says "$work/out" "$in_classic"
}

for header in 56 64; do
	program=$work/bin/leaky-$header
	core=$work/core-$header
	truth=$work/truth-$header.json
	ask "$work/out" -ex 'kam list shm --max 1 --skip 60' "$program" "$core"
	read -r at payload size _ < <(grep -m1 -E "^ *0x[0-9a-f]+ +0x" "$work/out")
	check "$header: kam list gives a fragment" test "$((payload - at))" = "$header"
	ask "$work/out" -ex 'kam list shm --max 1 --free' "$program" "$core"
	read -r free_at _ < <(grep -m1 -E "^ *0x[0-9a-f]+ +0x" "$work/out")
	field() { printf '%#x' $((at + $1)); }
	trailer=$(field $((header + size)))
	ask "$work/out" -ex "kam frag $payload" "$program" "$core"
	check "$header: kam frag finds it" says "$work/out" "here   $at used, $size bytes"
	letters=$(printf '41%.0s' {1..72})
	minus_step=$((-(size + header + 48)))

	broken "$header check word" "$at: check word 0x4141414141414141" true "DAMAGED at $at: check word" "$(field 48)" 4141414141414141
	broken "$header size too small" "$at: trailer has" false "DAMAGED at $at: the trailer" "$at" -8
	broken "$header size too large" "$at: impossible size" false "DAMAGED at $at: impossible size" "$at" +1000000000
	broken "$header step of zero" "$at: impossible size" false "DAMAGED at $at: impossible size" "$at" "$minus_step"
	broken "$header size 0" "$at: impossible size 0x0" false "DAMAGED at $at: impossible size" "$at" "-$size"
	broken "$header 72 bytes past the payload" "$at: no fragment follows" false "DAMAGED at $at: the trailer" "$trailer" "$letters"
	broken "$header trailer only" "probably written past its end" true "DAMAGED at $at: the trailer" "$trailer" "${letters:0:96}"
	broken "$header wild file pointer" "<0xdeadbeef not readable>" true "<error: Cannot access memory at address 0xdeadbeef>" "$(field 16)" efbeadde00000000
	free_self=$(python3 -c "print((int('$free_at', 16)).to_bytes(8, 'little').hex())")
	broken "$header free list that points to itself" '"damage": []' true "total" "$(printf '%#x' $((free_at + 8)))" "$free_self"

	# Damaged from its first fragment on: the layout comes from the other pool.
	ask "$work/out" -ex 'kam list shm --max 1' "$program" "$core"
	read -r first _ < <(grep -m1 -E "^ *0x[0-9a-f]+ +0x" "$work/out")
	cp "$core" "$work/damaged"
	python3 "$here/damage.py" "$work/damaged" "$first" +1000000000
	ask "$work/out" -ex 'kam pools' -ex 'printf "broken=%d\n", $kam_broken' "$program" "$work/damaged" || true
	check "$header first fragment: says where" says "$work/out" "shm: DAMAGED $first: impossible size"
	check "$header first fragment: layout known" says "$work/out" "header $header, trailer 48"
	check "$header first fragment: \$kam_broken" says "$work/out" broken=1

	# The block itself: first_frag leads nowhere.
	ask "$work/out" -ex 'kam pools --json' "$program" "$core"
	block=$(grep -o '"block": "0x[0-9a-f]*"' "$work/out" | sed -n '2s/.*"\(0x.*\)"/\1/p')
	cp "$core" "$work/damaged"
	python3 "$here/damage.py" "$work/damaged" "$(printf '%#x' $((block + 48)))" 1000000000000000
	ask "$work/out" -ex 'kam pools' -ex 'printf "broken=%d\n", $kam_broken' "$program" "$work/damaged" || true
	check "$header block: said" says "$work/out" "does not look like q_malloc's"
	check "$header block: \$kam_broken" says "$work/out" broken=1
	check "$header block: the other pool is still shown" says "$work/out" "the walk and the counters agree"
	classic "$work/out" -ex "set \$hdr = $header" -ex 'set $shm = 1' "$program" "$work/damaged" || true
	check "$header block: qm-owners.gdb refuses" says "$work/out" REFUSED
done

ask "$work/out" -ex 'kam pools' "$work/bin/leaky-56" || true
check "no process: said" says "$work/out.err" "no process and no core"
ask "$work/out" -ex 'kam pools' -c "$work/core-56" || true
cat "$work/out.err" >>"$work/out"
check "core without its program: says what to do" says "$work/out" "file /usr/sbin/kamailio"

# ---- a real Kamailio, against its own figures ------------------------------------------------
# start_kamailio MANAGER: leaves the main process's pid in $main
start_kamailio() {
	run=$work/kamailio-$1
	mkdir "$run"
	sed -e "s#@RUN@#$run#g" -e "s#@PORT@#$port#g" "$here/kamailio.cfg" >"$run/kamailio.cfg"
	kamailio -f "$run/kamailio.cfg" -P "$run/kamailio.pid" -w "$run" -Y "$run" -m 64 -M 8 -x "$1" >"$run/log" 2>&1 ||
		{ cat "$run/log" >&2; exit 2; }
	wait_until 20 test -s "$run/kamailio.pid"
	main=$(cat "$run/kamailio.pid")
	started+=("$main")
	wait_until 20 kamcmd -s "unix:$run/ctl.sock" core.version >/dev/null
}

rpc() { # rpc OUT METHOD...
	local out=$1
	shift
	kamcmd -s "unix:$run/ctl.sock" "$@" >"$out"
}

start_kamailio qm
sipp -sf "$here/options.xml" "127.0.0.1:$port" -i 127.0.0.1 -p $((port + 1)) -r 2000 -m 20000 -nostdin >"$work/sipp.out" 2>&1 ||
	{ tail -5 "$work/sipp.out" >&2; exit 2; }
for call in $(seq 100 7 2000); do # free fragments between used ones
	rpc "$work/deleted" htable.delete calls "call$call"
done
sleep 1
rpc "$work/psx" core.psx
rpc "$work/stats" pkg.stats
rpc "$work/mod" mod.stats all shm
rpc "$work/shmmem" core.shmmem

ask "$work/procs" -ex 'kam procs --json' -p "$main" || true
check "kamailio procs = core.psx" compare kamailio procs "$work/procs" "$work/psx"
for pid in $(sed -n 's/^\tPID: //p' "$work/psx"); do
	ask "$work/pools" -ex 'kam pools --json' -p "$pid" || true
	check "kamailio $pid pkg = pkg.stats" compare kamailio pkg "$work/pools" "$work/stats" "$pid"
done
check "kamailio shm = core.shmmem" compare kamailio shm "$work/pools" "$work/shmmem"
check "kamailio shm has free fragments" test "$(sed -n 's/.*fragments: //p' "$work/shmmem")" -gt 250
ask "$work/owners" -ex 'kam owners shm --json' -p "$main" || true
check "kamailio shm has the calls" test "$(sed -n 's/.*"fragments": //p' "$work/owners" | tr -d , | sort -n | tail -1)" -gt 19000
check "kamailio owners shm = mod.stats all shm" compare kamailio owners "$work/owners" "$work/mod"

worker=$(sed -n 's/^\tPID: //p' "$work/psx" | sed -n 2p)
gdb -nx -q -batch -iex 'set debuginfod enabled off' -p "$worker" -ex "gcore $work/core-kamailio" >"$work/gcore.out" 2>&1
ask "$work/pools" -ex 'kam pools --json' "$(command -v kamailio)" "$work/core-kamailio" || true
check "kamailio core pkg = pkg.stats" compare kamailio pkg "$work/pools" "$work/stats" "$worker"
check "kamailio core shm = core.shmmem" compare kamailio shm "$work/pools" "$work/shmmem"
ask "$work/owners" -ex 'kam owners shm --json' "$(command -v kamailio)" "$work/core-kamailio" || true
check "kamailio core owners shm = mod.stats all shm" compare kamailio owners "$work/owners" "$work/mod"
kill "$main"
wait_until 20 sh -c "! kill -0 $main"

for manager in fm tlsf; do
	port=$((port + 2))
	start_kamailio $manager
	ask "$work/out" -ex 'kam pools' -ex 'kam owners shm' -p "$main" || true
	check "kamailio -x $manager: named, not read" says "$work/out" "_malloc: not read by these scripts yet"
	check "kamailio -x $manager: procs" ask "$work/procs" -ex 'kam procs' -p "$main"
	kill "$main"
	wait_until 20 sh -c "! kill -0 $main"
done

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
