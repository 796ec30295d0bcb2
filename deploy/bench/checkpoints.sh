#!/bin/bash
# What a durable checkpoint costs two workers: alternating runs with a checkpoint at no step, every ten and every one.
# Usage: deploy/bench/checkpoints.sh [ROUNDS=5] [STEPS=400]
set -euo pipefail
cd "$(dirname "$0")/../.."
rounds=${1:-5} steps=${2:-400}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
echo "round every images/s processor-s/step checkpoints mean-save-ms"
for round in $(seq "$rounds"); do
	for every in 1000000 10 1; do
		dir=$work/$round-$every
		TIMEFORMAT='%U %S'
		{ time bin/evenweave train --workers 2 --steps "$steps" --checkpoint-every "$every" --evaluate=false --http "" \
			--dir "$dir" -o json >"$work/events" 2>"$work/errors"; } 2>"$work/time"
		rate=$(grep '"event":"done"' "$work/events" | grep -o '"samples_per_second":[0-9.]*' | cut -d: -f2)
		cost=$(awk -v n="$steps" '{printf "%.4f", ($1 + $2) / n}' "$work/time")
		saves=$(grep '"event":"checkpoint"' "$work/events" | grep -o '"seconds":[0-9.e-]*' | cut -d: -f2 |
			awk '{s += $1} END {printf "%d %.1f", NR, 1000 * s / (NR ? NR : 1)}')
		echo "$round $every $rate $cost $saves"
		rm -rf "$dir"
	done
done | tee "$work/rows"
awk '{n[$2]++; s[$2] += $3} END {
	all = s[1000000] / n[1000000]
	for (e in n) printf "every %s: %.0f images/s, %+.1f%%\n", e, s[e] / n[e], 100 * (s[e] / n[e] / all - 1)
}' "$work/rows"
echo "parts of one save:"
GOEXPERIMENT=simd go test ./checkpoint ./coordinator -run "^$" -bench Save -benchtime 200x | grep Benchmark
