#!/bin/sh
# Installs the Debian packages that hold the real programs of test/apps and
# test/regress. It does nothing when every command is there already.
#
# The one list: a command that must exist, then the package that brings it.
# --list prints what is missing and installs nothing.
set -eu

PATH=$PATH:/usr/sbin:/sbin
for bin in /usr/lib/postgresql/*/bin; do
	PATH=$PATH:$bin
done
LIST='
ab                 apache2-utils
gcc                gcc
git                git
haproxy            haproxy
iperf3             iperf3
javac              default-jdk-headless
lighttpd           lighttpd
mariadb            mariadb-client-core
mariadbd           mariadb-server-core
memcached          memcached
nginx              nginx-light
node               nodejs
openssl            openssl
initdb             postgresql
psql               postgresql-client
python3            python3
redis-benchmark    redis-tools
redis-server       redis-server
rsync              rsync
socat              socat
ssh                openssh-client
sshd               openssh-server
wrk                wrk
/usr/include/stdio.h libc6-dev
'

missing=$(echo "$LIST" | while read -r have package; do
	[ -n "$have" ] || continue
	[ -e "$have" ] || command -v "$have" >/dev/null 2>&1 || echo "$package"
done | sort -u | tr '\n' ' ')

[ -n "$missing" ] || exit 0
echo "deps-apps: installing $missing" >&2
[ "${1-}" != --list ] || exit 0

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
	printf '#!/bin/sh\n# placed by deps-apps.sh while packages are installed\nexit 101\n' >"$draft"
	ours=1
	$sudo install -m 755 "$draft" "$policy"
	rm -f "$draft"
elif [ "$($policy deps-apps start >/dev/null 2>&1; echo $?)" != 101 ]; then
	echo "deps-apps: $policy is there and lets services start; they may start on install" >&2
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
