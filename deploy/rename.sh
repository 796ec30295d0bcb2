#!/usr/bin/env bash
# Gives this module another name, in go.mod, in import lines, and in the modules under examples/: nothing else knows it.
# make rename MODULE=host/owner/evenweave
set -euo pipefail
cd "$(dirname "$0")/.."
new=${1:?"name the module: make rename MODULE=host/owner/evenweave"}
old=$(go list -m)
[ "$new" != "$old" ] || { echo "the module is named $old already"; exit 0; }
go mod edit -module "$new"
pattern='^([[:space:]]*(import[[:space:]]+)?([[:alnum:]_.]+[[:space:]]+)?")'${old//./\\.}'((/[^"]*)?"([[:space:]]*//.*)?)$'
find . -name '*.go' -not -path './.*' -print0 | xargs -0 sed -i -E "s#$pattern#\1$new\4#"
for file in examples/*/go.mod; do
	[ -e "$file" ] || continue
	go mod edit -droprequire "$old" -dropreplace "$old" -require "$new@v0.0.0" -replace "$new=../.." "$file"
done
find . -name '*.go' -not -path './.*' -not -path './proto/*.pb.go' -print0 | xargs -0 gofmt -w
echo "the module is named $new now"
