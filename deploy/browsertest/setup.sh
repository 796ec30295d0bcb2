#!/usr/bin/env bash
# Installs Chromium with apt where that is possible: for root, or with EVENWEAVE_SUDO=1. The test says what it lacks.
set -euo pipefail
command -v chromium chromium-browser google-chrome >/dev/null && exit
command -v apt-get >/dev/null || exit 0
as=()
if [ "$(id -u)" != 0 ]; then
  [ "${EVENWEAVE_SUDO:-}" = 1 ] || exit 0
  as=(sudo)
fi
"${as[@]}" apt-get update -qq && "${as[@]}" env DEBIAN_FRONTEND=noninteractive \
  apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null ||
  echo "test-browser: apt cannot install chromium here" >&2
