#!/bin/bash
# Fetches Debian packages for arm64, unpacks them in a cache, once, and prints the
# directory. Nothing is installed and no architecture added to dpkg.
#
#   arm64-tree.sh PACKAGE…
#
# linux-image-cloud-arm64 stands for the kernel that it depends on.
# POEMQ_TEST_CACHE is the cache's directory, by default poemq-test in
# XDG_CACHE_HOME or /var/cache. Remove it at any time.
set -euo pipefail
: "${1:?usage: arm64-tree.sh PACKAGE…}"

cache=${POEMQ_TEST_CACHE:-${XDG_CACHE_HOME:-/var/cache}/poemq-test}
dir=$cache/arm64-$(printf '%s ' "$@" | cksum | cut -d' ' -f1)
if [ -e "$dir/complete" ]; then
	echo "$dir/tree"
	exit
fi
mkdir -p "$cache"
exec 9>"$dir.lock"
flock 9
if [ -e "$dir/complete" ]; then
	echo "$dir/tree"
	exit
fi

echo "arm64-tree: fetching $* for arm64 into $dir, once" >&2
rm -rf "$dir"
mkdir -p "$dir/apt/state/lists/partial" "$dir/apt/cache/archives/partial" "$dir/debs" "$dir/tree"
: >"$dir/apt/status"
chmod 755 "$dir" "$dir/debs"
# The machine's own sources and keys, with package lists of arm64 beside.
own=(-o APT::Architecture=arm64 -o APT::Architectures::=arm64 -o APT::Sandbox::User=root
	-o Dir::State="$dir/apt/state" -o Dir::State::status="$dir/apt/status" -o Dir::Cache="$dir/apt/cache")
apt-get -qq "${own[@]}" update >&2
packages=()
for package; do
	case $package in
	linux-image-cloud-arm64)
		package=$(apt-cache "${own[@]}" depends "$package" | awk '$1 == "Depends:" && $2 ~ /^linux-image-/ { print $2; exit }')
		;;
	esac
	packages+=("$package")
done
(cd "$dir/debs" && apt-get -qq "${own[@]}" download "${packages[@]}" >&2)
for deb in "$dir"/debs/*.deb; do
	dpkg-deb -x "$deb" "$dir/tree"
done
rm -rf "$dir/apt" "$dir/debs"
touch "$dir/complete"
echo "$dir/tree"
