#!/bin/bash
# Fetches Debian's libseccomp for arm64 into a cache, once, and prints its
# directory. Nothing is installed and no architecture added to dpkg.
#
# POEMQ_TEST_CACHE is the cache's directory, by default poemq-test in
# XDG_CACHE_HOME or /var/cache. Remove it at any time.
set -euo pipefail

cache=${POEMQ_TEST_CACHE:-${XDG_CACHE_HOME:-/var/cache}/poemq-test}
dir=$cache/arm64
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

echo "arm64-sysroot: fetching libseccomp for arm64 into $dir, once" >&2
rm -rf "$dir"
mkdir -p "$dir/apt/state/lists/partial" "$dir/apt/cache/archives/partial" "$dir/debs" "$dir/tree"
: >"$dir/apt/status"
chmod 755 "$dir" "$dir/debs"
# The machine's own sources and keys, with package lists of arm64 beside.
apt=(apt-get -qq -o APT::Architecture=arm64 -o APT::Architectures::=arm64 -o APT::Sandbox::User=root
	-o Dir::State="$dir/apt/state" -o Dir::State::status="$dir/apt/status" -o Dir::Cache="$dir/apt/cache")
"${apt[@]}" update >&2
(cd "$dir/debs" && "${apt[@]}" download libseccomp2 libseccomp-dev >&2)
for deb in "$dir"/debs/*.deb; do
	dpkg-deb -x "$deb" "$dir/tree"
done
rm -rf "$dir/apt" "$dir/debs"
touch "$dir/complete"
echo "$dir/tree"
