#!/bin/bash
# What a durable checkpoint costs two workers: alternating runs with a checkpoint at no step, every ten and every one,
# with processor-ms a step by process: of the coordinator, of all workers, of etcd and the parent together, and of the
# kernel's own threads with whatever else the machine does. delay-ms compares steps of one run: by how much the four
# steps from a due one on are longer than the others. From the repository's root, after `make build`:
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

# uses prints clock ticks of a process and its children by role, until it ends. It starts no process but sleep: with two
# processors, what measures would be measured.
uses() {
	local pids part pid line role
	while [ -d "/proc/$1" ]; do
		pids=$1
		for part in "/proc/$1"/task/*/children; do
			line="" # no newline ends it
			read -r line <"$part" || true
			pids+=" $line"
		done
		for pid in $pids; do
			mapfile -d '' -t role <"/proc/$pid/cmdline" && read -r line <"/proc/$pid/stat" || continue
			set -- "$1" ${line##*) }
			echo "$pid ${role[1]:-gone} $((${13} + ${14}))"
		done
		sleep 0.5
	done 2>/dev/null
}

# busy is how many clock ticks all processors have worked so far, for anything.
busy() { awk '/^cpu / {print $2 + $3 + $4 + $7 + $8}' /proc/stat; }

# delay is by how many ms the four steps from a due one on are longer than the others, by the mean of each place between
# two due steps without what is over three times the median: a due state is copied in its step, agreed on in the next,
# then hashed, fetched and saved.
delay() {
	[ "$1" -ge 8 ] && [ "$1" -lt "$2" ] || { echo -; return; }
	sed -n 's/.*"event":"step".*"step":\([0-9]*\).*"seconds":\([0-9.e-]*\).*/\1 \2/p' "$work/events" | tail -n +21 |
		sort -g -k 2 | awk -v every="$1" '{step[NR] = $1; took[NR] = $2} END {
			for (i = 1; i <= NR; i++) {
				if (took[i] > 3 * took[int((NR + 1) / 2)]) continue
				place = step[i] % every; near = place < 4
				n[place]++; sum[place] += took[i]
				if (!near) { others++; all += took[i] }
			}
			for (place = 0; place < 4; place++) more += sum[place] / n[place] - all / others
			printf "%.1f\n", 1000 * more
		}'
}

echo "round every images/s coordinator workers others kernel delay-ms checkpoints mean-save-ms"
for round in $(seq "$rounds"); do
	for every in ${EVERY:-1000000 10 1}; do
		dir=$work/$round-$every
		before=$(busy)
		"$program" train --workers 2 --steps "$steps" --checkpoint-every "$every" --evaluate=false --http "" \
			--dir "$dir" -o json "$@" >"$work/events" 2>"$work/errors" &
		running=$!
		uses "$running" >"$work/uses" || true
		wait "$running" || { cat "$work/errors" >&2; exit 1; }
		worked=$(($(busy) - before))
		rate=$(grep '"event":"done"' "$work/events" | grep -o '"samples_per_second":[0-9.]*' | cut -d: -f2)
		cost=$(awk -v n="$steps" -v hz="$(getconf CLK_TCK)" -v worked="$worked" '
			$3 > last[$1] {last[$1] = $3}
			$2 != "gone" {role[$1] = $2}
			END {
				used["kernel"] = worked * 1000 / hz / n
				for (p in last) {
					used[role[p] ~ /^(coordinator|worker)$/ ? role[p] : "other"] += last[p] * 1000 / hz / n
					used["kernel"] -= last[p] * 1000 / hz / n
				}
				printf "%.1f %.1f %.1f %.1f", used["coordinator"], used["worker"], used["other"], used["kernel"]
			}' "$work/uses")
		saves=$(grep '"event":"checkpoint"' "$work/events" | grep -o '"seconds":[0-9.e-]*' | cut -d: -f2 |
			awk '{s += $1} END {printf "%d %.1f", NR, 1000 * s / (NR ? NR : 1)}')
		echo "$round $every $rate $cost $(delay "$every" "$steps") $saves"
		rm -rf "$dir"
	done
done | tee "$work/rows"
awk '{n[$2]++; s[$2] += $3; for (i = 4; i < 9; i++) c[$2, i] += $i} END {
	all = s[1000000] / n[1000000]
	for (e in n) {
		printf "every %s: %.0f images/s, %+.1f%%; processor-ms a step:", e, s[e] / n[e], 100 * (s[e] / n[e] / all - 1)
		printf " coordinator %.2f, workers %.2f, others %.2f, kernel %.2f", c[e, 4] / n[e], c[e, 5] / n[e],
			c[e, 6] / n[e], c[e, 7] / n[e]
		if (c[e, 8]) printf "; a checkpoint delays its run by %.1f ms", c[e, 8] / n[e]
		print ""
	}
}' "$work/rows"
echo "parts of one save:"
GOEXPERIMENT=simd go test ./checkpoint ./coordinator -run "^$" -bench Save -benchtime 200x | grep Benchmark
