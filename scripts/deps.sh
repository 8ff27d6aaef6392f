#!/bin/sh
# Installs the Debian packages that building and testing need, those that are
# missing only; says what it installs, and nothing when all is there.
set -eu

packages="
ca-certificates curl gcc git iperf3 iproute2 libc6-dev libseccomp-dev make
netcat-openbsd pkg-config procps python3 shellcheck tcpdump telnet
"

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
	echo "deps: this is no Debian; install what corresponds to:$packages" >&2
	exit 0
fi

# shellcheck disable=SC2086 # one word a package
there=" $(dpkg-query -W -f='${db:Status-Status}:${Package} ' $packages 2>/dev/null || true)"
missing=
for package in $packages; do
	case $there in
	*" installed:$package "*) ;;
	*) missing="$missing $package" ;;
	esac
done
[ -n "$missing" ] || exit 0

sudo=
if [ "$(id -u)" -ne 0 ]; then
	if ! command -v sudo >/dev/null; then
		echo "deps: missing, and neither root nor sudo to install them:$missing" >&2
		exit 1
	fi
	sudo=sudo
fi

echo "deps: installing with apt-get:$missing"
apt() {
	# Quiet unless it fails; waits for another apt to finish.
	$sudo env DEBIAN_FRONTEND=noninteractive apt-get -qq -y \
		-o DPkg::Lock::Timeout=120 -o Dpkg::Use-Pty=0 "$@"
}
# Without package lists, or with old ones, the first attempt fails.
# shellcheck disable=SC2086 # one word a package
if ! apt install --no-install-recommends $missing >/dev/null 2>&1; then
	echo "deps: updating the package lists"
	apt update
	# shellcheck disable=SC2086
	apt install --no-install-recommends $missing >/dev/null
fi
echo "deps: done"
