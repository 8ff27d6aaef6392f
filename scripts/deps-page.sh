#!/bin/sh
# Installs the browser that looks at the status page in test/ctl. Where it cannot be
# had, that one test is skipped and says so.
# --list prints what is missing and installs nothing.
set -eu

if ! "$(dirname "$0")/deps-list.sh" deps-page "$@" <<LIST
chromium           chromium
LIST
then
	echo "deps-page: no chromium: the test of the status page in a browser will be skipped"
fi
