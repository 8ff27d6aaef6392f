#!/bin/bash
# Makes what the boot test runs beside poemq (nginx and Python), once, as a layer
# over the small Debian of scripts/debroot.sh, and prints both as overlayfs wants
# lower layers. Needs root.
set -euo pipefail

packages="nginx-light python3-minimal libpython3-stdlib"
base=$("$(dirname "$0")/../../scripts/debroot.sh")
cache=$(dirname "$(dirname "$base")")
layer=$cache/services-$(printf %s "$base $packages" | cksum | cut -d' ' -f1)

if [ ! -e "$layer/complete" ]; then
	exec 9>"$layer.lock"
	flock 9
fi
if [ ! -e "$layer/complete" ]; then
	echo "layer: installing $packages into $layer, once" >&2
	rm -rf "$layer"
	mkdir -p "$layer/upper" "$layer/work" "$layer/merged"
	# A namespace of its own: whatever happens, no mount stays.
	# shellcheck disable=SC2016 # the inner shell's
	if ! unshare --mount --pid --fork --kill-child --propagation private bash -euc '
		mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" "$2/merged"
		mount -t proc proc "$2/merged/proc"
		mount --bind /dev "$2/merged/dev"
		mount -t tmpfs tmpfs "$2/merged/run"
		rm -f "$2/merged/etc/resolv.conf"
		cp -L /etc/resolv.conf "$2/merged/etc/resolv.conf"
		printf "#!/bin/sh\nexit 101\n" >"$2/merged/usr/sbin/policy-rc.d" # starts nothing
		chmod +x "$2/merged/usr/sbin/policy-rc.d"
		chroot "$2/merged" apt-get update -qq
		# shellcheck disable=SC2086 # one word a package
		DEBIAN_FRONTEND=noninteractive chroot "$2/merged" apt-get install -y -qq --no-install-recommends $3
		rm -rf "$2"/merged/usr/sbin/policy-rc.d "$2"/merged/var/lib/apt/lists/* "$2"/merged/var/cache/apt/archives/*.deb
	' layer "$base" "$layer" "$packages" >"$layer/log" 2>&1; then
		tail -n 20 "$layer/log" >&2
		exit 1
	fi
	touch "$layer/complete"
fi
echo "$layer/upper:$base"
