#!/bin/sh
# Builds the Debian that test/systemd boots, unless it is there: root.sh DIR.
# From the mirror and the release that apt uses here. Packages are those a
# service needs to run and no more.
set -eu

dir=$1
packages=systemd,systemd-sysv,dbus,nginx-light,python3-minimal,libpython3-stdlib,netcat-openbsd,procps,iproute2
stamp=$dir/.complete
want="$packages 1"
if [ -e "$stamp" ] && [ "$(cat "$stamp")" = "$want" ]; then
	exit 0
fi
mkdir -p "$(dirname "$dir")"

# shellcheck disable=SC2016 # apt's own format
site=$(apt-get indextargets --format '$(CODENAME) $(REPO_URI)' 'Created-By: Packages' 'Component: main' |
	awk '$1 !~ /-/ { print; exit }')
suite=${site%% *}
mirror=${site#* }
if [ -z "$suite" ]; then
	echo "root.sh: apt has no package lists that name a Debian release; run apt-get update" >&2
	exit 1
fi
rm -rf "$dir.new"
if ! debootstrap --variant=minbase --include="$packages" "$suite" "$dir.new" "$mirror" >"$dir.log" 2>&1; then
	tail -n 20 "$dir.log" >&2
	exit 1
fi
rm -rf "$dir.new"/var/cache/apt/archives/*.deb "$dir.new"/var/lib/apt/lists/* "$dir.new"/usr/share/doc "$dir.new"/usr/share/locale
rm -f "$dir.new/etc/machine-id"
echo uninitialized >"$dir.new/etc/machine-id"
echo "$want" >"$dir.new/.complete"
rm -rf "$dir"
mv "$dir.new" "$dir"
