#!/bin/bash
# Whether processors give the same bits: deploy/bench/processors.sh STEPS RECIPE [PROCESSOR]...
#
# Trains with one worker on each processor and prints the first digits of the weights' hash, and how long it took:
# host (this machine), isa=avx2 and width=128 (this machine, with its own loops for those vectors), or another one:
# zen2, zen3, zen4, zen5, haswell, skylake, icelake, sapphirerapids (without AMX where the machine has none). CPUID
# answers as that processor does, and all runs at full speed: where the machine does not let it fault, in a copy of the
# plug-in that has another instruction in its place, which needs binutils and a minute. BACKEND=go, whose programs know
# no more of a processor than whether it has AVX-512, runs in qemu-user there, about 50 times slower, and without
# AVX-512; EMULATOR=qemu-user has XLA run so too. From the repository, after `make build`.
set -eu
[ $# -ge 2 ] || { sed -n '2,$s/^# \{0,1\}//p;/^set/q' "$0" >&2; exit 2; }
steps=$1 recipe=$2 real=$PWD/bin/evenweave
shift 2
[ $# -gt 0 ] || set -- host isa=avx2 width=128 width=512 zen2 zen3 haswell zen4 zen5 skylake icelake sapphirerapids
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mkdir "$dir/bin" && ln -s "$PWD/.evenweave" "$dir/.evenweave"

# train [NAME=VALUE]... trains with these variables; $wrapper, if any, is the program that the processes run as.
train() {
	cp "$real" "$dir/bin/evenweave"
	exec 9<"$dir/bin/evenweave" # the supervisor: it starts the others from the path that this file had
	if [ -n "$wrapper" ]; then
		printf '#!/bin/sh\n[ "$1" = worker ] && exec %s %s "$@"\nexec %s "$@"\n' "$wrapper" "$real" "$real" >"$dir/wrapped"
		chmod +x "$dir/wrapped" && mv "$dir/wrapped" "$dir/bin/evenweave"
	fi
	rm -rf "$dir/run"
	env "$@" /proc/self/fd/9 train --recipe "$recipe" --steps "$steps" --backend "${BACKEND-xla}" --workers 1 \
		--parallelism 1 --pin=false --evaluate=false --http= -o json --data "$PWD/.evenweave/data" --dir "$dir/run" \
		>"$dir/out" 2>"$dir/err" || { tail -n 3 "$dir/err"; return; }
	sed -n 's/.*"weights_sha256":"\([0-9a-f]\{12\}\).*/\1/p' "$dir/out" | tail -n 1
}

# answers NAME prints what CPUID says of that processor, if this machine has its vectors.
answers() {
	local model flag
	model=$(sed -n "s/.*{\"$1\", \"\([^\"]*\)\", \"\([^\"]*\)\"}.*/\1 \2/p" internal/processors/emulate.go | head -n 1)
	[ "$1" != sapphirerapids ] || grep -q amx_tile /proc/cpuinfo || model="${model% *} bf16"
	case ${model##* } in
	avx512) flag=avx512f ;;
	vbmi2 | bf16) flag=avx512_${model##* } ;;
	*) flag=avx2 ;;
	esac
	[ -n "$model" ] && grep -qw "$flag" /proc/cpuinfo && echo "$model"
}

# emulated NAME prints the variables with which CPUID faults and answers as that processor does, if this machine can.
emulated() {
	local model
	model=$(answers "$1") && cc -O1 -shared -fPIC internal/processors/cpuid/cpuid.c -o "$dir/cpuid.so" -ldl || return 1
	env "EVENWEAVE_CPUID=$model" "LD_PRELOAD=$dir/cpuid.so" /bin/true 2>/dev/null || return 1
	printf '%s\n' "EVENWEAVE_CPUID=$model" "LD_PRELOAD=$dir/cpuid.so"
}

# replaced NAME prints the variables with which the plug-in's copy finds that processor, if this machine can.
replaced() {
	local model
	model=$(answers "$1") && [ "${BACKEND-xla}" = xla ] && copy || return 1
	printf '%s\n' "EVENWEAVE_CPUID=$model replaced" "LD_PRELOAD=$dir/cpuid.so" "PJRT_PLUGIN_LIBRARY_PATH=$dir/xla"
}

# copy makes the copy of the plug-in: INVD, which faults in every program, takes the place of each CPUID.
copy() {
	local from=.evenweave/xla/pjrt_c_api_cpu_plugin.so start offset address
	[ ! -d "$dir/xla" ] || return 0
	read -r start offset < <(readelf -WS "$from" |
		sed -n 's/.* \.text *PROGBITS *\([0-9a-f]*\) \([0-9a-f]*\) .*/\1 \2/p')
	objdump -d -j .text "$from" | sed -n 's/^ *\([0-9a-f]*\):\t0f a2 .*cpuid.*/\1/p' >"$dir/cpuid"
	[ -s "$dir/cpuid" ] && cp "$from" "$dir/plugin.so" || return 1
	while read -r address; do
		printf '\x0f\x08' | dd of="$dir/plugin.so" bs=1 seek=$((16#$address - 16#$start + 16#$offset)) conv=notrunc \
			status=none
	done <"$dir/cpuid"
	mkdir "$dir/xla" && mv "$dir/plugin.so" "$dir/xla/${from##*/}"
}

printf '%s: %s\n' host "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)"
for processor; do
	wrapper='' how=real start=$SECONDS
	case $processor in
	host) weights=$(train) ;;
	isa=avx2) weights=$(train XLA_FLAGS=--xla_cpu_max_isa=AVX2 GOMLX_SIMD_AVX512=false) ;;
	width=*) weights=$(train "XLA_FLAGS=--xla_cpu_prefer_vector_width=${processor#width=}") ;;
	*)
		if [ "${EMULATOR-cpuid}" = cpuid ] && variables=$(emulated "$processor" || replaced "$processor"); then
			mapfile -t variables <<<"$variables"
			how=emulated weights=$(train "${variables[@]}")
		else
			how=qemu-user
			case $processor in
			haswell) wrapper='qemu-x86_64 -cpu Haswell' ;;
			zen2) wrapper='qemu-x86_64 -cpu EPYC-Rome' ;;
			zen3) wrapper='qemu-x86_64 -cpu EPYC-Milan' ;;
			*) weights='none: this machine has not its vectors, and qemu-user has no AVX-512' ;;
			esac
			[ -z "$wrapper" ] || weights=$(train)
		fi ;;
	esac
	printf '%-14s %-9s %-8s %4d steps  %s  (%d s)\n' "$processor" "$how" "$recipe" "$steps" "$weights" $((SECONDS - start))
done
