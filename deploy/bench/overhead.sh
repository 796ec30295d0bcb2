#!/bin/bash
# What it costs to be watched, on an idle machine: alternating runs with two workers,
#   off     no page is served, no events are printed, no traces
#   page    -o json, and a reader of the page's stream all the while
#   traces  the same, and coordinator and workers send traces to a receiver that throws them away (needs python3)
# Each run gives the median time of a step, without its first hundred; at the end the medians of all runs, and the cost.
# usage: deploy/bench/overhead.sh [ROUNDS [STEPS [flags of train...]]]
set -eu
ew=${EVENWEAVE:-bin/evenweave} rounds=${1:-5} steps=${2:-600}
shift $(($# < 2 ? $# : 2))
all=$(mktemp -d)
receiver= reader=
trap 'kill $receiver $reader 2>/dev/null || true; rm -rf "$all"' EXIT

median() { sort -g | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }
step() { grep '"event":"step"' "$1/metrics.jsonl" | tail -n +101 | sed 's/.*"seconds":\([0-9.e-]*\).*/\1/' | median; }

off() { "$ew" train --steps "$steps" --workers 2 --evaluate=false --dir "$1" --http= "${@:2}" >"$1.out" 2>&1; }
page() {
	"$ew" train --steps "$steps" --workers 2 --evaluate=false --dir "$1" -o json "${@:2}" >"$1.out" 2>"$1.err" &
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
		step "$dir" >>"$all/$arm"
		echo "round $round, $arm: $(tail -n 1 "$all/$arm") s a step"
		rm -rf "$dir"
	done
done
for arm in $arms; do
	echo "$arm $(median <"$all/$arm")" >>"$all/result"
done
awk '{ if (NR == 1) off = $2; printf "%-7s %8.3f ms a step  %+.2f%%\n", $1, 1e3 * $2, 100 * ($2 / off - 1) }' "$all/result"
echo "the stream of the page: $(wc -c <"$all/page-$rounds.stream") bytes in $steps steps; the events: $(wc -c <"$all/page-$rounds.out") bytes"
[ "$arms" = "off page" ] || echo "the receiver of traces got $(wc -c <"$all/received") bytes in $rounds runs"
