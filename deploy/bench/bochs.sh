#!/bin/bash
# Whether processors that this machine is not give the same bits, instruction by instruction:
# deploy/bench/bochs.sh STEPS [MODEL]...
#
# Bochs emulates a PC with such a processor, AVX-512 included: corei7_skylake_x (tried, with version 3.0), and untried
# corei7_icelake_u, tigerlake and others. A small Linux boots there, compares the probes of the recipes with those
# checked in, and trains each recipe for STEPS (0: none) with one worker. It prints a line for each, and fails if a
# probe differs. It is about a hundred times slower than the processor: half a minute to boot, some two minutes for each
# probe.
#
# From the repository, after `make build`. ROOT is a directory with the packages of Debian 12 that it needs, whose names
# are below: `deploy/bench/bochs.sh unpack DIR` downloads them from this machine's sources and unpacks them there.
# Nothing is installed. BOCHS=DIR takes Bochs from another directory, such as one of Debian 13, whose Bochs 3 is several
# times faster. RECIPES and BACKENDS (default: xla) choose what is compared; LIMIT bounds each model's seconds; KEEP=DIR
# keeps what the guest wrote and Bochs's log.
set -eu
[ $# -ge 1 ] || { sed -n '2,$s/^# \{0,1\}//p;/^set/q' "$0" >&2; exit 2; }
packages='bochs bochs-term bochsbios vgabios busybox-static isolinux syslinux-common xorriso linux-image-cloud-amd64'
modules='scsi_common scsi_mod libata ata_piix cdrom sr_mod isofs'

if [ "$1" = unpack ]; then
	mkdir -p "$2/archives/partial"
	: >"$2/status" # of installed packages: none, so that all they need comes along
	# shellcheck disable=SC2086 # the packages are words
	apt-get -o "Dir::State::status=$2/status" -o "Dir::Cache::archives=$2/archives" -o Debug::NoLocking=1 -y \
		--no-install-recommends --download-only install $packages
	for package in "$2"/archives/*.deb; do dpkg -x "$package" "$2"; done
	exit
fi

ips=300000000 # of the guest's clock: its timeouts fit a processor of that speed
steps=$1 recipes=${RECIPES-tutorial fast augment} backends=${BACKENDS-xla} dir=$(mktemp -d)
root=$(realpath "${ROOT:?see deploy/bench/bochs.sh}")
bochs=$(realpath "${BOCHS-$root}")
trap 'rm -rf "$dir"' EXIT
shift
[ $# -gt 0 ] || set -- corei7_skylake_x

# found DIR NAME prints where that file of the packages is.
found() {
	local file
	file=$(find "$1" -path "$1/archives" -prune -o -name "$2" -not -type d -print | head -n 1)
	[ -n "$file" ] || { echo "$2 is not below $1: see $0" >&2; exit 1; }
	realpath "$file"
}

# program DIR NAME prints how to run that program of the packages there, with their libraries.
program() {
	printf '%s --library-path %s %s' "$(found "$1" ld-linux-x86-64.so.2)" \
		"$1/lib/x86_64-linux-gnu:$1/usr/lib/x86_64-linux-gnu" "$(found "$1/usr/bin" "$2")"
}

# disc makes the guest's compact disc: Linux, the programs, the data, and the job that the guest runs.
disc() {
	local initrd=$dir/initrd disc=$dir/disc busybox file
	mkdir -p "$initrd"/{bin,proc,sys,dev,tmp,disc,etc,modules} "$disc"/{isolinux,lib64,lib,bin,.evenweave,fashion/cnn}
	busybox=$(found "$root/bin" busybox)
	cp "$busybox" "$initrd/bin"
	for file in $modules; do cp "$(found "$root/lib/modules" "$file.ko")" "$initrd/modules"; done
	cat >"$initrd/init" <<-END
		#!/bin/busybox sh
		export PATH=/bin HOME=/tmp TMPDIR=/tmp
		/bin/busybox --install -s /bin
		mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev; mount -t tmpfs tmp /tmp
		for module in $modules; do insmod /modules/\$module.ko; done
		until [ -b /dev/sr0 ]; do sleep 0.1; done # a PC without it waits until LIMIT
		mount -t iso9660 -o ro /dev/sr0 /disc
		ln -s /disc/lib /disc/lib64 /
		: >/etc/ld.so.conf
		ip link set lo up
		cd /disc/fashion/cnn && sh /disc/job
		sleep 5 # until the console has all
		poweroff -f
	END
	chmod +x "$initrd/init"
	(cd "$initrd" && find . | "$busybox" cpio -o -H newc) >"$disc/isolinux/initrd" 2>/dev/null
	cp "$(found "$root" isolinux.bin)" "$(found "$root/usr/lib/syslinux/modules/bios" ldlinux.c32)" "$disc/isolinux"
	cp "$(found "$root/boot" 'vmlinuz-*')" "$disc/isolinux/vmlinuz"
	# The clock is the emulator's. Bochs 2.7 states another size of compacted registers than Linux computes.
	cat >"$disc/isolinux/isolinux.cfg" <<-END
		DEFAULT linux
		LABEL linux
		KERNEL vmlinuz
		APPEND initrd=initrd console=ttyS0 quiet nokaslr mitigations=off panic=-1 hpet=disable \
		tsc_early_khz=$((ips / 1000)) clearcpuid=xsaves,xsavec
	END
	GOEXPERIMENT=simd go test -c -o "$disc/bin/cnn.test" ./fashion/cnn
	cp bin/evenweave "$disc/bin"
	cp -r fashion/cnn/testdata "$disc/fashion/cnn"
	cp -rL .evenweave/data .evenweave/xla "$disc/.evenweave"
	for file in libc.so.6 libm.so.6 libpthread.so.0 libdl.so.2 librt.so.1 libresolv.so.2; do
		cp -L "/lib/x86_64-linux-gnu/$file" "$disc/lib"
	done
	cp -L /lib64/ld-linux-x86-64.so.2 "$disc/lib64"
	job >"$disc/job"
	$(program "$root" xorriso) -as mkisofs -quiet -R -iso-level 3 -b isolinux/isolinux.bin \
		-c isolinux/boot.cat -no-emul-boot -boot-load-size 4 -boot-info-table -o "$dir/disc.iso" "$disc" 2>/dev/null
}

# job prints what the guest runs. A test's binary finds the plug-in where `evenweave` does.
job() {
	local recipe backend narrow
	for backend in $backends; do
		narrow='' # the test of backend go runs again without AVX-512, whatever else is asked for
		[ "$backend" = go ] || narrow='GOMLX_SIMD_AVX512=false '
		echo "$narrow/disc/bin/cnn.test -test.v" \
			"-test.run '^TestNumericsOfThisProcessor\$/^$backend (${recipes// /|})\$'"
	done
	[ "$steps" -gt 0 ] || return 0
	for recipe in $recipes; do
		echo "/disc/bin/evenweave train --recipe $recipe --steps $steps --backend xla --workers 1 --parallelism 1" \
			"--pin=false --evaluate=false --http= -o json --data /disc/.evenweave/data --dir /tmp/run-$recipe |" \
			"sed -n 's/.*\"weights_sha256\":\"\\([0-9a-f]\\{12\\}\\).*/weights: $recipe, $steps steps: \\1/p'"
	done
}

# emulate MODEL boots the disc on such a processor and prints what the guest did.
emulate() {
	local share=$bochs/usr/share/bochs
	cat >"$dir/bochsrc" <<-END
		display_library: term
		romimage: file=$share/BIOS-bochs-latest
		vgaromimage: file=$share/VGABIOS-lgpl-latest
		memory: guest=2048, host=2048
		cpu: model=$1, count=1, ips=$ips, ignore_bad_msrs=1
		clock: sync=none
		pci: enabled=1, chipset=i440fx
		ata0: enabled=1
		ata0-master: type=cdrom, path=$dir/disc.iso, status=inserted
		boot: cdrom
		com1: enabled=1, mode=file, dev=$dir/console
		log: $dir/log
		panic: action=fatal
		error: action=ignore
	END
	printf 'c\nq\n' >"$dir/debugger" # of builds that have one: go on, and quit
	: >"$dir/console"
	LTDL_LIBRARY_PATH=$(dirname "$(found "$bochs" libbx_term_gui.so)")
	export LTDL_LIBRARY_PATH TERM=ansi # which cannot hide a cursor: Bochs would wait for a reader of its blinking
	[ -p "$dir/keys" ] || mkfifo "$dir/keys"
	# It shows the PC's screen on a terminal: that of `script`.
	script -qec "timeout ${LIMIT-7200} $(program "$bochs" bochs-bin) -q -rc '$dir/debugger' -f '$dir/bochsrc'" \
		/dev/null <>"$dir/keys" >/dev/null 2>&1 || true # it ends with an error whenever the PC turns itself off
	tr -d '\r' <"$dir/console" >"$dir/$1"
	sed -n "s/.*\(processor: .*\)/$1: \1/p;s/.*portable_test.go:[0-9]*: \(\(xla\|go\) .*\)/$1: probe \1/p
		s/.*\(weights: .*\)/$1: \1/p;s/.*--- FAIL/$1: FAIL/p" "$dir/$1"
	[ -z "${KEEP-}" ] || cp "$dir/$1" "$dir/log" "$KEEP"
	[ "$(grep -c '^--- PASS' "$dir/$1")" -eq "$(wc -w <<<"$backends")" ]
}

disc
failed=0
for model; do emulate "$model" || failed=1; done
exit $failed
