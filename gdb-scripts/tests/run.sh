#!/usr/bin/env bash
# Runs the gdb scripts against processes whose memory is known: the samples, a real Kamailio, and damaged cores.
# Needs gdb, gcc, make, python3, kamailio, kamcmd and sipp; the right to ptrace. Ends with "N passed, M failed".
# PORT=5093 run.sh   another UDP/TCP port for Kamailio (sipp takes the one after it)
set -eu

here=$(cd "$(dirname "$0")" && pwd)
scripts=$(dirname "$here")
samples=$scripts/../samples/pools
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

# asks NAME=COMMAND... -- GDB-ARGUMENTS...: one run, each command's answer in $work/NAME
asks() {
	local ex=()
	while [ "$1" != -- ]; do
		rm -f "$work/${1%%=*}"
		ex+=(-ex "echo \\n@@${1%%=*}\\n" -ex "${1#*=}")
		shift
	done
	shift
	ask "$work/answers" "${ex[@]}" "$@" || true
	awk -v dir="$work/" '/^@@/ { file = dir substr($0, 3); printf "" > file; next } file { print > file }' "$work/answers"
}

classic() {
	local out=$1
	shift
	timeout 120 gdb -nx -q -batch -iex 'set debuginfod enabled off' "$@" -x "$scripts/qm-owners.gdb" >"$out" 2>"$out.err"
}

says() { # says FILE TEXT: FILE contains TEXT, or one of its lines if it has several
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

# ---- the samples: every layout, stripped and with debug information, live and as cores ----
for edition in {16,56,64,128,fm-48,fm-48-unchecked,fm-72,fm-80,tlsf-32,tlsf-64}{,-debug}; do
	program=$work/bin/leaky-$edition
	truth=$work/truth-$edition.json
	source=inferred
	[ "${edition%-debug}" = "$edition" ] || source=dwarf
	"$program" --small --truth "$truth" >"$work/ready" &
	started+=($!)
	main=$!
	wait_until 20 grep -q ready "$work/ready"
	pids=($(pids_of "$truth"))
	manager=q_malloc processes=3
	case $edition in
		fm-*) manager=f_malloc processes=1 ;;
		tlsf-*) manager=tlsf_malloc processes=1 ;;
	esac
	for pid in "${pids[@]:0:processes}"; do
		asks "pools=kam pools --json" "pkg=kam owners pkg --json" "shm=kam owners shm --json" "procs=kam procs --json" -- -p "$pid"
		check "$edition live $pid pools" compare truth pools "$truth" "$work/pools" "$pid"
		check "$edition live $pid layout by $source" says "$work/pools" "\"source\": \"$source\""
		check "$edition live $pid owners pkg" compare truth owners "$truth" "$work/pkg" "$pid" pkg
	done
	check "$edition live owners shm" compare truth owners "$truth" "$work/shm" "$main" shm
	check "$edition live procs" compare truth procs "$truth" "$work/procs"

	worker=${pids[2]}
	core=$work/core-$edition
	gdb -nx -q -batch -iex 'set debuginfod enabled off' -p "$worker" -ex "gcore $core" >"$work/gcore.out" 2>&1
	asks "pools=kam pools --json" "pkg=kam owners pkg --json" "shm=kam owners shm --json" "procs=kam procs --json" -- "$program" "$core"
	check "$edition core pools" compare truth pools "$truth" "$work/pools" "$worker"
	for kind in pkg shm; do
		check "$edition core owners $kind" compare truth owners "$truth" "$work/$kind" "$worker" "$kind"
	done
	check "$edition core procs" compare truth procs "$truth" "$work/procs"

	header=${edition%-debug}
	if [ "$manager" != q_malloc ]; then
		check "$edition manager" says "$work/pools" "\"manager\": \"$manager\""
	elif [ "$header" = 16 ]; then
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

# ---- private memory in the C library's heap: the private pool is there, and unused ----------
for edition in 64-sys fm-80-sys tlsf-64-sys; do
	"$work/bin/leaky-$edition" --small >"$work/ready" &
	main=$!
	started+=("$main")
	wait_until 20 grep -q ready "$work/ready"
	ask "$work/out" -ex 'kam pools' -p "$main" || true
	check "$edition: pkg is unused" test "$(grep -c "unused: this build keeps private memory in the C library's heap" "$work/out")" = 1
	kill "$main"
	wait "$main" || true
done

# ---- damage: every walk ends, and says where and why -------------------------------------
# broken NAME TEXT COMPLETE CLASSIC ADDRESS CHANGE: TEXT is in kam's answer, CLASSIC in qm-owners.gdb's
broken() {
	local name=$1 text=$2 complete=$3 in_classic=$4
	cp "$core" "$work/damaged"
	python3 "$here/damage.py" "$work/damaged" "$5" "$6" >/dev/null
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
	ask "$work/out" -ex 'kam list shm --json --all --max 0' "$program" "$core"
	check "$header: kam list --json --all has used and free ones" says "$work/out" '"state": "free"'
	check "$header: kam list --json --all has all" says "$work/out" '"more": 0'
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
	python3 "$here/damage.py" "$work/damaged" "$first" +1000000000 >/dev/null
	ask "$work/out" -ex 'kam pools' -ex 'printf "broken=%d\n", $kam_broken' "$program" "$work/damaged" || true
	check "$header first fragment: says where" says "$work/out" "shm: DAMAGED $first: impossible size"
	check "$header first fragment: layout known" says "$work/out" "header $header, trailer 48"
	check "$header first fragment: \$kam_broken" says "$work/out" broken=1

	# The block itself: first_frag leads nowhere.
	ask "$work/out" -ex 'kam pools --json' "$program" "$core"
	block=$(grep -o '"block": "0x[0-9a-f]*"' "$work/out" | sed -n '2s/.*"\(0x.*\)"/\1/p')
	cp "$core" "$work/damaged"
	python3 "$here/damage.py" "$work/damaged" "$(printf '%#x' $((block + 48)))" 1000000000000000 >/dev/null
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
# start_kamailio OPTION...: with -x, -X, -m, -M; leaves the main process's pid in $main
start_kamailio() {
	run=$work/kamailio-$port
	mkdir "$run"
	sed -e "s#@RUN@#$run#g" -e "s#@PORT@#$port#g" "$here/kamailio.cfg" >"$run/kamailio.cfg"
	kamailio -f "$run/kamailio.cfg" -P "$run/kamailio.pid" -w "$run" -Y "$run" "$@" >"$run/log" 2>&1 ||
		{ cat "$run/log" >&2; exit 2; }
	wait_until 20 test -s "$run/kamailio.pid"
	main=$(cat "$run/kamailio.pid")
	started+=("$main")
	wait_until 20 kamcmd -s "unix:$run/ctl.sock" core.version >/dev/null
}

stop_kamailio() {
	kill "$main"
	wait_until 20 sh -c "! kill -0 $main"
}

# load_kamailio CALLS STEP: CALLS entries in a hash table, each STEP-th of the earlier ones deleted again; then its own figures
load_kamailio() {
	sipp -sf "$here/options.xml" "127.0.0.1:$port" -i 127.0.0.1 -p $((port + 1)) -r 2000 -m "$1" -nostdin >"$work/sipp.out" 2>&1 ||
		{ tail -5 "$work/sipp.out" >&2; exit 2; }
	for call in $(seq 100 "$2" 2000); do # free fragments between used ones
		rpc "$work/deleted" htable.delete calls "call$call"
	done
	sleep 1
	rpc "$work/psx" core.psx
	rpc "$work/stats" pkg.stats
	rpc "$work/mod" mod.stats all shm
	rpc "$work/shmmem" core.shmmem
}

rpc() { # rpc OUT METHOD...
	local out=$1
	shift
	kamcmd -s "unix:$run/ctl.sock" "$@" >"$out"
}

start_kamailio -x qm -m 64 -M 8
load_kamailio 20000 7

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
stop_kamailio

manager_of() {
	case $1 in
		qm) echo q_malloc ;;
		fm) echo f_malloc ;;
		tlsf) echo tlsf_malloc ;;
	esac
}

# kamailio_is NAME SHM PKG: the answers in $work equal Kamailio's figures
kamailio_is() {
	check "$1 shm = core.shmmem" compare kamailio shm "$work/pools" "$work/shmmem"
	check "$1 owners shm = mod.stats all shm" compare kamailio owners "$work/shm" "$work/mod"
	check "$1 procs = core.psx" compare kamailio procs "$work/procs" "$work/psx"
	check "$1 shm is $2's, pkg $3's, counted by the blocks" compare kamailio blocks "$work/pools" "$work/shm" "$work/pkg" "$2" "$3"
}

# hurt NAME TEXT COMPLETE ADDRESS CHANGE: TEXT is in the answer on a core of $main's with this damage, which is undone after
hurt() {
	local undo
	undo=$(python3 "$here/damage.py" "$core" "$4" "$5")
	asks "out=kam owners shm --json" 'flag=printf "broken=%d\n", $kam_broken' -- "$program" "$core"
	check "$1: says \"$2\"" says "$work/out" "$2"
	check "$1: complete is $3" says "$work/out" "\"complete\": $3"
	local flag=1
	[[ $2 != *'not readable>'* ]] || flag=0
	check "$1: \$kam_broken is $flag" says "$work/flag" "broken=$flag"
	python3 "$here/damage.py" "$core" "$4" "$undo" >/dev/null
}

# hurt_block NAME ADDRESS CHANGE TEXT...: the same for kam pools
hurt_block() {
	local undo name=$1 at=$2
	undo=$(python3 "$here/damage.py" "$core" "$at" "$3")
	asks "out=kam pools" 'flag=printf "broken=%d\n", $kam_broken' -- "$program" "$core"
	shift 3
	for text in "$@"; do
		check "$name: says \"$text\"" says "$work/out" "$text"
	done
	check "$name: \$kam_broken" says "$work/flag" "broken=1"
	python3 "$here/damage.py" "$core" "$at" "$undo" >/dev/null
}

program=$(command -v kamailio)
core=$work/core-kamailio
questions=("pools=kam pools --json" "shm=kam owners shm --json" "pkg=kam owners pkg --json" "procs=kam procs --json")
for pair in fm/fm tlsf/tlsf tlsf/fm; do
	port=$((port + 2))
	shared=${pair%/*} private=${pair#*/}
	options="-x $shared"
	[ "$shared" = "$private" ] || options="$options -X $private"
	name="kamailio $options"
	start_kamailio $options -m 16 -M 8
	load_kamailio 3000 20
	shared=$(manager_of "$shared") private=$(manager_of "$private")
	for pid in $(sed -n 's/^\tPID: //p' "$work/psx" | sed -n 1,2p); do
		asks "${questions[@]}" -- -p "$pid"
		kamailio_is "$name live $pid" "$shared" "$private"
	done
	check "$name: free fragments between used ones" test "$(sed -n 's/.*fragments: //p' "$work/shmmem")" -gt 90
	worker=$(sed -n 's/^\tPID: //p' "$work/psx" | sed -n 2p)
	rm -f "$core"
	gdb -nx -q -batch -iex 'set debuginfod enabled off' -p "$worker" -ex "gcore $core" >"$work/gcore.out" 2>&1
	stop_kamailio
	asks "${questions[@]}" "list=kam list shm --skip 100 --owner ht_cell_new --max 40" "free=kam list shm --free --max 2" \
		"first=kam list shm --max 1" "pt=kam frag *(long*)&pt" -- "$program" "$core"
	kamailio_is "$name core" "$shared" "$private"
	check "$name core: kam frag finds pt" says "$work/pt" "core: core/pt.c: init_pt("
	check "$name core: kam list knows the calls" says "$work/list" "htable: ht_api.c: ht_cell_new("
	check "$name core: kam list --free" says "$work/free" "shm: 2 shown, "
	[ "$shared" = "$private" ] || continue

	# A call's fragment with another directly behind it.
	step=72 at=""
	[ "$shared" = f_malloc ] || step=40
	while read -r address start bytes _; do
		[ -z "$at" ] || [ $((address)) -ne $((at + step + size)) ] || break
		at=$address payload=$start size=$bytes
	done < <(grep -E "^ *0x[0-9a-f]+ +0x" "$work/list")
	read -r first _ < <(grep -m1 -E "^ *0x[0-9a-f]+ +0x" "$work/first")
	block=$(grep -o '"block": "0x[0-9a-f]*"' "$work/pools" | sed -n '2s/.*"\(0x.*\)"/\1/p')
	plus() { printf '%#x' $(($1 + $2)); }
	letters=$(printf '41%.0s' {1..72})
	if [ "$shared" = f_malloc ]; then
		check "$name: header of 72 bytes" test $((payload - at)) = 72
		hurt "$name size too small" "$at: no fragment follows at" false "$at" -8
		hurt "$name size too large" "$at: impossible size" false "$at" +1000000000
		hurt "$name size 0" "$at: impossible size 0x0" false "$at" "-$size"
		hurt "$name check word" "$at: check word 0x41414141 instead of 0xf0f0f0f0: header overwritten" true "$(plus "$at" 64)" 41414141
		hurt "$name 72 bytes past the payload" "$at: no fragment follows at $(plus "$payload" "$size") (check word 0x41414141" false "$(plus "$payload" "$size")" "$letters"
		hurt "$name wild file pointer" "<0xdeadbeef not readable>" true "$(plus "$at" 32)" efbeadde00000000
		hurt_block "$name first fragment" "$first" +1000000000 "shm: DAMAGED $first: impossible size" "header 72 bytes"
		hurt_block "$name first header" "$first" "$letters" "shm: DAMAGED $first: check word 0x41414141" "header 72 bytes"
		hurt_block "$name first_frag leads nowhere" "$(plus "$block" 48)" 1000000000000000 "does not look like f_malloc's" "the walk and the counters agree"
		hurt_block "$name last_frag in the middle" "$(plus "$block" 56)" -4096 "impossible size"
		hurt_block "$name end mark" "$(plus "$block" $((16 * 1048576 - 8)))" 41414141 "the mark of the pool's end is overwritten" "the walk and the counters agree"
	else
		check "$name: payload 48 bytes into the header" test $((payload - at)) = 48
		hurt "$name size too small" "$at: no fragment follows at" false "$(plus "$at" 40)" -8
		hurt "$name size too large" "$at: impossible size" false "$(plus "$at" 40)" +1000000000
		# The next fragment's first payload word is taken for a size then: whether that word or its lowest bits
		# are impossible depends on what the payload holds.
		hurt "$name size 8 too large" "$at: no fragment follows at"$'\n'", or $at before it has a wrong size" false "$(plus "$at" 40)" +8
		hurt "$name size 0" "$at: impossible size 0x0" false "$(plus "$at" 40)" "-$size"
		hurt "$name 64 bytes past the payload" "impossible size 0x4141414141414140, or $at before it has a wrong size or was written past its end" false "$(plus "$payload" "$size")" "${letters:0:128}"
		hurt "$name 8 bytes past the payload" "file 0x4141414141414141, which is no address: header overwritten" true "$(plus "$payload" "$size")" "${letters:0:16}"
		hurt "$name wild file pointer" "<0xdeadbeef not readable>" true "$(plus "$at" 8)" efbeadde00000000
		hurt_block "$name first fragment" "$(plus "$first" 40)" +1000000000 "shm: DAMAGED $first: impossible size" "header 48 bytes"
		hurt_block "$name total_size" "$(plus "$block" 64)" +1000000000000000 "does not look like tlsf_malloc's" "the walk and the counters agree"
		hurt_block "$name end mark" "$(plus "$block" $((16 * 1048576 - 8)))" "${letters:0:16}" "the mark of the pool's end is overwritten"
	fi
done

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
