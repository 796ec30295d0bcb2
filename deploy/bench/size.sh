#!/bin/sh
# What a step costs where there are millions of parameters, beside PyTorch DDP on Gloo in the same run. From the
# repository's root: deploy/bench/size.sh DATA [ROUNDS], where DATA is a directory of Go source, to train on.
# PYTHON names a Python with torch and numpy; without one, the peer is left out.
set -eu
export GOEXPERIMENT=simd
data=${1:?usage: deploy/bench/size.sh DATA [ROUNDS]} rounds=${2:-5}
go build -o bin/evenweave ./cmd/evenweave
(cd examples/gpt && go build -o ../../bin/gpt .)
peer() { if [ -n "${PYTHON:-}" ]; then "$PYTHON" deploy/bench/peer.py "$@"; fi; }
step() { # LAYERS WIDTH GLOBAL MICRO STEPS WORKERS
	echo "evenweave gpt --layers $1 --width $2, batch $3, micro-batch $4, N=$6"
	bin/gpt bench step --data "$data" --layers "$1" --width "$2" --heads $(($2 / 64)) --global-batch "$3" \
		--micro-batch "$4" --steps "$5" --workers "$6"
}
for round in $(seq "$rounds"); do
	echo "round $round of $rounds"
	step 4 256 32 16 8 2
	peer gpt 2 16 4 256
	step 8 512 32 16 6 2
	peer gpt 2 16 8 512
	for n in 2 4; do
		bin/evenweave bench allreduce --workers "$n" --bytes 102M --time 2s
		peer allreduce "$n" 102000000
	done
	bin/evenweave bench step --workers 2 --steps 60
done
echo "memory of a worker, one lane, 100 million parameters"
step 32 512 2 1 1 1
