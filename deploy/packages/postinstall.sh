#!/bin/sh
# dpkg calls it with "configure" and the old version, which is empty at first;
# rpm with how many there are then: 1 at first, 2 after an upgrade.
set -e

first=
case $1 in
configure) [ -n "$2" ] || first=1 ;;
1) first=1 ;;
2) ;;
*) exit 0 ;;
esac

if [ -e /usr/lib/sysusers.d/poemq.conf ] && command -v systemd-sysusers >/dev/null; then
	systemd-sysusers poemq.conf
fi
if [ -e /usr/lib/tmpfiles.d/poemq.conf ] && command -v systemd-tmpfiles >/dev/null; then
	systemd-tmpfiles --create poemq.conf || true # some of it only at the next boot
fi
[ -e /usr/lib/systemd/system/poemq.socket ] && command -v systemctl >/dev/null || exit 0

# Whether it starts at boot is the distribution's to say (systemd.preset(5)), once.
[ -z "$first" ] || systemctl preset poemq.socket >/dev/null 2>&1 || true
[ -d /run/systemd/system ] || exit 0
systemctl daemon-reload
if [ -e /usr/lib/sysctl.d/60-poemq.conf ]; then
	/lib/systemd/systemd-sysctl 60-poemq.conf || true
fi
if [ -n "$first" ]; then
	! systemctl -q is-enabled poemq.socket || systemctl start poemq.socket
else
	systemctl try-restart poemq.service # programs go on meanwhile
fi
