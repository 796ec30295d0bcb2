#!/bin/bash
# Training on data of four times the page cache: GPT on a text that a limit on memory keeps from being cached, beside
# the same run without the limit. The limit is a memory cgroup (version 1 or 2); for root.
# The first steps cost more than the others: each block of 4 MiB is read and hashed when it is first needed.
# Usage: deploy/bench/larger-than-memory.sh [GIGABYTES=4] [STEPS=400] [ROUNDS=3]
set -euo pipefail
cd "$(dirname "$0")/../.."
size=${1:-4} steps=${2:-400} rounds=${3:-3}
work=$(mktemp -d)
group=/sys/fs/cgroup/memory/evenweave-bench file=memory.limit_in_bytes
[ -d /sys/fs/cgroup/memory ] || { group=/sys/fs/cgroup/evenweave-bench file=memory.max; }
finish() {
	rm -rf "$work"
	rmdir "$group" 2>/dev/null || true
}
trap finish EXIT
mkdir -p "$work/text" "$group"
(cd examples/gpt && GOEXPERIMENT=simd go build -o "$work/gpt" .)
ln -s "$(realpath .evenweave)" "$work/.evenweave"
source=$work/source
find "$(go env GOROOT)/src" -type f -name '*.go' -print0 | xargs -0 cat >"$source"
for i in $(seq "$size"); do # files of a gigabyte, no two alike
	{ echo "// $i"; while cat "$source"; do :; done; } 2>/dev/null | head -c 1000000000 >"$work/text/$i.go" || true
done
rm "$source"
run() { # LIMITED ROUND
	dir=$work/run-$1-$2
	(
		[ "$1" = no ] || echo $BASHPID >"$group/cgroup.procs"
		exec "$work/gpt" train --data "$work/text" --workers 2 --steps "$steps" --evaluate=false --http "" --dir "$dir" \
			-o json >"$work/events" 2>"$work/errors"
	) || tail -3 "$work/errors"
	grep '"event":"done"' "$work/events" | grep -o '"samples_per_second":[0-9.]*' | cut -d: -f2
	rm -rf "$dir"
}
echo "$((size * 1000000000 / 4 + 1500000000))" >"$group/$file" # a quarter of the data, beside the processes' own
for round in $(seq "$rounds"); do
	free=$(run no "$round")
	sync
	echo 1 >/proc/sys/vm/drop_caches 2>/dev/null || true
	limited=$(run yes "$round")
	awk -v a="$free" -v b="$limited" 'BEGIN {
		printf "cached %s windows/s, larger than memory %s windows/s: %+.1f%%\n", a, b, 100 * (b / a - 1) }'
done
