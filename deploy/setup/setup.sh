#!/bin/sh
# Fetches what training needs and verifies it by SHA-256: XLA's CPU plug-in and
# the Fashion-MNIST files. Safe to repeat; does nothing when all is in place.
#
#   setup.sh [DIR]        DIR is .evenweave in the repository unless given
#   EVENWEAVE_XLA=none    leaves the plug-in out (the "go" backend needs none)
#   EVENWEAVE_XLA=cuda    fetches the one for NVIDIA GPUs, with its libraries, as
#                         well (0.9 GB; 1.8 GB on disk; Linux/amd64)
#   EVENWEAVE_SUDO=1      may use sudo to install pip or gcc where they are missing
#
# Equal bits need an equal plug-in, so on Linux/amd64 it is one pinned build.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
target=${1:-$root/.evenweave}

wheel='fastatomstruct-xla-cpu==2026.6.23'
wheel_sha256=88b1c430b341b4bea40a37420311c9c75db6e22b46d2ff95b6986577bee6afe9
wheel_member=fastatomstruct_xla_cpu/libpjrt_cpu.so
plugin_sha256=0a0fe56ca17be9efc7b942e89e534e5e0ad4a0f1e369b66d27b62184509015b9
cuda_sha256=43d3efd6fd43d8a5d9aa67176e830d81e4ad5fc19fda4ad09cdcc4aebd9f3920 # in the wheel of cuda.txt
mirror=http://fashion-mnist.s3-website.eu-central-1.amazonaws.com

case ${EVENWEAVE_XLA:-} in
'' | none | cuda) ;;
*) echo "setup: EVENWEAVE_XLA=$EVENWEAVE_XLA: must be none, cuda or empty" >&2; exit 2 ;;
esac

say() { printf 'setup: %s\n' "$*"; }
warn() { printf 'setup: %s\n' "$*" >&2; }
have() { command -v "$1" >/dev/null 2>&1; }

sha256s() {
	if have sha256sum; then sha256sum "$@"; else shasum -a 256 "$@"; fi
}

sha256() {
	sha256s "$1" | cut -d' ' -f1
}

# verified FILE SHA256: true if the contents match. They are read each time: it
# takes a second, and a file that was put back with its old time is noticed.
verified() {
	[ -f "$1" ] && [ ! -L "$1" ] && [ "$(sha256 "$1")" = "$2" ]
}

# as_root COMMAND...: runs it as root. Without being root it needs leave: EVENWEAVE_SUDO=1.
as_root() {
	if [ "$(id -u)" = 0 ]; then "$@"
	elif [ "${EVENWEAVE_SUDO:-}" = 1 ] && have sudo; then sudo -n "$@"
	else
		echo "not root: run \"sudo $*\", or set EVENWEAVE_SUDO=1" >"$work/log"
		warn "$(cat "$work/log")"
		return 1
	fi
}

# install PACKAGE...: by apt.
install() {
	as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 update >/dev/null &&
		as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 \
			install -y --no-install-recommends "$@" >/dev/null
}

apt() { apt-get -qq -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 "$@"; }

work=$(mktemp -d)
trap 'rm -rf "$work" "$target/cuda.part.$$"' EXIT
trap 'exit 130' INT TERM
mkdir -p "$target/xla" "$target/data"

# --- XLA's CPU plug-in ---------------------------------------------------

find_pip() {
	python3 -I -m pip --version >/dev/null 2>&1 # -I: no modules from the working directory
}

get_pip() {
	find_pip && return 0
	have apt-get || return 1
	say "pip is missing: installing it with apt (a minute or two)"
	install python3-pip && find_pip
}

# unzip_wheel WHEEL DIR
unzip_wheel() {
	python3 -I -m zipfile -e "$1" "$2"
}

pinned_plugin() {
	plugin=$target/xla/pjrt_c_api_cpu_plugin.so
	if verified "$plugin" "$plugin_sha256"; then
		say "XLA plug-in: in place"
		return 0
	fi
	if [ -f "$plugin" ]; then say "XLA plug-in: $plugin is not the pinned build, replacing it"; fi
	get_pip || { warn "XLA plug-in: no pip, and apt could not install it ($(tail -n 1 "$work/log" 2>/dev/null))"; return 1; }
	say "XLA plug-in: downloading $wheel (63 MB)"
	printf '%s --hash=sha256:%s\n' "$wheel" "$wheel_sha256" >"$work/requirements.txt"
	python3 -I -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --require-hashes \
		-r "$work/requirements.txt" -d "$work" 2>"$work/log" || {
		warn "XLA plug-in: download failed: $(tail -n 1 "$work/log")"
		return 1
	}
	unzip_wheel "$work"/*.whl "$work/wheel"
	verified "$work/wheel/$wheel_member" "$plugin_sha256" || { warn "XLA plug-in: wrong SHA-256 inside the wheel"; return 1; }
	chmod 755 "$work/wheel/$wheel_member"
	mv "$work/wheel/$wheel_member" "$plugin.part" && mv "$plugin.part" "$plugin"
	verified "$plugin" "$plugin_sha256"
	say "XLA plug-in: $plugin"
}

xla() {
	case ${EVENWEAVE_XLA:-}/$(uname -s)/$(uname -m) in
	none/*) say "XLA plug-in: left out as asked"; return 0 ;;
	*/Linux/x86_64) pinned_plugin || return 1 ;;
	*) warn "XLA plug-in: none is pinned by its hash for $(uname -s)/$(uname -m), and native code is not taken unverified"; return 1 ;;
	esac
}

# cuda installs the packages of cuda.txt. The plug-in looks for the libraries in
# ../nvidia, seen from its own folder.
cuda() {
	list=$here/cuda.txt
	plugin=$target/xla/pjrt_c_api_cuda_plugin.so
	if verified "$plugin" "$cuda_sha256" && cmp -s "$list" "$target/nvidia/installed.txt" &&
		(cd "$target/nvidia" && sha256s -c .files.sha256) >/dev/null 2>&1; then
		say "XLA plug-in for NVIDIA GPUs: in place"
		return 0
	fi
	[ "$(uname -s)/$(uname -m)" = Linux/x86_64 ] || { warn "XLA plug-in for NVIDIA GPUs: there is one for Linux/x86_64 only"; return 1; }
	get_pip || { warn "XLA plug-in for NVIDIA GPUs: no pip, and apt could not install it"; return 1; }
	say "XLA plug-in for NVIDIA GPUs: downloading it and its libraries (0.9 GB)"
	part=$target/cuda.part.$$
	rm -rf "$part" && mkdir -p "$part/wheels" || return 1
	python3 -I -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --require-hashes --no-cache-dir \
		--python-version 3.12 --platform manylinux_2_27_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
		-r "$list" -d "$part/wheels" 2>"$work/log" || {
		warn "XLA plug-in for NVIDIA GPUs: download failed: $(tail -n 1 "$work/log")"
		return 1
	}
	for wheel in "$part"/wheels/*.whl; do
		unzip_wheel "$wheel" "$part" && rm "$wheel" || { warn "XLA plug-in for NVIDIA GPUs: cannot unpack $wheel"; return 1; }
	done
	verified "$part/jax_plugins/xla_cuda13/xla_cuda_plugin.so" "$cuda_sha256" ||
		{ warn "XLA plug-in for NVIDIA GPUs: wrong SHA-256 inside the wheel"; return 1; }
	# The wheels were verified: what came out of them is what later runs expect.
	(cd "$part/nvidia" && find . -type f -exec sh -c 'if command -v sha256sum >/dev/null; then sha256sum "$@"; else shasum -a 256 "$@"; fi' _ {} +) \
		>"$part/files.sha256" && mv "$part/files.sha256" "$part/nvidia/.files.sha256" || return 1
	# The list comes last: it says that all of it is in place.
	rm -rf "$target/nvidia" "$plugin" && mv "$part/nvidia" "$target/nvidia" &&
		mv "$part/jax_plugins/xla_cuda13/xla_cuda_plugin.so" "$plugin" && cp "$list" "$target/nvidia/installed.txt" || {
		warn "XLA plug-in for NVIDIA GPUs: cannot be put into $target"
		return 1
	}
	say "XLA plug-in for NVIDIA GPUs: $plugin"
}

# The XLA binding is C: without a compiler Go leaves it out.
compiler() {
	[ "$(uname -s)" = Linux ] && [ "${EVENWEAVE_XLA:-}" != none ] || return 0
	have "${CC:-gcc}" && return 0
	have apt-get || return 1
	say "no C compiler: installing gcc with apt (a minute or two)"
	install gcc libc6-dev && have gcc
}

compiler || warn "no C compiler: the build will leave XLA out"
xla || warn 'XLA plug-in: not available; training will use the "go" backend (several times slower, same promises)'

if [ "${EVENWEAVE_XLA:-}" = cuda ]; then cuda || exit 1; fi

# --- Fashion-MNIST -------------------------------------------------------

names='train-images-idx3-ubyte train-labels-idx1-ubyte t10k-images-idx3-ubyte t10k-labels-idx1-ubyte'

expected() {
	case $1 in
	train-images*) echo c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888 ;;
	train-labels*) echo bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9 ;;
	t10k-images*) echo 5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b ;;
	t10k-labels*) echo 0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34 ;;
	esac
}

data_complete() {
	for n in $names; do verified "$target/data/$n" "$(expected "$n")" || return 1; done
}

# What a file has at most, packed or not: the largest has 47,040,016 bytes.
most=47040016

# bounded COMMAND...: its output, of which one byte too many shows that the rest was cut off.
bounded() { "$@" | head -c $((most + 1)); }

# unpack_from DIR: uncompressed copies of the four gz files in it, if right.
# Debian and upstream compress differently, so the contents are what is checked.
unpack_from() {
	for n in $names; do
		[ -f "$1/$n.gz" ] || return 1
		bounded gunzip -c "$1/$n.gz" >"$target/data/$n.part" || return 1
		if [ "$(sha256 "$target/data/$n.part")" != "$(expected "$n")" ]; then
			warn "data: $1/$n.gz has unexpected contents"
			rm -f "$target/data/$n.part"
			return 1
		fi
		mv "$target/data/$n.part" "$target/data/$n"
	done
	data_complete
}

from_debian() {
	have apt-get && have dpkg || return 1
	say "data: fetching Debian's dataset-fashion-mnist (31 MB)"
	mkdir -p "$work/deb" "$work/apt/lists/partial" "$work/apt/cache/archives/partial"
	chmod 755 "$work" "$work/deb"
	cd "$work/deb"
	if ! apt download dataset-fashion-mnist >"$work/log" 2>&1; then
		# No package lists yet: fetch some, in a folder of our own (no root).
		: >"$work/apt/status"
		set -- -o Dir::State::lists="$work/apt/lists" -o Dir::Cache="$work/apt/cache"
		[ "$(id -u)" = 0 ] && chown -R _apt "$work/apt" "$work/deb" 2>/dev/null # apt fetches as _apt, not as root
		apt "$@" update >"$work/log" 2>&1 || return 1
		apt "$@" download dataset-fashion-mnist >"$work/log" 2>&1 || return 1
	fi
	dpkg -x "$work"/deb/*.deb "$work/deb" && unpack_from "$work/deb/usr/share/datasets/fashion-mnist"
}

from_mirror() {
	have curl || { warn "data: curl is missing"; return 1; }
	say "data: fetching from the upstream mirror (31 MB)"
	mkdir -p "$work/mirror"
	for n in $names; do
		curl -fsS --retry 3 --connect-timeout 20 --max-time 600 --max-filesize "$most" "$mirror/$n.gz" | head -c "$most" >"$work/mirror/$n.gz"
	done
	unpack_from "$work/mirror"
}

data() {
	if data_complete; then
		say "data: in place"
		return 0
	fi
	unpack_from /usr/share/datasets/fashion-mnist || (from_debian) || from_mirror || return 1
	say "data: $target/data"
}

data || {
	warn "data: could not be fetched. Put these files (or their .gz) into $target/data by hand: $names"
	exit 1
}
