#!/bin/bash
# What a durable checkpoint costs two workers: alternating runs with a checkpoint at no step, every ten and every one,
# with processor-ms a step by process: of the coordinator, of all workers, of etcd and the parent together. From the
# repository's root, after `make build`:
#
#	deploy/bench/checkpoints.sh [ROUNDS=5] [STEPS=400] [PROGRAM=bin/evenweave] [FLAGS...]
#
# EVERY="1000000 10" are the other intervals to try. For 25.5 million parameters (DATA is a directory of text):
#
#	(cd examples/gpt && go build -o ../../bin/gpt .)
#	EVERY="1000000 10" deploy/bench/checkpoints.sh 3 30 bin/gpt --data DATA --layers 8 --width 512 --heads 8 \
#		--global-batch 8 --micro-batch 4
set -euo pipefail
cd "$(dirname "$0")/../.."
rounds=${1:-5} steps=${2:-400} program=${3:-bin/evenweave}
shift $(($# < 3 ? $# : 3))
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# uses prints clock ticks of a process and its children by role, until it ends.
uses() {
	while [ -d "/proc/$1" ]; do
		for pid in $1 $(pgrep -P "$1"); do
			role=$(tr '\0' '\n' <"/proc/$pid/cmdline" | sed -n 2p)
			ticks=$(sed 's/.*) //' "/proc/$pid/stat" | awk '{print $12 + $13}')
			echo "$pid ${role:-gone} ${ticks:-0}"
		done 2>/dev/null
		sleep 0.5
	done
}

echo "round every images/s coordinator workers others checkpoints mean-save-ms"
for round in $(seq "$rounds"); do
	for every in ${EVERY:-1000000 10 1}; do
		dir=$work/$round-$every
		"$program" train --workers 2 --steps "$steps" --checkpoint-every "$every" --evaluate=false --http "" \
			--dir "$dir" -o json "$@" >"$work/events" 2>"$work/errors" &
		running=$!
		uses "$running" >"$work/uses" || true
		wait "$running" || { cat "$work/errors" >&2; exit 1; }
		rate=$(grep '"event":"done"' "$work/events" | grep -o '"samples_per_second":[0-9.]*' | cut -d: -f2)
		cost=$(awk -v n="$steps" -v hz="$(getconf CLK_TCK)" '
			$3 > last[$1] {last[$1] = $3}
			$2 != "gone" {role[$1] = $2}
			END {
				for (p in last) used[role[p] ~ /^(coordinator|worker)$/ ? role[p] : "other"] += last[p] * 1000 / hz / n
				printf "%.1f %.1f %.1f", used["coordinator"], used["worker"], used["other"]
			}' "$work/uses")
		saves=$(grep '"event":"checkpoint"' "$work/events" | grep -o '"seconds":[0-9.e-]*' | cut -d: -f2 |
			awk '{s += $1} END {printf "%d %.1f", NR, 1000 * s / (NR ? NR : 1)}')
		echo "$round $every $rate $cost $saves"
		rm -rf "$dir"
	done
done | tee "$work/rows"
awk '{n[$2]++; s[$2] += $3; for (i = 4; i < 7; i++) c[$2, i] += $i} END {
	all = s[1000000] / n[1000000]
	for (e in n) {
		printf "every %s: %.0f images/s, %+.1f%%; processor-ms a step:", e, s[e] / n[e], 100 * (s[e] / n[e] / all - 1)
		printf " coordinator %.1f, workers %.1f, others %.1f\n", c[e, 4] / n[e], c[e, 5] / n[e], c[e, 6] / n[e]
	}
}' "$work/rows"
echo "parts of one save:"
GOEXPERIMENT=simd go test ./checkpoint ./coordinator -run "^$" -bench Save -benchtime 200x | grep Benchmark
