#!/bin/sh
# Installs the Debian packages that hold the real programs of test/apps and
# test/regress. It does nothing when every command is there already.
#
# The one list: a command that must exist, then the package that brings it.
# --list prints what is missing and installs nothing.
set -eu

for bin in /usr/lib/postgresql/*/bin; do
	PATH=$PATH:$bin
done
"$(dirname "$0")/deps-list.sh" deps-apps "$@" <<LIST
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
LIST
