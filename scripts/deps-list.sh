#!/bin/sh
# Installs Debian packages for the commands that are missing; their services stay
# down. It does nothing when every command is there.
#
#   deps-list.sh NAME [--list] <LIST
#
# Each line of LIST is a command (or the path of a file) that must exist, then
# the package that brings it. --list prints what is missing and installs nothing.
set -eu
name=${1:?usage: deps-list.sh NAME}

PATH=$PATH:/usr/sbin:/sbin
missing=$(while read -r have package; do
	[ -n "$have" ] || continue
	[ -e "$have" ] || command -v "$have" >/dev/null 2>&1 || echo "$package"
done | sort -u | tr '\n' ' ')

[ -n "$missing" ] || exit 0
echo "$name: installing $missing" >&2
[ "${2-}" != --list ] || exit 0

sudo=
[ "$(id -u)" = 0 ] || sudo=sudo

# Services stay down: invoke-rc.d and deb-systemd-invoke ask policy-rc.d, and
# 101 means "not allowed". A policy that is there already is its owner's and is
# left alone. ours is set only once the file is really ours to remove.
policy=/usr/sbin/policy-rc.d
ours=
restore() {
	[ -z "$ours" ] || $sudo rm -f "$policy"
}
trap restore EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
if [ ! -e "$policy" ] && [ ! -L "$policy" ]; then
	draft=$(mktemp)
	printf '#!/bin/sh\n# placed by %s.sh while packages are installed\nexit 101\n' "$name" >"$draft"
	ours=1
	$sudo install -m 755 "$draft" "$policy"
	rm -f "$draft"
elif [ "$($policy "$name" start >/dev/null 2>&1; echo $?)" != 101 ]; then
	echo "$name: $policy is there and lets services start; they may start on install" >&2
fi

export DEBIAN_FRONTEND=noninteractive
install_missing() {
	# shellcheck disable=SC2086 # a list of package names
	$sudo env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 \
		install -y -qq --no-install-recommends $missing >&2
}
install_missing || {
	$sudo apt-get -o DPkg::Lock::Timeout=300 update -qq >&2
	install_missing
}
