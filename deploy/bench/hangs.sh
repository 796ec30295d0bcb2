#!/bin/bash
# How the floor of the suspicion and the probe's timeout trade the recovery from a hang against false evictions: for
# each pair, SIGSTOP of a worker to the next commit, and healthy members evicted while the machine has a load of 10.
# Usage: deploy/bench/hangs.sh [TRIALS=30] [LOAD_SECONDS=300] [PAIR...]   PAIR: FLOOR_MS:TIMEOUT_MS, as 300:600
set -euo pipefail
cd "$(dirname "$0")/../.."
trials=${1:-30} seconds=${2:-300}
shift $(($# < 2 ? $# : 2))
pairs=("$@")
[ ${#pairs[@]} -gt 0 ] || pairs=(150:300 300:600 300:1000 600:1500)
work=$(mktemp -d)
burners=()
finish() {
	[ ${#burners[@]} -eq 0 ] || kill "${burners[@]}" 2>/dev/null || true
	rm -rf "$work"
}
trap finish EXIT
git ls-files -z | xargs -0 cp --parents -t "$work" 2>/dev/null || true
ln -s "$(realpath .evenweave)" "$work/.evenweave"
for pair in "${pairs[@]}"; do
	floor=${pair%:*} timeout=${pair#*:}
	sed -i "s/suspectFloor = .*/suspectFloor = $floor * time.Millisecond/; s/ProbeTimeout = .*/ProbeTimeout = $timeout * \
time.Millisecond/" "$work/internal/policy/deadlines.go"
	(cd "$work" && GOEXPERIMENT=simd go build -o bin/evenweave ./cmd/evenweave)
	# a step of about 50 ms: 128 images with two workers on two processors
	"$work/bin/evenweave" chaos --faults stop --settle --count "$trials" --workers 2 --steps $((trials * 150)) \
		--global-batch 128 --micro-batch 16 --checkpoint-every 1000000 --evaluate=false --timeout 60m >"$work/out" 2>&1 ||
		true
	hang=$(grep 'first commit p50' "$work/out" || echo "no recovery: $(tail -1 "$work/out")")
	for _ in $(seq 8); do (while :; do :; done) & burners+=($!); done # beside two workers
	timeout "$seconds" "$work/bin/evenweave" train --workers 2 --epochs 1000 --http "" --dir "$work/run" -o json \
		>"$work/events" 2>/dev/null || true
	kill "${burners[@]}" && burners=()
	evicted=$(grep '"event":"world"' "$work/events" | grep -c 'does not answer\|is gone' || true)
	echo "floor $floor ms, timeout $timeout ms: $hang; $evicted healthy members evicted in $seconds s at load 10"
	rm -rf "$work/run"
done
