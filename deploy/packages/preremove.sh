#!/bin/sh
# dpkg calls it with "remove" or "upgrade", rpm with how many are left: 0 or 1.
set -e
case $1 in
remove | 0) ;;
*) exit 0 ;;
esac
[ -e /usr/lib/systemd/system/poemq.socket ] && command -v systemctl >/dev/null || exit 0
if [ -d /run/systemd/system ]; then
	systemctl disable --now poemq.socket poemq.service >/dev/null 2>&1 || true
else
	systemctl disable poemq.socket poemq.service >/dev/null 2>&1 || true
fi
