#!/bin/bash
# Makes a small Debian with systemd in a cache, once, and prints its directory.
#
#   debroot.sh
#
# Tests boot it, or install packages in it: never there, but on an overlayfs
# with it as the lower layer (mount -t overlay).
# POEMQ_TEST_CACHE is the cache's directory, by default poemq-test in
# XDG_CACHE_HOME or /var/cache. Remove it at any time. Needs root.
set -euo pipefail

packages=systemd,systemd-sysv,dbus,procps,iproute2,netcat-openbsd,ca-certificates
cache=${POEMQ_TEST_CACHE:-${XDG_CACHE_HOME:-/var/cache}/poemq-test}
# A root of other packages is another one.
root=$cache/debian-$(printf %s "$packages" | cksum | cut -d' ' -f1)

say() { echo "debroot: $*" >&2; }
if [ -e "$root/complete" ]; then
	echo "$root/tree"
	exit
fi
if [ "$(id -u)" != 0 ]; then
	say "needs root, to make device nodes and change owners"
	exit 1
fi
if ! command -v debootstrap >/dev/null; then
	say "installing debootstrap"
	DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y -qq --no-install-recommends debootstrap >&2
fi

# Two tests at the same time make one root.
mkdir -p "$cache"
exec 9>"$root.lock"
flock 9
if [ -e "$root/complete" ]; then
	echo "$root/tree"
	exit
fi

# From where this machine itself gets its packages.
suite=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null |
	awk '$1 == "deb" { for (i = 2; i <= NF; i++) if ($i ~ /^(https?|file):/) { print $i; exit } }' || true)
if [ -z "$mirror" ]; then
	mirror=$(awk '$1 == "URIs:" { print $2; exit }' /etc/apt/sources.list.d/*.sources 2>/dev/null || true)
fi
[ -n "$mirror" ] || mirror=http://deb.debian.org/debian

say "making a small Debian $suite in $root, once"
rm -rf "$root"
mkdir -p "$root"
if ! debootstrap --variant=minbase --include="$packages" "$suite" "$root/tree" "$mirror" >"$root/log" 2>&1; then
	tail -n 20 "$root/log" >&2
	say "debootstrap failed; all of its words are in $root/log"
	exit 1
fi
# Packages need not be kept, nor lists of what there is.
rm -rf "$root"/tree/var/cache/apt/archives/*.deb "$root"/tree/var/lib/apt/lists/*
touch "$root/complete"
echo "$root/tree"
