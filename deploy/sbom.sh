#!/bin/sh
# What a build is made of, as CycloneDX 1.6: the Go modules in the program, and beside them XLA's plug-in, the data and the
# images that it is built from and runs with.
#
#   sbom.sh PROGRAM FILE    writes FILE
#   sbom.sh parts           the parts that are no Go modules, as components (without brackets)
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/.." && pwd)

# component TYPE NAME VERSION PURL [SHA256]
component() {
	printf '    {"type": "%s", "name": "%s", "version": "%s", "purl": "%s"' "$1" "$2" "$3" "$4"
	[ -z "${5:-}" ] || printf ', "hashes": [{"alg": "SHA-256", "content": "%s"}]' "$5"
	printf '},\n'
}

parts() {
	wheel=$(sed -n "s/^wheel='\(.*\)'$/\1/p" "$here/setup/setup.sh")
	component library "${wheel%==*}" "${wheel#*==}" "pkg:pypi/${wheel%==*}@${wheel#*==}" \
		"$(sed -n 's/^wheel_sha256=//p' "$here/setup/setup.sh")"
	# only in images that are built for NVIDIA's GPUs; its libraries are under NVIDIA's own licence
	sed -n 's/^\([a-z0-9-]*\)==\([^ ]*\) --hash=sha256:\(.*\)$/\1 \2 \3/p' "$here/setup/cuda.txt" |
		while read -r name version hash; do component library "$name" "$version" "pkg:pypi/$name@$version" "$hash"; done
	for name in train-images train-labels t10k-images t10k-labels; do
		component data "fashion-mnist/$name" 1 "pkg:generic/fashion-mnist@1#$name" \
			"$(sed -n "s/^	$name\*) echo \([0-9a-f]*\) ;;$/\1/p" "$here/setup/setup.sh")"
	done
	images | while read -r image; do
		name=${image%@*}
		component container "${name%:*}" "${name##*:}" "pkg:docker/${name%:*}@${name##*:}" "$(expr "$image" : '.*@sha256:\(.*\)' || true)"
	done
}

# images lists those with a fixed name.
images() {
	{ sed -n 's/^ARG BASE=//p; s/^FROM \([a-z][^ ]*\).*/\1/p' "$here/Dockerfile"
		sed -n 's/^    image: \([a-z][^ ]*\).*/\1/p' "$root/docker-compose.yml"; } | sort -u
}

case ${1:-} in
parts) parts ;;
*)
	version=$(sed -n 's/^    newTag: //p' "$here/kubernetes/overlays/production/kustomization.yaml")
	${GO:-go} run github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.10.0 bin -json -licenses -std \
		-version "$version" -output "$2.modules" "$1"
	parts >"$2.parts"
	sed "/^  \"components\": \[\$/r $2.parts" "$2.modules" >"$2"
	rm "$2.modules" "$2.parts"
	;;
esac
