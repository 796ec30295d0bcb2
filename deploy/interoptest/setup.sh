#!/bin/sh
# Makes a Python environment with the readers of requirements.txt, pinned by hash, in DIR (.evenweave/interop in the
# repository unless given). Safe to repeat. It says what it lacks and exits 0: the tests say that they are skipped.
#
#   EVENWEAVE_SUDO=1      may use sudo to install Python's venv where it is missing
set -eu

here=$(cd "$(dirname "$0")" && pwd)
target=${1:-$here/../../.evenweave/interop}
list=$here/requirements.txt

warn() { printf 'test-interop: %s\n' "$*" >&2; }
can_make() { python3 -I -c 'import ensurepip, venv' >/dev/null 2>&1; }

cmp -s "$list" "$target/installed.txt" && exit 0
if ! can_make && command -v apt-get >/dev/null; then
	as=
	if [ "$(id -u)" != 0 ]; then as='sudo -n'; fi
	if [ -z "$as" ] || [ "${EVENWEAVE_SUDO:-}" = 1 ]; then
		$as apt-get -qq update >/dev/null && $as env DEBIAN_FRONTEND=noninteractive \
			apt-get -qq install -y --no-install-recommends python3-venv >/dev/null || warn "apt cannot install python3-venv"
	fi
fi
can_make || { warn 'Python 3 with venv is missing'; exit 0; }
rm -rf "$target"
mkdir -p "$(dirname "$target")"
python3 -I -m venv "$target"
echo 'test-interop: installing the readers (240 MB, 1 GB on disk)'
"$target/bin/python" -I -m pip install --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
	--require-hashes -r "$list" || { warn 'pip cannot install the readers here'; rm -rf "$target"; exit 0; }
cp "$list" "$target/installed.txt"
