#!/bin/sh
# Writes the digests of the images' tags, as their registries say now, into docker-compose.yml, deploy/Dockerfile and the
# manifests. Nothing is changed unless every digest can be had. Again after a tag was changed.
set -eu
cd "$(dirname "$0")/.."
files="docker-compose.yml deploy/Dockerfile"
etcd=deploy/kubernetes/etcd/kustomization.yaml

images=$({ sed -n 's/^    image: \([a-z][^ @]*\).*/\1/p' docker-compose.yml
	sed -n 's/^ARG BASE=\([^@]*\).*/\1/p; s/^FROM \([a-z][^ @]*\).*/\1/p' deploy/Dockerfile; } | sort -u)
pins=
for image in $images; do
	digest=$(docker buildx imagetools inspect "$image" --format '{{.Manifest.Digest}}') || digest=
	case $digest in
	sha256:*) pins="$pins $image@$digest" ;;
	*) echo "pin: the registry of $image does not say its digest: nothing is changed" >&2; exit 1 ;;
	esac
done
for pin in $pins; do
	tag=${pin%@*}
	for file in $files; do
		sed "s#$tag\(@sha256:[0-9a-f]*\)\{0,1\}\( .*\)\{0,1\}\$#$pin\2#" "$file" >"$file.new" && cat "$file.new" >"$file" && rm "$file.new"
	done
	case $tag in
	*/etcd:*) sed "/^    digest:/d; s|^    newTag: ${tag##*:}\$|&\n    digest: ${pin#*@}|" "$etcd" >"$etcd.new" && cat "$etcd.new" >"$etcd" && rm "$etcd.new" ;;
	esac
	echo "$pin"
done
