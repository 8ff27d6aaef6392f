#!/bin/sh
# dpkg calls it with "remove", "purge" and others, rpm with how many are left.
set -e
case $1 in
purge)
	# What is the machine's own: its key, the peers that it knows, its settings.
	rm -rf /var/lib/poemq /etc/poemq
	;;
remove | 0) rmdir /run/poemq 2>/dev/null || true ;;
esac
if [ -d /run/systemd/system ] && command -v systemctl >/dev/null; then
	systemctl daemon-reload
fi
