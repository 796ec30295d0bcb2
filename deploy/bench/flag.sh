#!/bin/sh
# What it costs the examples that XLA's products take one form on all processors of a class:
# deploy/bench/flag.sh [ROUNDS [STEPS]]
#
# Runs with and without the flag take turns; the last lines are medians over the rounds, of a step's compute time. With
# the defaults, 5 rounds of 40 steps, it takes seven minutes on two idle processors.
set -eu
cd "$(dirname "$0")/../.."
rounds=${1:-5} steps=${2:-40}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
for example in tabular gpt resnet; do
	(cd "examples/$example" && go build -o "$dir/$example" .)
done
"$dir/tabular" generate "$dir/flats.csv"

compare() {
	name=$1
	shift
	echo "$name $*"
	FLAG=--xla_cpu_enable_platform_dependent_math=true deploy/bench/steps.sh "$rounds" "$dir/$name" "$@" |
		tee "$dir/$name.txt"
}
# column [-v] prints the median compute time of the rounds whose lines have the flag, or have it not.
column() {
	grep ${1-} ' with ' "$dir/$name.txt" | sed 's/.*compute \([0-9.]*\) ms.*/\1/' | sort -g |
		awk '{ x[NR] = $1 } END { print x[int((NR + 1) / 2)] }'
}
compare tabular --data "$dir/flats.csv" --steps $((steps * 5))
compare gpt --steps "$steps" --global-batch 8 --micro-batch 8 --layers 4 --width 256 --heads 4
compare resnet --steps "$steps" --data .evenweave/data
echo
for name in tabular gpt resnet; do
	echo "$name: one form $(column -v) ms, the processor's own $(column) ms"
done
