#!/bin/bash
# What it costs to be watched, on an idle machine: alternating runs with two workers,
#   off     no page is served, no events are printed, no traces
#   page    -o json, and a reader of the page's stream all the while
#   traces  the same, and coordinator and workers send traces to a receiver that throws them away (needs python3)
# Each run gives the median time of a step, without its first hundred, and the processor time of the run's own processes
# per step, without the readers': the one says what a user notices, the other what watching costs where nothing is idle.
# At the end come the medians of all runs, and of what a run costs more than the one without before it.
# usage: deploy/bench/overhead.sh [ROUNDS [STEPS [flags of train...]]]
set -eu
ew=${EVENWEAVE:-bin/evenweave} rounds=${1:-5} steps=${2:-600}
shift $(($# < 2 ? $# : 2))
all=$(mktemp -d)
receiver= reader=
trap 'kill $receiver $reader 2>/dev/null || true; rm -rf "$all"' EXIT

median() { sort -g | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }
step() { grep '"event":"step"' "$1/metrics.jsonl" | tail -n +101 | sed 's/.*"seconds":\([0-9.e-]*\).*/\1/' | median; }

TIMEFORMAT='%U %S' # of what time ran, and of its children: the coordinator and the workers
train() { # DIR OUTPUT ERRORS FLAGS...
	{ time "$ew" train --steps "$steps" --workers 2 --evaluate=false --dir "$1" "${@:4}" >"$2" 2>"$3"; } 2>"$1.time"
}
off() { train "$1" "$1.out" "$1.out" --http= "${@:2}"; }
page() {
	train "$1" "$1.out" "$1.err" -o json "${@:2}" &
	local run=$! url=
	until url=$(grep -ao '"url":"[^"]*' "$1.out"); do
		kill -0 $run 2>/dev/null || { cat "$1.err" >&2; return 1; }
		sleep 0.1
	done
	curl -sN "${url#*:\"}stream" >"$1.stream" &
	reader=$!
	wait $run
	kill $reader 2>/dev/null || true
}
traces() { OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:$port page "$@"; }

arms="off page"
if command -v python3 >/dev/null; then
	arms="off page traces"
	python3 -u -c '
import http.server, sys
received = open(sys.argv[1], "ab", 0)
class Sink(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        received.write(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200); self.send_header("Content-Length", "0"); self.end_headers()
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Sink)
print(server.server_port)
server.serve_forever()' "$all/received" >"$all/port" &
	receiver=$!
	until port=$(grep . "$all/port"); do sleep 0.1; done
fi
for round in $(seq "$rounds"); do
	for arm in $arms; do
		dir=$all/$arm-$round
		$arm "$dir" "$@"
		echo "$(step "$dir") $(awk -v n="$steps" '{ print ($1 + $2) / n }' "$dir.time")" >>"$all/$arm"
		awk -v arm="round $round, $arm" 'END { printf "%s: %.3f ms a step, %.3f ms of processors\n",
			arm, 1e3 * $1, 1e3 * $2 }' "$all/$arm"
		rm -rf "$dir"
	done
done
for arm in $arms; do
	paste -d ' ' "$all/off" "$all/$arm" >"$all/pairs"
	echo "$arm $(cut -d' ' -f1 "$all/$arm" | median) $(awk '{ print 100 * ($3 / $1 - 1) }' "$all/pairs" | median)" \
		"$(cut -d' ' -f2 "$all/$arm" | median) $(awk '{ print 100 * ($4 / $2 - 1) }' "$all/pairs" | median)"
done | awk '{ printf "%-7s %8.3f ms a step  %+.2f%%   %8.3f ms of processors  %+.2f%%\n",
	$1, 1e3 * $2, $3, 1e3 * $4, $5 }'
echo "the stream of the page: $(wc -c <"$all/page-$rounds.stream") bytes in $steps steps;" \
	"the events: $(wc -c <"$all/page-$rounds.out") bytes"
[ "$arms" = "off page" ] || echo "the receiver of traces got $(wc -c <"$all/received") bytes in $rounds runs"
