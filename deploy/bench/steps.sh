#!/bin/sh
# What a step of one worker costs: deploy/bench/steps.sh ROUNDS PROGRAM [FLAG OF TRAIN]...
#
# Each round trains as asked, on one processor, and prints medians over the steps after the tenth. With FLAG set it
# trains once more with these XLA_FLAGS; with PEER set it runs that command, on processor 0. They take turns, so that a
# machine that others use too slows all of them alike. For example, from the repository:
#
#	(cd examples/gpt && go build -o ../../bin/gpt .)
#	FLAG=--xla_cpu_enable_platform_dependent_math=true deploy/bench/steps.sh 5 bin/gpt --steps 60 --global-batch 8 \
#		--micro-batch 8 --layers 4 --width 256 --heads 4
set -eu
[ $# -ge 2 ] || { sed -n '2,$s/^# \{0,1\}//p;/^set/q' "$0" >&2; exit 2; }
rounds=$1 program=$2
shift 2
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

# median FIELD prints that of a field of the steps.
median() {
	sed -n 's/.*"event":"step".*"'"$1"'":\([0-9.e+-]*\).*/\1/p' "$dir/run/metrics.jsonl" | tail -n +11 | sort -g |
		awk '{ x[NR] = $1 } END { if (!NR) { print "none"; exit 1 } printf "%.1f", x[int((NR + 1) / 2)] }'
}

once() {
	rm -rf "$dir/run"
	"$program" train "$@" --workers 1 --parallelism 1 --evaluate=false --http= --dir "$dir/run" >"$dir/log" 2>&1 ||
		{ cat "$dir/log" >&2; exit 1; }
	echo "compute $(median compute_ms) ms, update $(median update_ms) ms, $(median samples_per_second) samples/s"
}

for round in $(seq "$rounds"); do
	echo "$round  $(once "$@")"
	[ -z "${FLAG-}" ] || echo "$round  $(XLA_FLAGS=$FLAG once "$@")  with $FLAG"
	[ -z "${PEER-}" ] || echo "$round  $(taskset -c 0 sh -c "$PEER")"
done
